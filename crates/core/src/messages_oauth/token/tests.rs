//! The reasons and the sentences of token requests that fail.

use chrono::TimeDelta;
use itwin_oauth::{
    assertion::{ClientKeyError, SigningAlgorithm},
    transport::TransportError,
};

use super::*;

fn names(grant_type: GrantType) -> Names {
    Names {
        authority: "ims".to_owned(),
        client_secret: "team-a/client".to_owned(),
        keys: serde_json::from_value(serde_json::json!({"name": "client"})).expect("keys"),
        grant_type,
        method: ClientAuthentication::default(),
        is_endpoint_discovered: false,
    }
}

fn issued(error: &TokenError) -> Failure {
    not_issued(error, &names(GrantType::ClientCredentials))
}

fn response(code: ErrorCode) -> TokenError {
    TokenError::Response { code, status: 400, retry_after: None }
}

#[test]
fn reason_follows_the_oauth_error() {
    for (code, reason) in [
        (ErrorCode::InvalidClient, Reason::InvalidClient),
        (ErrorCode::InvalidScope, Reason::InvalidScope),
        (ErrorCode::UnauthorizedClient, Reason::UnauthorizedClient),
        (ErrorCode::UnsupportedGrantType, Reason::UnsupportedGrantType),
        (ErrorCode::ServerError, Reason::ServerError),
        (ErrorCode::TemporarilyUnavailable, Reason::ServerError),
        (ErrorCode::InvalidGrant, Reason::RequestRejected),
        (ErrorCode::InvalidRequest, Reason::RequestRejected),
        (ErrorCode::InvalidTarget, Reason::RequestRejected),
        (ErrorCode::Other, Reason::RequestRejected),
    ] {
        let failed = issued(&response(code));
        assert_eq!(failed.reason, reason, "{code}");
        assert!(failed.message.starts_with("ITwinAuthority ims "), "{}", failed.message);
        assert_eq!(failed.message.contains(code.as_str()), code != ErrorCode::Other);
        let names_status = failed.message.contains("HTTP 400");
        assert_eq!(names_status, code == ErrorCode::Other, "{}", failed.message);
    }
}

#[test]
fn wrong_client_is_reported_with_secret_and_keys() {
    assert_eq!(
        issued(&response(ErrorCode::InvalidClient)).message,
        "ITwinAuthority ims answered invalid_client: check client_id and client_secret in Secret team-a/client; a new \
         registration can take ten minutes"
    );
}

#[test]
fn access_denied_is_about_the_client_where_the_status_is_that_of_authentication() {
    let answered = |status| {
        let error = TokenError::Response { code: ErrorCode::AccessDenied, status, retry_after: None };
        let failed = issued(&error);
        (failed.reason, failed.message)
    };
    let (reason, message) = answered(401);
    assert_eq!(reason, Reason::UnauthorizedClient);
    assert!(message.contains("check client_id and client_secret in Secret team-a/client"), "{message}");
    for status in [200, 400, 403] {
        let (reason, message) = answered(status);
        assert_eq!(reason, Reason::RequestRejected, "{status}");
        assert!(message.contains("spec.audience") && !message.contains("client_secret"), "{message}");
    }
}

#[test]
fn advice_about_a_client_names_what_it_authenticates_with() {
    let message = |method| {
        let names = Names { method, ..names(GrantType::ClientCredentials) };
        not_issued(&response(ErrorCode::InvalidClient), &names).message
    };
    let signed = message(ClientAuthentication::PrivateKeyJwt);
    assert!(
        signed.contains("check client_id and private_key in Secret team-a/client, that the public key"),
        "{signed}"
    );
    assert!(signed.contains("clientAssertion of ITwinAuthority ims") && !signed.contains("client_secret"), "{signed}");
    assert!(signed.contains("that the clocks of this cluster and of the authority agree"), "{signed}");
    let public = message(ClientAuthentication::None);
    assert!(public.contains("check client_id in Secret team-a/client, and that the client is registered as a public"));
    assert!(!public.contains("client_secret") && !public.contains("clocks"), "{public}");
}

#[test]
fn client_is_registered_for_the_grant_type_of_the_credential() {
    let message = |grant_type| not_issued(&response(ErrorCode::UnauthorizedClient), &names(grant_type)).message;
    assert!(message(GrantType::ClientCredentials).contains("as a service (client credentials)"));
    assert!(message(GrantType::Password).contains("for the grant type password"));
}

#[test]
fn invalid_grant_of_a_service_user_names_its_keys() {
    let message = |grant_type| not_issued(&response(ErrorCode::InvalidGrant), &names(grant_type)).message;
    assert!(message(GrantType::Password).ends_with("check username and password in Secret team-a/client"));
    assert!(message(GrantType::ClientCredentials).ends_with("check spec.scopes, spec.resources and spec.audience"));
}

#[test]
fn unusable_key_is_a_fault_of_the_secret() {
    let failed = issued(&ClientKeyError { algorithm: Some(SigningAlgorithm::Es384) }.into());
    assert!(failed.message.contains("for ES384 (clientAssertion.algorithm of ITwinAuthority"), "{}", failed.message);
    assert!(failed.message.contains("write an EC P-384 key"), "{}", failed.message);
    let failed = issued(&ClientKeyError { algorithm: None }.into());
    assert_eq!(failed.reason, Reason::ClientCredentialsInvalid);
    assert!(failed.message.starts_with("key private_key of Secret team-a/client is no PEM private key"));
}

#[test]
fn wait_that_an_error_response_asks_for_is_kept() {
    let wait = Some(TimeDelta::seconds(7));
    let error = TokenError::Response { code: ErrorCode::ServerError, status: 500, retry_after: wait };
    assert_eq!((issued(&error).retry_after, issued(&error).server_wait), (wait, None));
    let error = TokenError::Response { code: ErrorCode::ServerError, status: 503, retry_after: wait };
    assert_eq!(issued(&error).server_wait, wait, "it is for all clients");
    let error =
        TokenError::Status { status: 403, is_certificate_asked: false, is_body_unread: false, retry_after: wait };
    assert_eq!((issued(&error).retry_after, issued(&error).server_wait), (wait, None));
}

#[test]
fn endpoint_of_a_failed_server_is_named() {
    let failed = issued(&TransportError::Server(502, None, Vec::new()).into());
    assert_eq!(failed.reason, Reason::ServerError);
    assert_eq!(
        failed.message,
        "the token endpoint of ITwinAuthority ims answered HTTP 502: contact the operators of the authorization server; \
         it is tried again"
    );
}

#[test]
fn broken_rule_of_a_token_response_is_named() {
    for (rule, text) in [
        (MalformedResponse::NotATokenResponse, "RFC 6749 section 5.1"),
        (MalformedResponse::TooDeep, "nested too deeply"),
        (MalformedResponse::TokenTooLong, "access_token has more than 32768 bytes"),
        (MalformedResponse::NotVisibleAscii, "visible ASCII"),
    ] {
        let failed = issued(&rule.into());
        assert_eq!(failed.reason, Reason::MalformedResponse);
        assert!(failed.message.contains(text) && failed.message.contains("ITwinAuthority ims"), "{}", failed.message);
    }
}

#[test]
fn status_without_an_oauth_error_may_be_about_a_client_certificate() {
    for is_certificate_asked in [false, true] {
        let failed =
            issued(&TokenError::Status { status: 400, is_certificate_asked, is_body_unread: false, retry_after: None });
        assert_eq!(failed.reason, Reason::RequestRejected);
        assert!(failed.message.contains("HTTP 400 without a known OAuth error"), "{}", failed.message);
        assert_eq!(failed.message.contains("client certificate"), is_certificate_asked, "{}", failed.message);
    }
}

#[test]
fn body_that_could_not_be_read_is_not_said_to_name_no_error() {
    let error =
        TokenError::Status { status: 401, is_certificate_asked: false, is_body_unread: true, retry_after: None };
    let message = issued(&error).message;
    let expected = "ITwinAuthority ims answered HTTP 401, and its body could not be read: check client_id and";
    assert!(message.starts_with(expected), "{message}");
    assert!(!message.contains("OAuth error"), "{message}");
}

#[test]
fn endpoint_that_moved_is_corrected_where_it_comes_from() {
    let message = |error: &TokenError, is_endpoint_discovered| {
        let names = Names { is_endpoint_discovered, ..names(GrantType::ClientCredentials) };
        not_issued(error, &names).message
    };
    let gone =
        TokenError::Status { status: 404, is_certificate_asked: false, is_body_unread: false, retry_after: None };
    assert!(message(&gone, false).ends_with("check its tokenEndpoint"));
    let discovered = message(&gone, true);
    assert!(
        discovered.ends_with(
            "check token_endpoint in its discovery document, which is read again within a minute, unless the authority \
             asked for a longer wait"
        ),
        "{discovered}"
    );
    let rejected =
        TokenError::Status { status: 400, is_certificate_asked: false, is_body_unread: false, retry_after: None };
    assert!(message(&rejected, true).ends_with("check token_endpoint in its discovery document"));
    let redirect = TransportError::Redirect(308).into();
    assert!(message(&redirect, false).ends_with("set tokenEndpoint of the ITwinAuthority to the final URL"));
    let discovered = message(&redirect, true);
    assert!(
        discovered
            .contains("which names this URL, is read again within a minute, unless the authority asked for a longer"),
        "{discovered}"
    );
}

#[test]
fn status_of_failed_authentication_without_an_oauth_error_names_the_client_first() {
    let message = |status, method| {
        let names = Names { method, ..names(GrantType::ClientCredentials) };
        let failed = not_issued(
            &TokenError::Status { status, is_certificate_asked: false, is_body_unread: false, retry_after: None },
            &names,
        );
        assert_eq!(failed.reason, Reason::RequestRejected);
        failed.message
    };
    assert_eq!(
        message(401, ClientAuthentication::ClientSecretBasic),
        "ITwinAuthority ims answered HTTP 401 without a known OAuth error: check client_id and client_secret in \
         Secret team-a/client; if the client is right, check its tokenEndpoint"
    );
    let signed = message(401, ClientAuthentication::PrivateKeyJwt);
    assert!(signed.contains("check client_id and private_key in Secret team-a/client"), "{signed}");
    let forbidden = message(403, ClientAuthentication::ClientSecretBasic);
    assert!(!forbidden.contains("client_secret"), "{forbidden}");
}
