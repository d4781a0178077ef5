//! What an authority demands of tokens, so that one that was checked before an edit need not be checked again.

use std::time::Duration;

use itwin_api::authority::{AccessTokenFormat, AuthoritySpec, ScopeCheck};
use serde_json::json;

/// What an authority demands of a token that it issued. What may be requested is not in it: that is compared with the
/// request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRules {
    issuer: String,
    format: AccessTokenFormat,
    jwks_uri: Option<String>,
    audiences: Vec<String>,
    scope_check: ScopeCheck,
    allowed_scopes: Option<Vec<String>>,
    /// Which namespaces may use it, as JSON. It is no rule about a token; but what is known of the labels of a namespace was
    /// compared with this.
    allowed_namespaces: Option<String>,
    default_lifetime: Option<Duration>,
}

impl TokenRules {
    /// The rules of an authority.
    #[must_use]
    pub fn new(spec: &AuthoritySpec) -> Self {
        // every field is named, so that one that is added is either compared or known to be no rule
        let AuthoritySpec {
            issuer,
            access_token_format,
            jwks_uri,
            audiences,
            scope_check,
            allowed_scopes,
            allowed_namespaces,
            default_token_lifetime,
            // rules about what is requested, and by whom
            allowed_grant_types: _,
            allowed_audiences: _,
            // of a token that was valid already no clock says that it is not yet
            clock_skew: _,
            // how it was requested
            token_endpoint: _,
            client_authentication: _,
            client_assertion: _,
            ca_bundle: _,
            ca_bundle_ref: _,
            request_timeout: _,
            connect_timeout: _,
            max_concurrent_requests: _,
            requests_per_minute: _,
        } = spec;
        Self {
            issuer: issuer.trim_end_matches('/').to_owned(),
            format: *access_token_format,
            jwks_uri: jwks_uri.clone(),
            audiences: audiences.clone(),
            scope_check: *scope_check,
            allowed_scopes: allowed_scopes.clone(),
            allowed_namespaces: allowed_namespaces.as_ref().map(|selector| json!(selector).to_string()),
            default_lifetime: default_token_lifetime.map(Duration::from),
        }
    }

    /// Whether these rules allow each token that earlier ones allowed.
    #[must_use]
    pub fn allow_all_of(&self, earlier: &Self) -> bool {
        let is_opaque = self.format == AccessTokenFormat::Opaque;
        self.issuer == earlier.issuer
            && (is_opaque || self.verify_all_of(earlier))
            && (self.scope_check == ScopeCheck::Lenient || earlier.scope_check == ScopeCheck::Strict)
            && self.allow_scopes_of(earlier)
            && self.lifetimes_last(earlier)
    }

    /// Whether these rules allow the same namespaces as earlier ones.
    #[must_use]
    pub fn allow_namespaces_of(&self, earlier: &Self) -> bool {
        self.allowed_namespaces == earlier.allowed_namespaces
    }

    /// Whether each JWT that was verified would be again.
    fn verify_all_of(&self, earlier: &Self) -> bool {
        let are_audiences = || !earlier.audiences.is_empty() && is_subset(&earlier.audiences, &self.audiences);
        earlier.format == AccessTokenFormat::Jwt
            && self.jwks_uri == earlier.jwks_uri
            && (self.audiences.is_empty() || are_audiences())
    }

    fn allow_scopes_of(&self, earlier: &Self) -> bool {
        let Some(allowed) = &self.allowed_scopes else { return true };
        earlier.allowed_scopes.as_ref().is_some_and(|earlier| is_subset(earlier, allowed))
    }

    /// Whether no opaque token was taken to live for longer than it would be now. A JWT says itself when it expires.
    fn lifetimes_last(&self, earlier: &Self) -> bool {
        let assumed = earlier.default_lifetime.filter(|_| earlier.format == AccessTokenFormat::Opaque);
        assumed.is_none_or(|assumed| self.default_lifetime.is_some_and(|now| now >= assumed))
    }
}

fn is_subset(some: &[String], all: &[String]) -> bool {
    some.iter().all(|one| all.contains(one))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn rules(change: &Value) -> TokenRules {
        let mut spec = json!({"issuer": "https://ims.example.com"});
        spec.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        TokenRules::new(&serde_json::from_value(spec).expect("a valid spec"))
    }

    /// Whether a token is still allowed after the first spec became the second one, and the other way round.
    fn both_ways(strict: &Value, loose: &Value) -> (bool, bool) {
        let (strict, loose) = (rules(strict), rules(loose));
        (loose.allow_all_of(&strict), strict.allow_all_of(&loose))
    }

    #[test]
    fn rules_that_were_loosened_allow_what_was_checked_and_those_that_were_tightened_do_not() {
        let opaque = |lifetime: &str| json!({"accessTokenFormat": "opaque", "defaultTokenLifetime": lifetime});
        for (strict, loose) in [
            (json!({"allowedScopes": ["a"]}), json!({"allowedScopes": ["b", "a"]})),
            (json!({"allowedScopes": ["a"]}), json!({})),
            (json!({"audiences": ["https://a"]}), json!({"audiences": ["https://b", "https://a"]})),
            (json!({"audiences": ["https://a"]}), json!({})),
            (json!({"scopeCheck": "Strict"}), json!({"scopeCheck": "Lenient"})),
            (json!({"audiences": ["https://a"]}), json!({"accessTokenFormat": "opaque"})),
            (opaque("1h"), opaque("2h")),
        ] {
            assert_eq!(both_ways(&strict, &loose), (true, false), "{strict} and {loose}");
        }
    }

    #[test]
    fn rules_that_say_the_same_in_other_words_allow_the_same() {
        for (one, other) in [
            (json!({"allowedScopes": ["a", "b"]}), json!({"allowedScopes": ["b", "a"]})),
            (json!({"audiences": ["https://a", "https://b"]}), json!({"audiences": ["https://b", "https://a"]})),
            (json!({}), json!({"issuer": "https://ims.example.com/"})),
            (json!({}), json!({"defaultTokenLifetime": "1h"})),
            (json!({}), json!({"allowedNamespaces": {}, "allowedGrantTypes": ["password"], "clockSkew": "1s"})),
            (json!({}), json!({"allowedAudiences": ["https://a"]})),
            (json!({}), json!({"requestsPerMinute": 7, "maxConcurrentRequests": 7, "requestTimeout": "7s"})),
            (json!({}), json!({"tokenEndpoint": "https://ims.example.com/token", "connectTimeout": "7s"})),
        ] {
            assert_eq!(both_ways(&one, &other), (true, true), "{one} and {other}");
        }
    }

    #[test]
    fn rules_of_which_neither_is_looser_allow_nothing_of_each_other() {
        for (one, other) in [
            (json!({}), json!({"issuer": "https://other.example.com"})),
            (json!({}), json!({"jwksUri": "https://ims.example.com/keys"})),
            (json!({"allowedScopes": ["a", "b"]}), json!({"allowedScopes": ["b", "c"]})),
            (json!({"audiences": ["https://a"]}), json!({"audiences": ["https://b"]})),
            (json!({"allowedScopes": ["a"]}), json!({"audiences": ["https://a"]})),
        ] {
            assert_eq!(both_ways(&one, &other), (false, false), "{one} and {other}");
        }
    }
}
