//! The validated spec of an ITwinAuthority. The schema rejects most invalid values; the others are rejected here, with
//! the name of the field.

use std::{collections::BTreeMap, time::Duration};

use base64::Engine;
use chrono::TimeDelta;
use itwin_api::{
    authority::{AccessTokenFormat, AuthoritySpec, ClientAuthentication},
    credential::{CredentialSpec, GrantType},
    limits::URL_MAX,
};
use itwin_core::{failure::Failure, messages_permission};
use kube::core::{Selector, SelectorExt};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use url::Url;

/// An authority's configuration.
#[derive(Clone, Debug)]
pub struct AuthorityConfig {
    /// Issuer identifier without a trailing slash.
    pub issuer: String,
    /// Token endpoint, if the administrator configured it.
    pub token_endpoint: Option<Url>,
    /// URL of the key set, if the administrator configured it.
    pub jwks_uri: Option<Url>,
    /// How clients authenticate.
    pub client_authentication: ClientAuthentication,
    /// CA certificates that replace the system's root certificates.
    pub roots: Option<Vec<CertificateDer<'static>>>,
    /// Whether tokens are JWTs and must be verified.
    pub verify: bool,
    /// Accepted audiences, of which a token must have one; empty if any is accepted.
    pub audiences: Vec<String>,
    /// Deadline of one request.
    pub request_timeout: Duration,
    /// Maximum number of token requests in flight.
    pub max_concurrent_requests: u16,
    /// Maximum number of token requests per minute.
    pub requests_per_minute: u32,
    /// Tolerated difference between the clocks of authority and operator.
    pub clock_skew: TimeDelta,
    allowed_grant_types: Vec<GrantType>,
    allowed_scopes: Option<Vec<String>>,
    allowed_namespaces: Option<Selector>,
}

impl AuthorityConfig {
    /// Validates a spec.
    ///
    /// # Errors
    /// A message that names the field and says what to do.
    pub fn new(spec: &AuthoritySpec) -> Result<Self, String> {
        let issuer = spec.issuer.trim_end_matches('/').to_owned();
        https_url("issuer", &issuer)?;
        Ok(Self {
            token_endpoint: spec.token_endpoint.as_deref().map(|url| https_url("tokenEndpoint", url)).transpose()?,
            jwks_uri: spec.jwks_uri.as_deref().map(|url| https_url("jwksUri", url)).transpose()?,
            client_authentication: spec.client_authentication,
            roots: spec.ca_bundle.as_deref().map(roots).transpose()?,
            verify: spec.access_token_format == AccessTokenFormat::Jwt,
            audiences: spec.audiences.clone(),
            request_timeout: spec.request_timeout.into(),
            max_concurrent_requests: u16::try_from(spec.max_concurrent_requests)
                .ok()
                .filter(|requests| *requests > 0)
                .ok_or("maxConcurrentRequests: must be between 1 and 256")?,
            requests_per_minute: u32::try_from(spec.requests_per_minute)
                .ok()
                .filter(|requests| *requests > 0)
                .ok_or("requestsPerMinute: must be between 1 and 60000")?,
            clock_skew: TimeDelta::from_std(spec.clock_skew.into()).map_err(|_| "clockSkew: must be at most 10m")?,
            allowed_grant_types: spec.allowed_grant_types.clone(),
            allowed_scopes: spec.allowed_scopes.clone(),
            allowed_namespaces: match &spec.allowed_namespaces {
                None => None,
                Some(selector) => Some(Selector::try_from(selector.clone()).map_err(|error| {
                    format!("allowedNamespaces: {error}; write matchLabels or matchExpressions as for a Deployment")
                })?),
            },
            issuer,
        })
    }

    /// Whether the labels of a namespace determine whether its credentials may use this authority.
    #[must_use]
    pub fn restricts_namespaces(&self) -> bool {
        self.allowed_namespaces.is_some()
    }

    /// Checks whether credentials of a namespace with these labels may use this authority. The labels are needed only
    /// if [`Self::restricts_namespaces`].
    ///
    /// # Errors
    /// [`Reason::NamespaceNotAllowed`].
    pub fn permits_namespace(
        &self,
        authority: &str,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), Failure> {
        match &self.allowed_namespaces {
            Some(selector) if !selector.matches(labels) => {
                Err(messages_permission::namespace_not_allowed(authority, namespace, &selector.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Checks whether the authority allows grant type and scopes of a credential, before a request is sent.
    ///
    /// # Errors
    /// [`Reason::GrantTypeNotAllowed`] or [`Reason::ScopeNotAllowed`], with the field that does not allow it.
    pub fn permits(&self, authority: &str, spec: &CredentialSpec) -> Result<(), Failure> {
        if !self.allowed_grant_types.contains(&spec.grant_type) {
            let allowed: Vec<&str> = self.allowed_grant_types.iter().map(|grant_type| grant_type.as_str()).collect();
            let grant_type = spec.grant_type.as_str();
            return Err(messages_permission::grant_type_not_allowed(authority, grant_type, &allowed));
        }
        if let Some(allowed) = &self.allowed_scopes {
            let is_forbidden = |scope: &&String| !allowed.contains(scope);
            let forbidden: Vec<&str> = spec.scopes.iter().filter(is_forbidden).map(String::as_str).collect();
            if !forbidden.is_empty() {
                let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
                return Err(messages_permission::scope_not_allowed(authority, &forbidden, &allowed));
            }
        }
        Ok(())
    }
}

fn https_url(field: &str, text: &str) -> Result<Url, String> {
    let advice = "must be an https URL without user information or fragment";
    // the schema counts characters
    if text.len() > URL_MAX {
        return Err(format!("{field}: must have at most {URL_MAX} bytes"));
    }
    let url = Url::parse(text).map_err(|_| format!("{field}: {advice}"))?;
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    if url.scheme() == "https" && url.has_host() && plain { Ok(url) } else { Err(format!("{field}: {advice}")) }
}

fn roots(bundle: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let compact: String = bundle.split_ascii_whitespace().collect();
    let pem = base64::engine::general_purpose::STANDARD
        .decode(compact)
        .map_err(|_| "caBundle: is not base64: write the output of 'base64 -w0' of the CA's PEM file".to_owned())?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_| {
        "caBundle: contains an invalid PEM certificate: write the CA's PEM file, base64 encoded".to_owned()
    })?;
    if certificates.is_empty() {
        return Err("caBundle: contains no certificate; write the PEM certificate of the CA, base64 encoded".to_owned());
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use itwin_api::conditions::Reason;

    use super::*;

    fn spec(value: serde_json::Value) -> AuthoritySpec {
        let mut spec = serde_json::json!({"issuer": "https://ims.example.com/"});
        spec.as_object_mut().expect("an object").extend(value.as_object().expect("an object").clone());
        serde_json::from_value(spec).expect("a valid spec")
    }

    fn credential() -> CredentialSpec {
        serde_json::from_value(serde_json::json!({"clientCredentialsRef": {"name": "client"}, "scopes": ["a", "b"]}))
            .expect("a valid spec")
    }

    fn failure(authority: serde_json::Value, labels: &[(&str, &str)]) -> Option<Reason> {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let config = AuthorityConfig::new(&spec(authority)).expect("a valid configuration");
        let failure = config
            .permits("ims", &credential())
            .and_then(|()| config.permits_namespace("ims", "team-a", &labels))
            .err();
        failure.map(|failure| failure.reason)
    }

    #[test]
    fn trailing_slash_of_the_issuer_is_ignored() {
        let config = AuthorityConfig::new(&spec(serde_json::json!({}))).expect("valid");
        assert_eq!(config.issuer, "https://ims.example.com");
    }

    #[test]
    fn default_authority_allows_every_namespace_and_scope() {
        assert_eq!(failure(serde_json::json!({}), &[]), None);
    }

    #[test]
    fn scope_that_is_not_allowed_is_rejected() {
        assert_eq!(failure(serde_json::json!({"allowedScopes": ["a", "b", "c"]}), &[]), None);
        assert_eq!(failure(serde_json::json!({"allowedScopes": ["a"]}), &[]), Some(Reason::ScopeNotAllowed));
        assert_eq!(failure(serde_json::json!({"allowedScopes": []}), &[]), Some(Reason::ScopeNotAllowed));
    }

    #[test]
    fn namespace_is_allowed_by_its_labels() {
        let authority = serde_json::json!({"allowedNamespaces": {"matchLabels": {"itwin": "yes"}}});
        assert_eq!(failure(authority.clone(), &[("itwin", "yes")]), None);
        assert_eq!(failure(authority, &[]), Some(Reason::NamespaceNotAllowed));
    }

    #[test]
    fn message_about_an_invalid_ca_bundle_names_the_field() {
        for bundle in ["!", "", "bm90IGEgY2VydGlmaWNhdGU="] {
            let error = AuthorityConfig::new(&spec(serde_json::json!({"caBundle": bundle}))).expect_err("rejected");
            assert!(error.starts_with("caBundle: "), "{error}");
        }
    }

    #[test]
    fn urls_are_bounded_in_bytes() {
        let url = |path: &str| spec(serde_json::json!({"jwksUri": format!("https://a/{path}")}));
        assert!(AuthorityConfig::new(&url(&"a".repeat(URL_MAX - 10))).is_ok());
        for path in ["a".repeat(URL_MAX - 9), "ä".repeat(URL_MAX / 2)] {
            let error = AuthorityConfig::new(&url(&path)).expect_err("rejected");
            assert_eq!(error, "jwksUri: must have at most 2048 bytes");
        }
    }

    #[test]
    fn urls_must_be_plain_https() {
        for url in ["http://a/t", "https://u@a/t", "https://a/t#f", "a", "file:///t"] {
            let error = AuthorityConfig::new(&spec(serde_json::json!({"tokenEndpoint": url}))).expect_err("rejected");
            assert!(error.starts_with("tokenEndpoint: "), "{error}");
        }
    }
}
