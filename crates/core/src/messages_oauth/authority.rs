//! What users read when the metadata or the keys of an authorization server are of no use.

use std::time::Duration;

use itwin_api::conditions::Reason;
use itwin_oauth::{
    discovery::{DiscoveryError, Endpoint},
    key_set::KeySetError,
    limits::URL_MAX,
};

use super::transport;
use crate::{
    failure::Failure,
    request_error::{Document, MetadataError},
};

/// The metadata or the keys are not known, or not known again.
#[must_use]
pub fn unavailable(error: &MetadataError, authority: &str) -> Failure {
    match error {
        MetadataError::Transport(document, error) => {
            transport::failed(error, &named(*document, authority), moved(*document))
        }
        MetadataError::Late(document, limit) => late(*document, *limit, authority),
        MetadataError::Discovery(error) => invalid_document(error, authority),
        MetadataError::KeySet(error) => invalid_keys(*error, authority),
    }
}

/// What an administrator does where a document has another URL. That of the discovery document follows from the issuer.
fn moved(document: Document) -> &'static str {
    match document {
        Document::Discovery => {
            "have the administrator set spec.tokenEndpoint and spec.jwksUri of the ITwinAuthority, so that none is read, or, \
             if the authorization server has another issuer now, create an ITwinAuthority with that one: spec.issuer is \
             immutable"
        }
        Document::KeySet => "have the administrator set spec.jwksUri of the ITwinAuthority to the final URL",
    }
}

fn named(document: Document, authority: &str) -> String {
    let document = match document {
        Document::Discovery => "discovery document",
        Document::KeySet => "key set",
    };
    format!("{document} of ITwinAuthority {authority}")
}

/// A document that a token waits for. The wait has a limit of its own, whatever requestTimeout is.
fn late(document: Document, limit: Duration, authority: &str) -> Failure {
    let message = format!(
        "the {} gave no complete answer within {limit:?}, and an issued token waits for it no longer: check the network; it \
         is tried again",
        named(document, authority)
    );
    Failure::new(Reason::Timeout, message)
}

/// Nothing is known of the authorization server yet, so that no token was requested.
#[must_use]
pub fn not_ready(authority: &str) -> Failure {
    let message = format!(
        "the endpoints and keys of ITwinAuthority {authority}, which was created or changed just now, are not known yet: \
         there is nothing to do, the token is requested once they are, or it is said here why they cannot be read"
    );
    Failure::new(Reason::AuthorityNotReady, message)
}

/// A discovery document that is of no use.
fn invalid_document(error: &DiscoveryError, authority: &str) -> Failure {
    let why = match error {
        DiscoveryError::NotADocument => "it is not a JSON object with issuer and endpoints".to_owned(),
        DiscoveryError::OtherIssuer { is_https: false } => {
            "it names another issuer than spec.issuer, and no ITwinAuthority can be created for an issuer that is no https \
             URL: have the server name spec.issuer, or set spec.tokenEndpoint and spec.jwksUri"
                .to_owned()
        }
        DiscoveryError::OtherIssuer { is_https: true } => {
            "it names another issuer than spec.issuer, which is immutable: read the issuer that it names at \
             .well-known/openid-configuration below spec.issuer, and create an ITwinAuthority with that one"
                .to_owned()
        }
        DiscoveryError::IssuerNotAUrl => "the issuer is no URL".to_owned(),
        DiscoveryError::TooLong(endpoint) => {
            format!("its {} has more than {URL_MAX} bytes: set {}", endpoint.field(), spec_field(*endpoint))
        }
        DiscoveryError::NotAUrl(endpoint) => {
            format!("its {} is no URL: set {}", endpoint.field(), spec_field(*endpoint))
        }
        DiscoveryError::OtherOrigin(endpoint) => format!(
            "its {} is not on the issuer's origin: if that is right, set {} to it",
            endpoint.field(),
            spec_field(*endpoint)
        ),
        DiscoveryError::Missing(Endpoint::Token) => "it names no token_endpoint: set spec.tokenEndpoint".to_owned(),
        DiscoveryError::Missing(Endpoint::Jwks) => {
            "it names no jwks_uri: set spec.jwksUri, or spec.accessTokenFormat to opaque".to_owned()
        }
    };
    unusable(Document::Discovery, authority, &why)
}

/// A key set that is of no use.
fn invalid_keys(error: KeySetError, authority: &str) -> Failure {
    let why = match error {
        KeySetError::NotAKeySet => "it is no JSON Web Key Set",
        KeySetError::NoSigningKey => {
            "it holds no signing key of a kind that can be used (RSA, EC P-256 or P-384, Ed25519; not P-521, so no ES512)"
        }
    };
    unusable(Document::KeySet, authority, why)
}

/// The field by which an administrator names an endpoint.
fn spec_field(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Token => "spec.tokenEndpoint",
        Endpoint::Jwks => "spec.jwksUri",
    }
}

fn unusable(document: Document, authority: &str, why: &str) -> Failure {
    let message = format!("the {} cannot be used: {why}", named(document, authority));
    Failure::new(Reason::MalformedResponse, message)
}

#[cfg(test)]
mod tests {
    use itwin_oauth::transport::TransportError;

    use super::*;

    #[test]
    fn endpoint_of_another_origin_is_refused_with_advice() {
        let message = |error| unavailable(&MetadataError::Discovery(error), "ims").message;
        assert_eq!(
            message(DiscoveryError::OtherOrigin(Endpoint::Token)),
            "the discovery document of ITwinAuthority ims cannot be used: its token_endpoint is not on the issuer's \
             origin: if that is right, set spec.tokenEndpoint to it"
        );
        assert!(message(DiscoveryError::TooLong(Endpoint::Jwks)).ends_with("more than 2048 bytes: set spec.jwksUri"));
        assert!(message(DiscoveryError::Missing(Endpoint::Jwks)).contains("spec.accessTokenFormat"));
        assert_eq!(
            message(DiscoveryError::OtherIssuer { is_https: true }),
            "the discovery document of ITwinAuthority ims cannot be used: it names another issuer than spec.issuer, which \
             is immutable: read the issuer that it names at .well-known/openid-configuration below spec.issuer, and create \
             an ITwinAuthority with that one"
        );
        let plain = message(DiscoveryError::OtherIssuer { is_https: false });
        assert!(plain.contains("set spec.tokenEndpoint and spec.jwksUri"), "{plain}");
    }

    #[test]
    fn document_that_moved_is_corrected_in_a_field_that_there_is() {
        let message =
            |document| unavailable(&MetadataError::Transport(document, TransportError::Redirect(301)), "ims").message;
        let discovery = message(Document::Discovery);
        assert!(discovery.starts_with("the discovery document of ITwinAuthority ims answered HTTP 301"), "{discovery}");
        assert!(discovery.contains("set spec.tokenEndpoint and spec.jwksUri"), "{discovery}");
        assert!(discovery.contains("create an ITwinAuthority with that one"), "the issuer is immutable: {discovery}");
        assert!(message(Document::KeySet).ends_with("set spec.jwksUri of the ITwinAuthority to the final URL"));
    }

    #[test]
    fn invalid_keys_name_the_authority() {
        for error in [KeySetError::NotAKeySet, KeySetError::NoSigningKey] {
            let failed = unavailable(&error.into(), "ims");
            assert!(failed.message.starts_with("the key set of ITwinAuthority ims cannot be used: it "));
            assert_eq!(failed.reason, Reason::MalformedResponse);
        }
    }

    #[test]
    fn limit_of_the_wait_of_a_token_is_not_called_request_timeout() {
        let failed = unavailable(&MetadataError::Late(Document::KeySet, Duration::from_secs(15)), "ims");
        assert_eq!(failed.reason, Reason::Timeout);
        assert!(failed.message.starts_with("the key set of ITwinAuthority ims gave no complete answer within 15s,"));
        assert!(!failed.message.contains("requestTimeout"), "{}", failed.message);
    }
}
