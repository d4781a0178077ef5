//! What the answers of token endpoints are read as, and what is sent to them.

use std::sync::Mutex;

use chrono::TimeDelta;
use futures::{FutureExt, future::BoxFuture};

use super::*;
use crate::{
    assertion::ClientKey,
    identifier::Identifier,
    transport::{BodyUnread, ClientCertificateAsked, RetryAfter, TransportError, UNAVAILABLE},
};

const ISSUER: &str = "https://ims.example.com";

/// A server with one answer, which keeps the bodies of the requests.
struct Canned {
    answer: fn() -> Result<http::Response<Vec<u8>>, TransportError>,
    requests: Mutex<Vec<String>>,
}

impl Transport for Canned {
    fn send(&self, request: http::Request<Vec<u8>>) -> BoxFuture<'_, Result<http::Response<Vec<u8>>, TransportError>> {
        let body = String::from_utf8(request.into_body()).expect("a form");
        self.requests.lock().expect("no panic").push(body);
        std::future::ready((self.answer)()).boxed()
    }
}

fn answer(status: u16, body: &str) -> http::Response<Vec<u8>> {
    let response = http::Response::builder().status(status).header("content-type", "application/json");
    response.body(body.as_bytes().to_vec()).expect("a response")
}

fn client(proof: Proof) -> TokenRequest {
    TokenRequest {
        client: ClientCredentials { id: Identifier::Public("id".to_owned()), proof, user: None },
        scopes: vec!["a".to_owned(), "b".to_owned()],
        resources: vec!["https://api.example.com".to_owned(), "https://other.example.com".to_owned()],
        audience: None,
    }
}

fn with_secret() -> TokenRequest {
    client(Proof::SecretInBody(Sensitive::new("secret".to_owned())))
}

/// The result of a request, and what was sent.
fn exchange(
    request: &TokenRequest,
    answer: fn() -> Result<http::Response<Vec<u8>>, TransportError>,
) -> (Result<TokenResponse, TokenError>, Vec<String>) {
    let transport = Canned { answer, requests: Mutex::default() };
    let token_endpoint = Url::parse(ISSUER).expect("a URL");
    let written = token_endpoint.as_str();
    let assertion = &AssertionRules::default();
    let server = Server { token_endpoint: &token_endpoint, written_token_endpoint: written, issuer: ISSUER, assertion };
    let sent_at = DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
    let id = AssertionId::from_random([7; assertion::ID_BYTES]);
    let result = super::request(&transport, server, request, sent_at, &id).now_or_never().expect("nothing to wait for");
    (result, transport.requests.into_inner().expect("no panic"))
}

fn answered(answer: fn() -> Result<http::Response<Vec<u8>>, TransportError>) -> Result<TokenResponse, TokenError> {
    exchange(&with_secret(), answer).0
}

#[test]
fn response_is_read_as_the_server_wrote_it() {
    let read = answered(|| {
        Ok(answer(200, r#"{"access_token":"t","token_type":"Bearer","expires_in":3600,"scope":"a b","x":[]}"#))
    });
    let read = read.expect("a token response");
    assert_eq!((read.access_token.expose(), read.token_type.as_str(), read.expires_in), ("t", "Bearer", Some(3600)));
    assert_eq!(read.scope, Some(vec!["a".to_owned(), "b".to_owned()]));
}

#[test]
fn lenient_servers_are_understood() {
    for answer in [
        || Ok(answer(201, r#"{"access_token":"t","token_type":"Bearer","expires_in":60,"scope":"a b"}"#)),
        || Ok(answer(203, r#"{"access_token":"t","token_type":"Bearer","expires_in":60.9,"scope":"a b"}"#)),
        || Ok(answer(299, r#"{"access_token":"t","token_type":"Bearer","expires_in":6e1,"scope":["a b"]}"#)),
        || Ok(answer(200, r#"{"access_token":"t","token_type":"Bearer","expires_in":"60","scope":"a b"}"#)),
        || Ok(answer(200, r#"{"access_token":"t","token_type":"Bearer","expires_in":"60.9","scope":"a b"}"#)),
        || Ok(answer(200, r#"{"access_token":"t","token_type":"Bearer","expires_in":60,"scope":["a","b"]}"#)),
    ] {
        let read = answered(answer).expect("a token response");
        assert_eq!((read.expires_in, read.scope.map(|scope| scope.len())), (Some(60), Some(2)));
    }
    let read = answered(|| {
        Ok(answer(
            200,
            r#"{"access_token":"t","token_type":"Bearer","expires_in":null,"scope":null,"refresh_token":7}"#,
        ))
    });
    assert!(read.is_ok_and(|read| read.expires_in.is_none() && read.scope.is_none()));
}

#[test]
fn lifetime_that_is_no_number_of_seconds_is_malformed() {
    for answer in [
        || Ok(answer(200, r#"{"access_token":"t","token_type":"Bearer","expires_in":-1}"#)),
        || Ok(answer(200, r#"{"access_token":"t","token_type":"Bearer","expires_in":-0.5}"#)),
        || Ok(answer(200, r#"{"access_token":"t","token_type":"Bearer","expires_in":1e30}"#)),
        || Ok(answer(200, r#"{"access_token":"t","token_type":"Bearer","expires_in":true}"#)),
        || Ok(answer(200, r#"{"access_token":"t","token_type":"Bearer","expires_in":[60]}"#)),
        || Ok(answer(200, r#"{"access_token":"t","token_type":"Bearer","expires_in":"60."}"#)),
        || Ok(answer(200, r#"{"access_token":"t","token_type":"Bearer","expires_in":".5"}"#)),
        || Ok(answer(200, r#"{"access_token":"t","token_type":"Bearer","expires_in":"6e1"}"#)),
        || Ok(answer(200, r#"{"access_token":"t","token_type":"Bearer","expires_in":""}"#)),
        || Ok(answer(200, r#"{"access_token":"t","token_type":"Bearer","expires_in":"+60"}"#)),
        || Ok(answer(200, r#"{"access_token":"t","token_type":"Bearer","expires_in":"99999999999999999999"}"#)),
        || Ok(answer(200, r#"{"access_token":"t","token_type":"Bearer","expires_in":60,"expires_in":60}"#)),
    ] {
        assert!(matches!(answered(answer), Err(TokenError::Malformed(MalformedResponse::NotATokenResponse))));
    }
}

#[test]
fn json_of_another_content_type_is_named_as_such() {
    const BODY: &str = r#"{"access_token": "a", "token_type": "Bearer", "expires_in": 3600}"#;
    fn with(content_type: &str) -> http::Response<Vec<u8>> {
        let mut response = answer(200, BODY);
        response.headers_mut().insert("content-type", content_type.parse().expect("a value"));
        response
    }
    let other = answered(|| Ok(with("text/plain")));
    assert!(matches!(other, Err(TokenError::Malformed(MalformedResponse::ContentType))));
    assert!(answered(|| Ok(with("Application/JSON; charset=utf-8"))).is_ok());
    let text = answered(|| Ok(answer(200, "<html>")));
    assert!(matches!(text, Err(TokenError::Malformed(MalformedResponse::NotATokenResponse))));
}

#[test]
fn answer_is_one_json_text_in_which_no_field_is_twice() {
    for answer in [
        || Ok(answer(200, r#"{"access_token":"t","token_type":"Bearer"}garbage"#)),
        || Ok(answer(200, r#"{"access_token":"t","token_type":"Bearer"}{"access_token":"u"}"#)),
        || Ok(answer(200, "{\"access_token\":\"t\",\"token_type\":\"Bearer\"}\0")),
        || Ok(answer(200, "\u{feff}{\"access_token\":\"t\",\"token_type\":\"Bearer\"}")),
        || Ok(answer(200, r#"{"access_token":"t","access_token":"u","token_type":"Bearer"}"#)),
        || Ok(answer(200, r#"{"access_token":"t","token_type":"Bearer","token_type":"Bearer"}"#)),
        || Ok(answer(200, r#"{"access_token":"t","token_type":"Bearer","scope":"a","scope":"b"}"#)),
        || Ok(answer(200, r#"{"error":"invalid_client"}garbage"#)),
    ] {
        assert!(matches!(answered(answer), Err(TokenError::Malformed(MalformedResponse::NotATokenResponse))));
    }
    // white space may follow (RFC 8259 section 2)
    assert!(answered(|| Ok(answer(200, "{\"access_token\":\"t\",\"token_type\":\"Bearer\"} \r\n\t"))).is_ok());
}

#[test]
fn error_is_classified_whatever_the_status_is() {
    for (answer, expected) in [
        ((|| Ok(answer(400, r#"{"error":"invalid_client"}"#))) as fn() -> _, 400),
        (|| Ok(answer(401, r#"{"errorCode":"invalid_client"}"#)), 401),
        (|| Ok(answer(200, r#"{"error":"invalid_client"}"#)), 200),
        (|| Ok(answer(401, r#"{"error":"invalid_client","error_description":7}"#)), 401),
        (|| Err(TransportError::Server(500, None, br#"{"error":"invalid_client"}"#.to_vec())), 500),
        (|| Err(TransportError::RateLimited(None, br#"{"error":"invalid_client"}"#.to_vec())), 429),
        (|| Err(TransportError::RateLimited(None, br#"{"errorCode":"invalid_client"}"#.to_vec())), 429),
    ] {
        let found = match answered(answer) {
            Err(TokenError::Response { code, status, .. }) => Some((code, status)),
            _ => None,
        };
        assert_eq!(found, Some((ErrorCode::InvalidClient, expected)));
    }
}

#[test]
fn status_without_a_known_error_stays_what_it_is() {
    for answer in [
        (|| Ok(answer(404, "<html>"))) as fn() -> _,
        || Ok(answer(404, "")),
        || Ok(answer(404, r#"{"error":7,"errorCode":"invalid_client"}"#)),
        || Ok(answer(404, r#"{"error":"invalid_client"}{}"#)),
        || Ok(answer(404, r#"{"error":"invalid_client","error":"invalid_scope"}"#)),
        || Ok(answer(404, r#"{"status":404,"error":"Not Found"}"#)),
        || Ok(answer(404, r#"{"error":"RESTEASY003210: Could not find resource for full path"}"#)),
        || Ok(answer(404, r#"{"errorCode":"E0000007"}"#)),
    ] {
        assert!(matches!(answered(answer), Err(TokenError::Status { status: 404, is_certificate_asked: false, .. })));
    }
    let failed = answered(|| Err(TransportError::Server(502, None, br#"{"error":"custom"}"#.to_vec())));
    assert!(matches!(failed, Err(TokenError::Transport(TransportError::Server(502, ..)))));
    for limited in [
        (|| Err(TransportError::RateLimited(None, br#"{"error":"slow_down"}"#.to_vec()))) as fn() -> _,
        || Err(TransportError::RateLimited(None, br#"{"error":"invalid_client"} "garbage""#.to_vec())),
        || Err(TransportError::RateLimited(None, b"<html>".to_vec())),
    ] {
        let limited = answered(limited);
        assert!(matches!(limited, Err(TokenError::Transport(TransportError::RateLimited(..)))));
    }
    let unauthorized = answered(|| Ok(answer(401, r#"{"status":401,"error":"Unauthorized"}"#)));
    assert!(matches!(unauthorized, Err(TokenError::Status { status: 401, .. })));
    assert!(matches!(
        answered(|| Ok(answer(400, r#"{"error":"custom"}"#))),
        Err(TokenError::Response { code: ErrorCode::Other, .. })
    ));
}

#[test]
fn status_of_a_body_that_could_not_be_read_is_no_outage_and_says_so() {
    let unread = answered(|| {
        let mut answer = answer(401, "");
        answer.extensions_mut().insert(BodyUnread);
        Ok(answer)
    });
    assert!(matches!(unread, Err(TokenError::Status { status: 401, is_body_unread: true, .. })));
    assert!(unread.is_err_and(|error| !error.is_outage()));
    assert!(matches!(answered(|| Ok(answer(401, ""))), Err(TokenError::Status { is_body_unread: false, .. })));
}

#[test]
fn body_that_is_nested_too_deeply_hides_no_status() {
    fn nested(status: u16) -> http::Response<Vec<u8>> {
        answer(status, &format!(r#"{{"error":{}{}}}"#, "[".repeat(100), "]".repeat(100)))
    }
    let refused = answered(|| Ok(nested(403)));
    assert!(matches!(refused, Err(TokenError::Status { status: 403, .. })));
    let issued = answered(|| Ok(nested(200)));
    assert!(matches!(issued, Err(TokenError::Malformed(MalformedResponse::TooDeep))));
}

#[test]
fn failed_server_is_an_outage_unless_it_names_an_oauth_error() {
    for (answer, expected) in [
        ((|| Err(TransportError::Server(500, None, br#"{"error":"unknown_error"}"#.to_vec()))) as fn() -> _, true),
        (|| Err(TransportError::Server(502, None, br#"{"error":"Internal Server Error"}"#.to_vec())), true),
        (|| Err(TransportError::Server(500, None, br#"{"errorCode":"E0000009"}"#.to_vec())), true),
        (|| Err(TransportError::Server(500, None, br#"{"error":"invalid_client"}"#.to_vec())), false),
        (|| Ok(answer(400, r#"{"error":"unknown_error"}"#)), false),
    ] {
        assert_eq!(answered(answer).err().map(|error| error.is_outage()), Some(expected));
    }
}

#[test]
fn answer_after_a_request_for_a_client_certificate_stays_what_it_is() {
    fn asked(status: u16, body: &str) -> Result<http::Response<Vec<u8>>, TransportError> {
        let mut answer = answer(status, body);
        answer.extensions_mut().insert(ClientCertificateAsked);
        Ok(answer)
    }
    let status = answered(|| asked(400, "<html>"));
    assert!(matches!(status, Err(TokenError::Status { status: 400, is_certificate_asked: true, .. })));
    let error = answered(|| asked(401, r#"{"error":"invalid_client"}"#));
    assert!(matches!(error, Err(TokenError::Response { code: ErrorCode::InvalidClient, status: 401, .. })));
    assert!(answered(|| asked(200, r#"{"access_token":"t","token_type":"Bearer","expires_in":60}"#)).is_ok());
}

#[test]
fn wait_is_for_all_clients_only_with_503_and_429() {
    const WAIT: TimeDelta = TimeDelta::seconds(7);
    fn asks_for_a_wait(status: u16, body: &str) -> Result<http::Response<Vec<u8>>, TransportError> {
        let mut answer = answer(status, body);
        answer.extensions_mut().insert(RetryAfter(WAIT));
        Ok(answer)
    }
    let waits = |answer| answered(answer).err().map(|error| (error.retry_after(), error.server_wait()));
    for (answer, expected) in [
        ((|| Err(TransportError::Server(500, Some(WAIT), Vec::new()))) as fn() -> _, (Some(WAIT), None)),
        (|| Err(TransportError::Server(UNAVAILABLE, Some(WAIT), Vec::new())), (Some(WAIT), Some(WAIT))),
        (|| Err(TransportError::RateLimited(Some(WAIT), Vec::new())), (Some(WAIT), Some(WAIT))),
        (
            || Err(TransportError::RateLimited(Some(WAIT), br#"{"error":"invalid_client"}"#.to_vec())),
            (Some(WAIT), Some(WAIT)),
        ),
        (|| Err(TransportError::Server(500, Some(WAIT), br#"{"error":"server_error"}"#.to_vec())), (Some(WAIT), None)),
        (
            || Err(TransportError::Server(UNAVAILABLE, Some(WAIT), br#"{"error":"server_error"}"#.to_vec())),
            (Some(WAIT), Some(WAIT)),
        ),
        (|| Err(TransportError::Redirect(302)), (None, None)),
        (|| asks_for_a_wait(400, r#"{"error":"invalid_client"}"#), (Some(WAIT), None)),
        (|| asks_for_a_wait(200, r#"{"error":"invalid_client"}"#), (Some(WAIT), None)),
        (|| asks_for_a_wait(403, "<html>"), (Some(WAIT), None)),
        (|| Ok(answer(403, "<html>")), (None, None)),
    ] {
        assert_eq!(waits(answer), Some(expected));
    }
}

#[test]
fn debug_text_of_an_error_holds_no_token() {
    let error = answered(|| Ok(answer(200, r#"{"access_token":"TOKEN ","token_type":"Bearer"}"#))).err();
    assert!(error.is_some_and(|error| !format!("{error:?} {error}").contains("TOKEN")));
    let error = answered(|| Ok(answer(200, r#"{"access_token":"TOKEN"}"#))).err();
    assert!(error.is_some_and(|error| !format!("{error:?} {error}").contains("TOKEN")));
}

#[test]
fn request_carries_scopes_and_each_resource() {
    let (_, sent) = exchange(&with_secret(), || Err(TransportError::TooLarge(1)));
    assert_eq!(
        sent,
        ["grant_type=client_credentials&scope=a+b&client_id=id&client_secret=secret\
          &resource=https%3A%2F%2Fapi.example.com&resource=https%3A%2F%2Fother.example.com"]
    );
}

#[test]
fn request_of_a_service_user_carries_name_and_password() {
    let mut request = with_secret();
    request.client.user =
        Some(User { name: Sensitive::new("u".to_owned()), password: Sensitive::new("p w".to_owned()) });
    let (_, sent) = exchange(&request, || Err(TransportError::TooLarge(1)));
    assert!(sent[0].starts_with("grant_type=password&username=u&password=p+w&scope=a+b"), "{sent:?}");
}

#[test]
fn request_without_scopes_sends_no_scope_and_the_audience_is_sent() {
    let request = TokenRequest {
        scopes: Vec::new(),
        resources: Vec::new(),
        audience: Some("https://api.example.com/".to_owned()),
        ..with_secret()
    };
    let (_, sent) = exchange(&request, || Err(TransportError::TooLarge(1)));
    let expected = "grant_type=client_credentials&client_id=id&client_secret=secret\
                    &audience=https%3A%2F%2Fapi.example.com%2F";
    assert_eq!(sent, [expected]);
}

#[test]
fn public_client_sends_its_identifier_and_the_service_user_alone() {
    let mut request = client(Proof::Nothing);
    request.client.user = Some(User { name: Sensitive::new("u".to_owned()), password: Sensitive::new("p".to_owned()) });
    let (_, sent) = exchange(&request, || Err(TransportError::TooLarge(1)));
    assert!(sent[0].starts_with("grant_type=password&username=u&password=p&scope=a+b&client_id=id"), "{sent:?}");
    assert!(!sent[0].contains("client_secret") && !sent[0].contains("client_assertion"), "{sent:?}");
}

fn key(pem: &str) -> ClientKey {
    ClientKey { pem: Sensitive::new(pem.to_owned()), key_id: None, certificate: None }
}

/// The claims and the header of the assertion that was sent.
fn assertion_in(body: &str) -> (serde_json::Value, serde_json::Value) {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let assertion = body.split('&').find_map(|parameter| parameter.strip_prefix("client_assertion="));
    let part = |index: usize| {
        let text = assertion.and_then(|assertion| assertion.split('.').nth(index)).expect("a part");
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).expect("base64")).expect("JSON")
    };
    (part(1), part(0))
}

#[test]
fn assertion_is_for_the_audience_that_the_server_demands() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let key = ClientKey { key_id: Some(Identifier::Public("first".to_owned())), ..key(&pair.serialize_pem()) };
    let request = client(Proof::PrivateKey(key));
    // with the slash at its end that it is written with
    let issuer = "https://ims.example.com/";
    // with a port that its URL does not need
    let endpoint = "https://IMS.example.com:443/connect/token";
    for (audience, expected) in [
        (AssertionAudience::Issuer, issuer),
        (AssertionAudience::TokenEndpoint, endpoint),
        (AssertionAudience::Text("urn:ims".to_owned()), "urn:ims"),
    ] {
        let transport = Canned { answer: || Err(TransportError::TooLarge(1)), requests: Mutex::default() };
        let token_endpoint = Url::parse(endpoint).expect("a URL");
        let rules = AssertionRules { audience, clock_skew: TimeDelta::minutes(1), ..AssertionRules::default() };
        let server =
            Server { token_endpoint: &token_endpoint, written_token_endpoint: endpoint, issuer, assertion: &rules };
        let id = AssertionId::from_random([7; assertion::ID_BYTES]);
        let result = super::request(&transport, server, &request, DateTime::UNIX_EPOCH, &id);
        assert!(result.now_or_never().expect("nothing to wait for").is_err());
        let sent = transport.requests.into_inner().expect("no panic");
        let (claims, header) = assertion_in(&sent[0]);
        assert_eq!((claims["aud"].as_str(), header["kid"].as_str()), (Some(expected), Some("first")));
        assert_eq!(claims["exp"], 180, "two minutes and the difference of the clocks");
    }
}

#[test]
fn unusable_key_sends_nothing() {
    let request = client(Proof::PrivateKey(key("no key")));
    let (result, sent) = exchange(&request, || Err(TransportError::TooLarge(1)));
    assert!(matches!(result, Err(TokenError::ClientKey(ClientKeyError { algorithm: None }))) && sent.is_empty());
}

#[test]
fn key_signs_an_assertion_and_is_not_sent() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let request = client(Proof::PrivateKey(key(&pair.serialize_pem())));
    let (_, sent) = exchange(&request, || Err(TransportError::TooLarge(1)));
    let kind = "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";
    assert!(sent[0].contains(kind) && sent[0].contains("&client_assertion=ey"), "{sent:?}");
    assert!(sent[0].contains("client_id=id") && !sent[0].contains("client_secret"), "{sent:?}");
}
