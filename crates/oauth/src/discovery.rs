//! The metadata document of an authorization server (OpenID Connect Discovery 1.0 section 4, RFC 8414 section 3).

mod shown_endpoint;

use serde::Deserialize;
use url::Url;

pub use self::shown_endpoint::shown;
use crate::{json, limits::URL_MAX};

/// The endpoints of an authorization server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Token endpoint.
    pub token: TokenEndpoint,
    /// JSON Web Key Set; absent where tokens are opaque and the document names none.
    pub jwks: Option<Url>,
}

/// A token endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenEndpoint {
    /// Where requests are sent.
    pub url: Url,
    /// The same as it is written: a server may compare it to the letter with the audience of an assertion.
    pub written: String,
}

impl std::fmt::Display for TokenEndpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.url.fmt(formatter)
    }
}

impl From<Url> for TokenEndpoint {
    fn from(url: Url) -> Self {
        Self { written: url.to_string(), url }
    }
}

/// An endpoint, by its field in the document (RFC 8414 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `token_endpoint`.
    Token,
    /// `jwks_uri`.
    Jwks,
}

impl Endpoint {
    /// The field's name.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::Token => "token_endpoint",
            Self::Jwks => "jwks_uri",
        }
    }
}

/// What is wrong with a document. Nothing of its text is in it: a server that was sent client secrets before may have put
/// one anywhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// Not a JSON object with an issuer, and texts as endpoints.
    #[error("no JSON object with issuer and endpoints")]
    NotADocument,
    /// It is the document of this other issuer (RFC 8414 section 3.3).
    #[error("another issuer")]
    OtherIssuer {
        /// Whether an authority can have that one: whether it is an https URL.
        is_https: bool,
    },
    /// The expected issuer is no URL.
    #[error("the issuer is no URL")]
    IssuerNotAUrl,
    /// An endpoint is longer than [`URL_MAX`].
    #[error("{} is too long", .0.field())]
    TooLong(Endpoint),
    /// An endpoint is no URL.
    #[error("{} is no URL", .0.field())]
    NotAUrl(Endpoint),
    /// An endpoint has another origin than the issuer, a user, or a fragment.
    #[error("{} is not on the issuer's origin", .0.field())]
    OtherOrigin(Endpoint),
    /// The document names no such endpoint, and one is needed.
    #[error("no {}", .0.field())]
    Missing(Endpoint),
}

/// What an https URL begins with.
const HTTPS: &str = "https://";

#[derive(Deserialize)]
struct Document {
    issuer: String,
    token_endpoint: Option<String>,
    jwks_uri: Option<String>,
}

/// The URL of the document for an issuer without a trailing slash.
#[must_use]
pub fn document_url(issuer: &str) -> String {
    let written = format!("{issuer}/.well-known/openid-configuration");
    // a host name may be written with letters that no request has
    Url::parse(&written).map_or(written, Into::into)
}

/// Reads a document and gives its endpoints. It must be `issuer`'s own and name endpoints of the issuer's origin.
///
/// An endpoint that the administrator named is taken as it is; the document cannot change it. That of the keys may be
/// anything unless `needs_keys`.
///
/// # Errors
/// [`DiscoveryError`].
pub fn endpoints(
    body: &[u8],
    issuer: &str,
    named_token: Option<&TokenEndpoint>,
    named_jwks: Option<&Url>,
    needs_keys: bool,
) -> Result<Endpoints, DiscoveryError> {
    let document: Document = json::read(body).ok_or(DiscoveryError::NotADocument)?;
    // slashes at its end mean nothing
    if document.issuer.len() > URL_MAX || !same_issuer(&document.issuer, issuer) {
        let scheme = document.issuer.get(..HTTPS.len());
        let is_https = scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(HTTPS));
        return Err(DiscoveryError::OtherIssuer { is_https });
    }
    let issuer = Url::parse(issuer).map_err(|_| DiscoveryError::IssuerNotAUrl)?;
    let token = match named_token {
        Some(endpoint) => endpoint.clone(),
        None => {
            let written = document.token_endpoint.ok_or(DiscoveryError::Missing(Endpoint::Token))?;
            TokenEndpoint { url: allowed(&written, Endpoint::Token, &issuer)?, written }
        }
    };
    let jwks_of_the_document =
        || document.jwks_uri.as_deref().map(|written| allowed(written, Endpoint::Jwks, &issuer)).transpose();
    let jwks = match named_jwks {
        Some(url) => Some(url.clone()),
        None if needs_keys => jwks_of_the_document()?,
        // where it points to harms no one
        None => jwks_of_the_document().unwrap_or_default(),
    };
    Ok(Endpoints { token, jwks })
}

/// An endpoint that the document may name: https, on the issuer's origin, without user and fragment.
fn allowed(value: &str, endpoint: Endpoint, issuer: &Url) -> Result<Url, DiscoveryError> {
    if value.len() > URL_MAX {
        return Err(DiscoveryError::TooLong(endpoint));
    }
    let url = Url::parse(value).map_err(|_| DiscoveryError::NotAUrl(endpoint))?;
    let is_own = url.scheme() == "https" && url.origin() == issuer.origin();
    let has_user = !url.username().is_empty() || url.password().is_some();
    if !is_own || has_user || url.fragment().is_some() {
        return Err(DiscoveryError::OtherOrigin(endpoint));
    }
    Ok(url)
}

/// Whether two issuer identifiers are one: a trailing slash means nothing.
#[must_use]
pub fn same_issuer(a: &str, b: &str) -> bool {
    a.trim_end_matches('/') == b.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "https://ims.example.com";

    fn read(document: &serde_json::Value) -> Result<Endpoints, DiscoveryError> {
        endpoints(document.to_string().as_bytes(), ISSUER, None, None, true)
    }

    #[test]
    fn document_of_the_issuer_gives_its_endpoints() {
        let read = read(&serde_json::json!({
            "issuer": "https://ims.example.com/",
            "token_endpoint": "https://ims.example.com/connect/token",
            "jwks_uri": "https://ims.example.com/keys",
            "unknown": {"ignored": true},
        }));
        assert_eq!(read.map(|e| e.token.url.to_string()), Ok("https://ims.example.com/connect/token".to_owned()));
    }

    #[test]
    fn token_endpoint_is_kept_as_the_document_writes_it() {
        let written = "https://IMS.example.com:443/connect/token";
        let token = read(&serde_json::json!({"issuer": ISSUER, "token_endpoint": written, "jwks_uri": ISSUER}));
        let token = token.expect("a document").token;
        assert_eq!((token.written.as_str(), token.url.as_str()), (written, "https://ims.example.com/connect/token"));
    }

    #[test]
    fn url_of_the_document_is_one_that_a_request_can_have() {
        assert_eq!(document_url(ISSUER), "https://ims.example.com/.well-known/openid-configuration");
        let written = document_url("https://bücher.example/ä");
        assert_eq!(written, "https://xn--bcher-kva.example/%C3%A4/.well-known/openid-configuration");
        assert!(http::Request::get(written).body(()).is_ok());
    }

    #[test]
    fn another_issuer_is_refused() {
        let read = read(
            &serde_json::json!({"issuer": "https://evil.example.com", "token_endpoint": "https://ims.example.com/t"}),
        );
        assert_eq!(read, Err(DiscoveryError::OtherIssuer { is_https: true }));
        let plain =
            serde_json::json!({"issuer": "http://ims.example.com", "token_endpoint": "https://ims.example.com/t"});
        let read = endpoints(plain.to_string().as_bytes(), ISSUER, None, None, true);
        assert_eq!(read, Err(DiscoveryError::OtherIssuer { is_https: false }));
    }

    #[test]
    fn endpoint_of_another_origin_is_refused() {
        for endpoint in [
            "https://ims.example.com.evil.com/t",
            "https://ims.example.com:8443/t",
            "http://ims.example.com/t",
            "https://user@ims.example.com/t",
            "https://:password@ims.example.com/t",
            "https://ims.example.com/t#x",
        ] {
            let read = read(&serde_json::json!({"issuer": ISSUER, "token_endpoint": endpoint}));
            assert_eq!(read, Err(DiscoveryError::OtherOrigin(Endpoint::Token)), "{endpoint}");
        }
    }

    #[test]
    fn endpoint_that_the_administrator_named_is_taken() {
        let named = TokenEndpoint::from(Url::parse("https://other.example.com/t").expect("a URL"));
        let document = serde_json::json!({"issuer": ISSUER, "token_endpoint": "https://evil.example.com/t"});
        let read = endpoints(document.to_string().as_bytes(), ISSUER, Some(&named), None, true);
        assert_eq!(read.map(|endpoints| endpoints.token), Ok(named));
    }

    #[test]
    fn keys_of_another_origin_matter_only_where_keys_are_needed() {
        let document = serde_json::json!({
            "issuer": ISSUER, "token_endpoint": format!("{ISSUER}/t"), "jwks_uri": "https://keys.example.com/k",
        });
        let read = |needs_keys| endpoints(document.to_string().as_bytes(), ISSUER, None, None, needs_keys);
        assert_eq!(read(true), Err(DiscoveryError::OtherOrigin(Endpoint::Jwks)));
        assert_eq!(read(false).map(|endpoints| endpoints.jwks), Ok(None));
    }

    #[test]
    fn longer_urls_than_the_schema_takes_are_refused() {
        let endpoint = |size: usize| format!("{ISSUER}/{}", "t".repeat(size - ISSUER.len() - 1));
        let document =
            |issuer: &str, size: usize| serde_json::json!({"issuer": issuer, "token_endpoint": endpoint(size)});
        assert!(read(&document(ISSUER, URL_MAX)).is_ok());
        assert_eq!(read(&document(ISSUER, URL_MAX + 1)), Err(DiscoveryError::TooLong(Endpoint::Token)));
        let slashes = format!("{ISSUER}{}", "/".repeat(URL_MAX));
        assert_eq!(read(&document(&slashes, URL_MAX)), Err(DiscoveryError::OtherIssuer { is_https: true }));
    }

    #[test]
    fn missing_endpoint_and_text_that_is_no_url_are_named() {
        assert_eq!(read(&serde_json::json!({"issuer": ISSUER})), Err(DiscoveryError::Missing(Endpoint::Token)));
        let document =
            serde_json::json!({"issuer": ISSUER, "token_endpoint": format!("{ISSUER}/t"), "jwks_uri": "keys"});
        assert_eq!(read(&document), Err(DiscoveryError::NotAUrl(Endpoint::Jwks)));
    }

    #[test]
    fn nonsense_is_refused() {
        for body in ["", "null", "[]", "<html>", "{\"issuer\": 1}", "\u{feff}{}"] {
            let read = endpoints(body.as_bytes(), ISSUER, None, None, true);
            assert_eq!(read, Err(DiscoveryError::NotADocument), "{body}");
        }
    }
}
