//! What the specs of authorities allow, and the messages about invalid ones.

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
    let failure =
        config.permits("ims", &credential()).and_then(|()| config.permits_namespace("ims", "team-a", &labels)).err();
    failure.map(|failure| failure.reason)
}

#[test]
fn trailing_slash_of_the_issuer_is_ignored() {
    let config = AuthorityConfig::new(&spec(serde_json::json!({}))).expect("valid");
    assert_eq!(config.issuer, "https://ims.example.com");
    assert_eq!(config.written_issuer, "https://ims.example.com/");
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
fn credential_that_requests_no_scope_is_allowed_where_scopes_are_limited() {
    // what the token carries is checked once it was issued
    for allowed in [serde_json::json!(["a"]), serde_json::json!([]), serde_json::Value::Null] {
        let config = AuthorityConfig::new(&spec(serde_json::json!({"allowedScopes": allowed}))).expect("valid");
        let credential = CredentialSpec { scopes: Vec::new(), ..credential() };
        assert_eq!(config.permits("ims", &credential), Ok(()), "{:?}", config.allowed_scopes);
    }
}

#[test]
fn audience_and_resources_that_are_not_allowed_are_rejected() {
    let rejected = |allowed: &[&str], audience: Option<&str>, resources: &[&str]| {
        let config = AuthorityConfig::new(&spec(serde_json::json!({"allowedAudiences": allowed}))).expect("valid");
        let mut credential = credential();
        credential.audience = audience.map(str::to_owned);
        credential.resources = resources.iter().map(|resource| (*resource).to_owned()).collect();
        config.permits("ims", &credential).err().map(|failure| (failure.reason, failure.message))
    };
    assert_eq!(rejected(&["https://a", "https://b"], Some("https://a"), &["https://b"]), None);
    assert_eq!(rejected(&["https://a", "https://b"], Some("https://a https://b"), &[]), None);
    assert_eq!(rejected(&["https://a https://b"], Some("https://a https://b"), &[]), None);
    assert_eq!(rejected(&[], None, &[]), None);
    for (audience, resources, field) in [
        (Some("https://c"), &[][..], "spec.audience"),
        (Some("https://a https://c"), &[], "spec.audience"),
        (Some("https://a "), &[], "spec.audience"),
        (None, &["https://a", "https://c"], "spec.resources"),
        (None, &["https://a/"], "spec.resources"),
    ] {
        let (reason, message) = rejected(&["https://a"], audience, resources).expect("rejected");
        assert_eq!(reason, Reason::AudienceNotAllowed);
        assert!(message.contains(field) && message.contains("spec.allowedAudiences"), "{message}");
    }
    let long = "x".repeat(2000);
    assert!(rejected(&[], Some(&long), &[]).is_some_and(|(_, message)| message.len() < 500));
}

#[test]
fn assertion_follows_the_spec() {
    let rules = |assertion: serde_json::Value| {
        let spec = serde_json::json!({
            "clientAuthentication": "private_key_jwt", "clientAssertion": assertion, "clockSkew": "30s",
        });
        AuthorityConfig::new(&self::spec(spec)).expect("valid").assertion
    };
    let clock_skew = TimeDelta::seconds(30);
    assert_eq!(rules(serde_json::json!({})), AssertionRules { clock_skew, ..AssertionRules::default() });
    let text = rules(serde_json::json!({"audience": "https://x", "algorithm": "PS256"}));
    assert_eq!(text.audience, AssertionAudience::Text("https://x".to_owned()));
    assert_eq!(text.algorithm, Some(SigningAlgorithm::Ps256));
    let endpoint = rules(serde_json::json!({"audience": "tokenEndpoint"}));
    assert_eq!(endpoint.audience, AssertionAudience::TokenEndpoint);
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
fn certificates_of_a_reference_are_trusted_alone() {
    const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    let config = AuthorityConfig::new(&spec(serde_json::json!({}))).expect("valid");
    let trusted = roots("caBundleRef", CERTIFICATE).expect("a certificate");
    assert_eq!(config.trusting(trusted).roots.map(|roots| roots.len()), Some(1));
    for pem in [&b""[..], b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
        assert!(roots("caBundleRef", pem).is_err_and(|error| error.starts_with("caBundleRef: ")));
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
