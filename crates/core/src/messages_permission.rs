//! Sentences about what an authority does not allow: they say what it allows, for users who may not read cluster-scoped
//! objects.

use itwin_api::conditions::Reason;

use crate::failure::Failure;

/// The length of a list of what is allowed, in characters: it is an administrator's, and may hold hundreds of scopes.
const LIST_MAX: usize = 300;

/// The authority does not allow the grant type.
#[must_use]
pub fn grant_type_not_allowed(authority: &str, grant_type: &str, allowed: &[&str]) -> Failure {
    let message = format!(
        "ITwinAuthority {authority} does not allow grantType {grant_type}, but {}: set spec.grantType to one of these, or \
         ask its administrator to add it to spec.allowedGrantTypes",
        listed(allowed)
    );
    Failure::new(Reason::GrantTypeNotAllowed, message)
}

/// The authority does not allow these scopes.
#[must_use]
pub fn scope_not_allowed(authority: &str, forbidden: &[&str], allowed: &[&str]) -> Failure {
    let allowed = if allowed.is_empty() { "none".to_owned() } else { listed(allowed) };
    let message = format!(
        "ITwinAuthority {authority} does not allow scope {}; allowed are: {allowed}; remove it from spec.scopes, or ask \
         its administrator to add it to spec.allowedScopes",
        listed(forbidden)
    );
    Failure::new(Reason::ScopeNotAllowed, message)
}

/// The authority does not allow this value of `field`.
#[must_use]
pub fn audience_not_allowed(authority: &str, field: &str, value: &str, allowed: &[&str]) -> Failure {
    let allowed = if allowed.is_empty() { "none".to_owned() } else { listed(allowed) };
    let message = format!(
        "ITwinAuthority {authority} does not allow {}; allowed are: {allowed}; change spec.{field}, or ask its \
         administrator to add it to spec.allowedAudiences",
        cut(value)
    );
    Failure::new(Reason::AudienceNotAllowed, message)
}

/// The authority does not allow the namespace; `selector` is the label selector of those that it allows.
#[must_use]
pub fn namespace_not_allowed(authority: &str, namespace: &str, selector: &str) -> Failure {
    let message = format!(
        "ITwinAuthority {authority} does not allow namespace {namespace}, but those with the labels {}: ask an \
         administrator to label the namespace accordingly, or to change spec.allowedNamespaces of the ITwinAuthority",
        cut(selector)
    );
    Failure::new(Reason::NamespaceNotAllowed, message)
}

/// As many of these as fit, separated by spaces, and the number of the others.
pub(crate) fn listed(items: &[&str]) -> String {
    let mut length = 0;
    let fits = |item: &&&str| {
        length += item.chars().count() + 1;
        length <= LIST_MAX
    };
    let shown: Vec<&str> = items.iter().take_while(fits).copied().collect();
    let first = match (shown.first(), items.first()) {
        // one that is longer than the list may be
        (None, Some(first)) => cut(first),
        _ => shown.join(" "),
    };
    match items.len() - shown.len().max(1).min(items.len()) {
        0 => first,
        left => format!("{first} and {left} others"),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LIST_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_is_in_the_message() {
        let scope = scope_not_allowed("ims", &["x"], &["a", "b"]);
        assert!(scope.message.contains("does not allow scope x; allowed are: a b; remove"), "{}", scope.message);
        assert!(scope_not_allowed("ims", &["x"], &[]).message.contains("allowed are: none"));
        let audience = audience_not_allowed("ims", "resources", "https://x", &["https://a"]);
        let expected = "does not allow https://x; allowed are: https://a; change spec.resources";
        assert!(audience.message.contains(expected), "{}", audience.message);
        let grant = grant_type_not_allowed("ims", "password", &["client_credentials"]);
        assert!(grant.message.contains("grantType password, but client_credentials: set"), "{}", grant.message);
        let namespace = namespace_not_allowed("ims", "team", "itwin=yes,tier in (a,b)");
        assert!(namespace.message.contains("those with the labels itwin=yes,tier in (a,b): ask"));
    }

    #[test]
    fn what_is_allowed_is_cut() {
        let scopes: Vec<String> = (0..256).map(|number| format!("scope-{number:0>250}")).collect();
        let many: Vec<&str> = scopes.iter().map(String::as_str).collect();
        let short: Vec<&str> = (0..256).map(|_| "ab").collect();
        let long = "x".repeat(10_000);
        for (failure, text) in [
            (scope_not_allowed("ims", &many, &many), " and 255 others"),
            (scope_not_allowed("ims", &["a"], &short), "ab ab and 156 others"),
            (scope_not_allowed("ims", &["a"], &[&long]), "x…; remove"),
            (namespace_not_allowed("ims", "team", &long), "x…"),
        ] {
            assert!(failure.message.contains(text) && failure.message.len() < 1024, "{}", failure.message);
        }
    }
}
