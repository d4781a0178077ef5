//! The validated spec of an ITwinAuthority. The schema rejects most invalid values; the others are rejected here, with
//! the name of the field.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::Engine;
use chrono::TimeDelta;
use itwin_api::{
    authority::{
        AccessTokenFormat, AssertionAlgorithm, AuthoritySpec, ClientAssertion, ClientAuthentication, ScopeCheck,
    },
    credential::{CredentialSpec, GrantType},
    limits::URL_MAX,
};
use itwin_core::{failure::Failure, messages_permission, token_rules::TokenRules};
use itwin_oauth::{
    assertion::{AssertionAudience, AssertionRules, SigningAlgorithm},
    discovery::TokenEndpoint,
    tls::TrustedRoots,
};
use kube::core::{Selector, SelectorExt};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use url::Url;

/// An authority's configuration.
#[derive(Clone, Debug)]
pub struct AuthorityConfig {
    /// Issuer identifier without a trailing slash.
    pub issuer: String,
    /// The same as the administrator wrote it.
    pub written_issuer: String,
    /// Token endpoint, if the administrator configured it.
    pub token_endpoint: Option<TokenEndpoint>,
    /// URL of the key set, if the administrator configured it.
    pub jwks_uri: Option<Url>,
    /// How clients authenticate.
    pub client_authentication: ClientAuthentication,
    /// What the authority demands of client assertions.
    pub assertion: AssertionRules,
    /// CA certificates that replace the system's root certificates.
    pub roots: Option<Vec<CertificateDer<'static>>>,
    /// Where these come from.
    pub roots_from: TrustedRoots,
    /// Whether tokens are JWTs and must be verified.
    pub verify: bool,
    /// The lifetime of opaque tokens for which the authority states none.
    pub default_token_lifetime: Option<TimeDelta>,
    /// Accepted audiences, of which a token must have one; empty if any is accepted.
    pub audiences: Vec<String>,
    /// Deadline of one request.
    pub request_timeout: Duration,
    /// Deadline of a connection.
    pub connect_timeout: Duration,
    /// Maximum number of token requests in flight.
    pub max_concurrent_requests: u16,
    /// Maximum number of token requests per minute.
    pub requests_per_minute: u32,
    /// Tolerated difference between the clocks of authority and operator.
    pub clock_skew: TimeDelta,
    /// Whether every requested scope must be granted.
    pub scope_check: ScopeCheck,
    /// The scopes that may be requested and granted; `None` for any.
    pub allowed_scopes: Option<Vec<String>>,
    /// What it demands of tokens: a change of anything else concerns no token that was issued.
    pub token_rules: Arc<TokenRules>,
    allowed_grant_types: Vec<GrantType>,
    allowed_audiences: Option<Vec<String>>,
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
        let clock_skew = TimeDelta::from_std(spec.clock_skew.into()).map_err(|_| "clockSkew: must be at most 10m")?;
        Ok(Self {
            token_endpoint: spec.token_endpoint.as_deref().map(token_endpoint).transpose()?,
            jwks_uri: spec.jwks_uri.as_deref().map(|url| https_url("jwksUri", url)).transpose()?,
            client_authentication: spec.client_authentication,
            assertion: AssertionRules {
                clock_skew,
                ..spec.client_assertion.as_ref().map(assertion_rules).unwrap_or_default()
            },
            roots: spec.ca_bundle.as_deref().map(bundle).transpose()?,
            roots_from: if spec.ca_bundle.is_some() { TrustedRoots::Configured } else { TrustedRoots::System },
            verify: spec.access_token_format == AccessTokenFormat::Jwt,
            default_token_lifetime: spec
                .default_token_lifetime
                .map(|lifetime| TimeDelta::from_std(lifetime.into()))
                .transpose()
                .map_err(|_| "defaultTokenLifetime: must be at most 8760h")?,
            audiences: spec.audiences.clone(),
            request_timeout: spec.request_timeout.into(),
            connect_timeout: spec.connect_timeout.into(),
            scope_check: spec.scope_check,
            allowed_audiences: spec.allowed_audiences.clone(),
            max_concurrent_requests: u16::try_from(spec.max_concurrent_requests)
                .ok()
                .filter(|requests| *requests > 0)
                .ok_or("maxConcurrentRequests: must be between 1 and 256")?,
            requests_per_minute: u32::try_from(spec.requests_per_minute)
                .ok()
                .filter(|requests| *requests > 0)
                .ok_or("requestsPerMinute: must be between 1 and 60000")?,
            clock_skew,
            allowed_grant_types: spec.allowed_grant_types.clone(),
            allowed_scopes: spec.allowed_scopes.clone(),
            allowed_namespaces: match &spec.allowed_namespaces {
                None => None,
                Some(selector) => Some(Selector::try_from(selector.clone()).map_err(|error| {
                    format!("allowedNamespaces: {error}; write matchLabels or matchExpressions as for a Deployment")
                })?),
            },
            token_rules: TokenRules::new(spec).into(),
            written_issuer: spec.issuer.clone(),
            issuer,
        })
    }

    /// The same with the CA certificates that `spec.caBundleRef` refers to.
    #[must_use]
    pub fn trusting(self, roots: Vec<CertificateDer<'static>>) -> Self {
        Self { roots: Some(roots), roots_from: TrustedRoots::Referenced, ..self }
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

    /// Checks whether the authority allows grant type, scopes and audiences of a credential, before a request is sent.
    ///
    /// # Errors
    /// [`Reason::GrantTypeNotAllowed`], [`Reason::ScopeNotAllowed`] or [`Reason::AudienceNotAllowed`], with the field that
    /// does not allow it.
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
        self.permits_audience(authority, spec)
    }

    /// Each audience and each resource must be one that is allowed. Some servers take several audiences in one text.
    fn permits_audience(&self, authority: &str, spec: &CredentialSpec) -> Result<(), Failure> {
        let Some(allowed) = &self.allowed_audiences else { return Ok(()) };
        let is_allowed = |audience: &str| allowed.iter().any(|allowed| allowed == audience);
        let audience =
            spec.audience.as_deref().filter(|audience| !is_allowed(audience) && !audience.split(' ').all(is_allowed));
        let resource = spec.resources.iter().map(String::as_str).find(|resource| !is_allowed(resource));
        let forbidden = audience.map(|audience| ("audience", audience));
        let Some((field, value)) = forbidden.or(resource.map(|resource| ("resources", resource))) else {
            return Ok(());
        };
        let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
        Err(messages_permission::audience_not_allowed(authority, field, value, &allowed))
    }
}

fn assertion_rules(assertion: &ClientAssertion) -> AssertionRules {
    let audience = match assertion.audience.as_str() {
        "issuer" => AssertionAudience::Issuer,
        "tokenEndpoint" => AssertionAudience::TokenEndpoint,
        text => AssertionAudience::Text(text.to_owned()),
    };
    let algorithm = assertion.algorithm.map(|algorithm| match algorithm {
        AssertionAlgorithm::RS256 => SigningAlgorithm::Rs256,
        AssertionAlgorithm::PS256 => SigningAlgorithm::Ps256,
        AssertionAlgorithm::ES256 => SigningAlgorithm::Es256,
        AssertionAlgorithm::ES384 => SigningAlgorithm::Es384,
        AssertionAlgorithm::EdDSA => SigningAlgorithm::EdDsa,
    });
    AssertionRules { audience, algorithm, ..AssertionRules::default() }
}

fn token_endpoint(written: &str) -> Result<TokenEndpoint, String> {
    Ok(TokenEndpoint { url: https_url("tokenEndpoint", written)?, written: written.to_owned() })
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

fn bundle(base64: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let compact: String = base64.split_ascii_whitespace().collect();
    let pem = base64::engine::general_purpose::STANDARD
        .decode(compact)
        .map_err(|_| "caBundle: is not base64: write the output of `base64 < ca.crt | tr -d '\\n'`".to_owned())?;
    roots("caBundle", &pem)
}

/// The certificates of a PEM text, which this field names.
///
/// # Errors
/// Text that names the field and says what to write.
pub fn roots(field: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| format!("{field}: contains an invalid PEM certificate: write the CA's PEM file"))?;
    if certificates.is_empty() {
        return Err(format!("{field}: contains no certificate; write the PEM certificate of the CA"));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests;
