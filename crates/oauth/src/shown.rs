//! Text of an authorization server that messages and statuses repeat: an issuer, audiences and scopes, which are no
//! secrets.
//!
//! A server may still answer anything, such as a client secret that it was sent, and users who may create credentials
//! choose a part of what some servers answer. A text is therefore compared with no secret: if one were left out because
//! it repeats a secret, they could try out what the secret is. It is shown if the request or an administrator names it,
//! or if it consists of usual words.

use std::{collections::HashSet, fmt};

/// The longest text, in characters.
const LENGTH_MAX: usize = 200;
/// What stands in the place of a text that may be a secret.
pub const REDACTED: &str = "[redacted]";
/// Words of issuers, audiences and scopes that are in use.
const USUAL: &str = "
    0 1 2 443 8080 8443 access account adfs all api apis app apps as audience auth authorization bentley changed
    changedelements clash cluster com common connect create data default delete dev elements email example export
    forms http https id identity imodel imodels ims imsoidc insights internal io issues itwin itwins keycloak library
    local login manage mesh microsoft microsoftonline modify net oauth oauth2 offline oidc openid org phone platform
    profile project projects qa read readonly reality realitydata realms resource resources roles savedviews scope
    scopes server service services storage sts svc synchronization token trust urn user users v1 v2 v3 validation view
    webhooks windows write www
";

/// Texts of an authorization server, fit for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    /// Shows texts, separated by commas, with [`REDACTED`] in place of each that is not `known`.
    #[must_use]
    pub fn listed(texts: &[&str], known: impl Fn(&str) -> bool) -> Self {
        let texts: Vec<&str> = texts.iter().map(|text| if known(text) { *text } else { REDACTED }).collect();
        let text = texts.join(", ");
        let printable = |c: char| if c.is_ascii_graphic() && c != '"' || c == ' ' { c } else { '?' };
        let mut shown: String = text.chars().take(LENGTH_MAX).map(printable).collect();
        if text.chars().nth(LENGTH_MAX).is_some() {
            shown.push('…');
        }
        Self(shown)
    }

    /// Whether it is an https URL, or may be one, since it is not shown.
    #[must_use]
    pub fn may_be_https(&self) -> bool {
        self.0.starts_with(REDACTED) || self.0.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"))
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{}\"", self.0)
    }
}

/// The words of which a text may consist that is shown.
pub struct UsualWords(HashSet<String>);

impl UsualWords {
    /// Words that are in use everywhere, and those of texts that an administrator wrote: no others, since users could add
    /// what they take for a part of a secret.
    #[must_use]
    pub fn with<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let own = texts.into_iter().flat_map(words).filter(|word| !word.is_empty()).map(str::to_ascii_lowercase);
        Self(USUAL.split_ascii_whitespace().map(str::to_owned).chain(own).collect())
    }

    /// Whether a text consists of them.
    #[must_use]
    pub fn make_up(&self, text: &str) -> bool {
        text.len() <= LENGTH_MAX && words(text).all(|word| self.0.contains(&word.to_ascii_lowercase()))
    }
}

/// The words of a text, in which one sign is between two of them. Where several are, one of the words is empty.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let text = text.strip_suffix('/').unwrap_or(text);
    text.split("://").flat_map(|part| part.split(['-', '_', '.', ':', '/']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_bounded_and_printable() {
        let all = |text: &str| Shown::listed(&[text], |_| true).to_string();
        assert_eq!(all("https://ims.example.com:8443/a"), "\"https://ims.example.com:8443/a\"");
        assert_eq!(all("a\u{1b}[31m\n\"\u{202e}"), "\"a?[31m???\"");
        assert_eq!(all(""), "\"\"");
        assert_eq!(all(&"é".repeat(100_000)), format!("\"{}…\"", "?".repeat(200)));
    }

    #[test]
    fn each_text_of_a_list_is_shown_or_not() {
        let listed = |texts: &[&str]| Shown::listed(texts, |text| text == "a").to_string();
        assert_eq!(listed(&["a", "correct horse", "pin"]), "\"a, [redacted], [redacted]\"");
        assert_eq!(listed(&[]), "\"\"");
    }

    #[test]
    fn https_url_is_known_by_its_scheme() {
        for (text, expected) in [("HTTPS://a", true), ("http://a", false), ("urn:a", false), ("", false)] {
            assert_eq!(Shown::listed(&[text], |_| true).may_be_https(), expected, "{text}");
        }
        assert!(Shown::listed(&["http://secret"], |_| false).may_be_https(), "it is not shown");
    }

    #[test]
    fn text_of_usual_words_and_of_an_administrators_words_is_shown_and_no_other() {
        let usual = UsualWords::with(["https://login.acme.test/0f8fad5b-d9cb-469f/", "urn:acme"]);
        for (text, expected) in [
            ("itwin-platform", true),
            ("imodels:read", true),
            ("https://api.bentley.com/", true),
            ("https://sts.windows.net/0f8fad5b-d9cb-469f/", true),
            ("http://LOGIN.acme.test:8443/v2.0", true),
            ("offline_access", true),
            ("https://other.test", false),
            ("hunter2", false),
            ("pin", false),
            ("correct horse", false),
            ("read write", false),
            ("read--write", false),
            ("read://", false),
            ("read\n", false),
            ("", false),
            ("/", false),
        ] {
            assert_eq!(usual.make_up(text), expected, "{text:?}");
        }
        assert!(usual.make_up(&["read"; 40].join("-")) && !usual.make_up(&["read"; 41].join("-")), "it is bounded");
    }

    #[test]
    fn sign_of_an_administrators_text_adds_no_empty_word() {
        assert!(!UsualWords::with(["urn::acme//"]).make_up("read--write"));
    }
}
