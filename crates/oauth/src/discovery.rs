//! The authority's metadata document (OpenID Connect Discovery 1.0, RFC 8414).

use itwin_api::limits::URL_MAX;
use serde::Deserialize;
use url::Url;

use super::json;

/// Where an authority is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Token endpoint.
    pub token: Url,
    /// JSON Web Key Set; absent where tokens are opaque and the document names none.
    pub jwks: Option<Url>,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    token_endpoint: Option<String>,
    jwks_uri: Option<String>,
}

/// The URL of the document for an issuer without a trailing slash.
#[must_use]
pub fn document_url(issuer: &str) -> String {
    format!("{issuer}/.well-known/openid-configuration")
}

/// Reads a document and gives its issuer to the letter, and its endpoints. It must be `issuer`'s own and name endpoints of the issuer's origin.
///
/// An endpoint that the administrator named is taken as it is; the document cannot change it.
///
/// # Errors
/// Text that says what is wrong and what the administrator can do.
pub fn endpoints(
    body: &[u8],
    issuer: &str,
    named_token: Option<&Url>,
    named_jwks: Option<&Url>,
) -> Result<(String, Endpoints), String> {
    let document = if json::is_shallow(body) { serde_json::from_slice::<Document>(body).ok() } else { None };
    let document = document.ok_or("it is not a JSON object with issuer and endpoints")?;
    // slashes at its end mean nothing, but it is kept and sent to the letter
    if document.issuer.len() > URL_MAX || !same_issuer(&document.issuer, issuer) {
        return Err("it names another issuer: set spec.issuer to the authority's own issuer identifier".to_owned());
    }
    let origin = Url::parse(issuer).map_err(|_| "the issuer is no URL".to_owned())?.origin();
    let discovered = |value: Option<&str>, field: &str, spec_field: &str| -> Result<Option<Url>, String> {
        let Some(value) = value else { return Ok(None) };
        if value.len() > URL_MAX {
            return Err(format!("its {field} has more than {URL_MAX} bytes: set spec.{spec_field}"));
        }
        let url = Url::parse(value).map_err(|_| format!("its {field} is no URL: set spec.{spec_field}"))?;
        if url.scheme() != "https" || url.origin() != origin || !url.username().is_empty() || url.fragment().is_some() {
            return Err(format!(
                "its {field} is not on the issuer's origin: if that is right, set spec.{spec_field} to it"
            ));
        }
        Ok(Some(url))
    };
    let token = match named_token {
        Some(url) => url.clone(),
        None => discovered(document.token_endpoint.as_deref(), "token_endpoint", "tokenEndpoint")?
            .ok_or("it names no token_endpoint: set spec.tokenEndpoint")?,
    };
    let jwks = match named_jwks {
        Some(url) => Some(url.clone()),
        None => discovered(document.jwks_uri.as_deref(), "jwks_uri", "jwksUri")?,
    };
    Ok((document.issuer, Endpoints { token, jwks }))
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

    fn read(document: &serde_json::Value) -> Result<Endpoints, String> {
        endpoints(document.to_string().as_bytes(), ISSUER, None, None).map(|(_, endpoints)| endpoints)
    }

    #[test]
    fn document_of_the_issuer_gives_its_endpoints() {
        let read = read(&serde_json::json!({
            "issuer": "https://ims.example.com/",
            "token_endpoint": "https://ims.example.com/connect/token",
            "jwks_uri": "https://ims.example.com/keys",
            "unknown": {"ignored": true},
        }));
        assert_eq!(read.map(|e| e.token.to_string()), Ok("https://ims.example.com/connect/token".to_owned()));
    }

    #[test]
    fn another_issuer_is_refused() {
        let read = read(
            &serde_json::json!({"issuer": "https://evil.example.com", "token_endpoint": "https://ims.example.com/t"}),
        );
        assert!(read.is_err_and(|error| error.contains("another issuer")));
    }

    #[test]
    fn endpoint_of_another_origin_is_refused_with_advice() {
        for endpoint in [
            "https://ims.example.com.evil.com/t",
            "https://ims.example.com:8443/t",
            "http://ims.example.com/t",
            "https://user@ims.example.com/t",
            "https://ims.example.com/t#x",
        ] {
            let read = read(&serde_json::json!({"issuer": ISSUER, "token_endpoint": endpoint}));
            assert!(read.is_err_and(|error| error.contains("spec.tokenEndpoint")), "{endpoint}");
        }
    }

    #[test]
    fn endpoint_that_the_administrator_named_is_taken() {
        let named = Url::parse("https://other.example.com/t").expect("a URL");
        let document = serde_json::json!({"issuer": ISSUER, "token_endpoint": "https://evil.example.com/t"});
        let read = endpoints(document.to_string().as_bytes(), ISSUER, Some(&named), None);
        assert_eq!(read.map(|(_, endpoints)| endpoints.token), Ok(named));
    }

    #[test]
    fn longer_urls_than_the_schema_takes_are_refused() {
        let endpoint = |size: usize| format!("{ISSUER}/{}", "t".repeat(size - ISSUER.len() - 1));
        let document =
            |issuer: &str, size: usize| serde_json::json!({"issuer": issuer, "token_endpoint": endpoint(size)});
        assert!(read(&document(ISSUER, URL_MAX)).is_ok());
        assert!(read(&document(ISSUER, URL_MAX + 1)).is_err_and(|error| error.contains("spec.tokenEndpoint")));
        let slashes = format!("{ISSUER}{}", "/".repeat(URL_MAX));
        assert!(read(&document(&slashes, URL_MAX)).is_err_and(|error| error.contains("another issuer")));
    }

    #[test]
    fn nonsense_is_refused() {
        for body in ["", "null", "[]", "<html>", "{\"issuer\": 1}", "\u{feff}{}"] {
            assert!(endpoints(body.as_bytes(), ISSUER, None, None).is_err(), "{body}");
        }
    }
}
