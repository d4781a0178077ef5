//! Whether a token may be written as its authority is configured now.

use itwin_api::credential::CredentialSpec;
use itwin_core::token::Content;

use super::Authorities;

impl Authorities {
    /// Whether the authority that a spec names still allows a token that was issued for it. `None` where no one knows:
    /// the authority's spec is of no use, or it is gone. One that cannot be listed is taken to be as it was.
    pub(in crate::controller) fn is_checked(&self, spec: &CredentialSpec, content: &Content) -> Option<bool> {
        let Some(rules) = &content.checked_with else { return Some(true) };
        let name = &spec.authority_ref.name;
        match self.entries().get(name) {
            Some(entry) => entry.authority.as_ref().ok().map(|authority| {
                let config = &authority.config;
                config.token_rules.allow_all_of(rules) && config.permits(name, spec).is_ok()
            }),
            None => (!self.are_complete()).then_some(true),
        }
    }

    /// Whether the authority that a spec names now allows only some namespaces, and other ones than when a token was checked:
    /// what was known of their labels when the token was requested says nothing of that.
    pub(in crate::controller) fn restricts_namespaces_since(&self, spec: &CredentialSpec, content: &Content) -> bool {
        self.get(&spec.authority_ref.name).is_some_and(|authority| {
            let rules = &authority.config.token_rules;
            let is_as_it_was = content.checked_with.as_ref().is_some_and(|before| rules.allow_namespaces_of(before));
            authority.config.restricts_namespaces() && !is_as_it_was
        })
    }

    /// Whether the token that is `kept` must not be written where the labels of its namespace could not be read: which ones
    /// are allowed was edited since, or the token was dropped, as the labels do not allow it.
    pub(in crate::controller) fn needs_labels(&self, spec: &CredentialSpec, kept: Option<&Content>) -> bool {
        kept.is_none_or(|kept| self.restricts_namespaces_since(spec, kept))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::future::BoxFuture;
    use itwin_api::{authority::ITwinAuthority, conditions::Reason};
    use itwin_core::{failure::Failure, samples};
    use itwin_oauth::transport::{Transport, TransportError};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        clock::Clock,
        metrics::Metrics,
        oauth::authority::{Authority, Connect},
    };

    /// A connection over which nothing is sent.
    struct Unused;

    impl Transport for Unused {
        fn send(&self, _: http::Request<Vec<u8>>) -> BoxFuture<'_, Result<http::Response<Vec<u8>>, TransportError>> {
            Box::pin(async { Err(TransportError::Connection("there is no server".to_owned())) })
        }
    }

    fn object(generation: i64, change: &Value) -> ITwinAuthority {
        let mut object = json!({
            "apiVersion": "credentials.itwin.dev/v1alpha1",
            "kind": "ITwinAuthority",
            "metadata": {"name": "ims", "uid": "uid", "generation": generation},
            "spec": {"issuer": "https://ims.example.com"},
        });
        object["spec"].as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        serde_json::from_value(object).expect("a valid authority")
    }

    fn authorities() -> Authorities {
        let metrics = Arc::new(Metrics::new(true).expect("metrics"));
        let connect: Connect = Arc::new(|_| Ok(Arc::new(Unused)));
        let authorities = Authorities::new(metrics, Clock::system(), connect, Arc::default(), Arc::default());
        authorities.announce("ims");
        authorities
    }

    fn ensure(authorities: &Authorities, generation: i64, change: &Value) -> Arc<Authority> {
        let ensured = authorities.ensure(&object(generation, change), &Ok(None));
        ensured.expect("it is there").0.expect("a valid spec")
    }

    fn spec() -> CredentialSpec {
        let spec =
            json!({"clientCredentialsRef": {"name": "client"}, "authorityRef": {"name": "ims"}, "scopes": ["a"]});
        serde_json::from_value(spec).expect("a valid spec")
    }

    #[test]
    fn namespaces_are_to_be_allowed_again_once_an_authority_that_allows_only_some_was_edited() {
        let (authorities, spec) = (authorities(), spec());
        let some = json!({"allowedNamespaces": {"matchLabels": {"team": "a"}}});
        let none = json!({"allowedNamespaces": {"matchLabels": {"no": "one"}}});
        let mut generation = 0;
        for (before, now, is_open) in [
            (json!({}), none.clone(), true),
            (some.clone(), none, true),
            (some.clone(), some.clone(), false),
            (some.clone(), json!({"allowedNamespaces": {"matchLabels": {"team": "a"}}, "requestsPerMinute": 7}), false),
            (some, json!({}), false),
            (json!({}), json!({"requestsPerMinute": 7}), false),
        ] {
            generation += 1;
            let checked_with = Some(ensure(&authorities, generation, &before).config.token_rules.clone());
            let content = Content { checked_with, ..samples::content() };
            assert!(!authorities.restricts_namespaces_since(&spec, &content), "{before}");
            generation += i64::from(before != now);
            ensure(&authorities, generation, &now);
            assert_eq!(authorities.restricts_namespaces_since(&spec, &content), is_open, "{before} and {now}");
            assert_eq!(authorities.is_checked(&spec, &content), Some(true), "the token itself is as good as before");
        }
    }

    #[test]
    fn kept_token_is_written_although_labels_are_not_read_unless_its_authority_was_edited_since() {
        let (authorities, spec) = (authorities(), spec());
        let some = json!({"allowedNamespaces": {"matchLabels": {"team": "a"}}});
        let checked_with = Some(ensure(&authorities, 1, &some).config.token_rules.clone());
        let kept = Content { checked_with, ..samples::content() };
        assert!(!authorities.needs_labels(&spec, Some(&kept)));
        assert!(authorities.needs_labels(&spec, None), "it was dropped, since it is not allowed");
        ensure(&authorities, 2, &json!({"allowedNamespaces": {"matchLabels": {"no": "one"}}}));
        assert!(authorities.needs_labels(&spec, Some(&kept)));
    }

    #[test]
    fn token_is_checked_until_the_authority_has_stricter_rules_for_tokens() {
        let (authorities, spec) = (authorities(), spec());
        let ensured = |generation, change: Value| ensure(&authorities, generation, &change);
        let checked_with = Some(ensured(1, json!({"allowedScopes": ["a"]})).config.token_rules.clone());
        let content = Content { checked_with, ..samples::content() };
        let is_checked = || authorities.is_checked(&spec, &content);
        assert_eq!(is_checked(), Some(true));
        ensured(
            2,
            json!({"requestsPerMinute": 7, "requestTimeout": "7s", "tokenEndpoint": "https://ims.example.com/t"}),
        );
        assert_eq!(is_checked(), Some(true), "no scope is forbidden any more, and the rest concerns no token");
        for (generation, stricter) in [
            (3, json!({"audiences": ["https://api.example.com"]})),
            (5, json!({"allowedScopes": ["b"]})),
            (7, json!({"allowedScopes": ["a"], "allowedGrantTypes": ["password"]})),
        ] {
            ensured(generation, stricter.clone());
            assert_eq!(is_checked(), Some(false), "{stricter}");
            ensured(generation + 1, json!({"allowedScopes": ["b", "a"]}));
            assert_eq!(is_checked(), Some(true), "it allows what was allowed before {stricter}");
        }
        let unread = Err(Failure::new(Reason::ConfigurationInvalid, "it cannot be read"));
        let bundle = json!({"caBundleRef": {"kind": "ConfigMap", "name": "ca", "key": "ca.crt"}});
        assert!(authorities.ensure(&object(9, &bundle), &unread).expect("it is there").0.is_err());
        assert_eq!(is_checked(), None, "whether it demands something else is not known");
        assert_eq!(authorities.is_checked(&spec, &samples::content()), Some(true), "it is in the Secret");
    }
}
