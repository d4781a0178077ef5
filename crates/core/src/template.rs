//! Additional keys of the Secret, rendered from the templates of its credential.
//!
//! Only the source of a template determines whether it is valid, and it is validated before a token is requested. No
//! value affects it, so that no condition depends on a token.

mod filter;
mod grammar;

use std::collections::BTreeMap;

use itwin_api::{
    conditions::Reason,
    credential::SecretTemplate,
    digest,
    limits::{RENDERED_MAX, TEMPLATE_MAX, TEMPLATES_MAX, TEMPLATES_TOTAL_MAX},
};
use k8s_openapi::ByteString;

use self::grammar::{Template, Values};
use crate::failure::Failure;

/// The digest of the templates of a credential; `None` if it has none.
#[must_use]
pub fn fingerprint(template: Option<&SecretTemplate>) -> Option<String> {
    let data = &template?.data;
    let parts = data.iter().flat_map(|(key, template)| [key.as_str(), template.as_str()]);
    (!data.is_empty()).then(|| digest::sha256_hex(parts))
}

/// Whether keys with this digest were rendered from these templates.
#[must_use]
pub fn is_current(digest: Option<&str>, template: Option<&SecretTemplate>) -> bool {
    digest == fingerprint(template).as_deref()
}

/// The validated templates of a credential.
#[derive(Debug, Default)]
pub struct Templates<'a>(Vec<(&'a str, Template<'a>)>);

impl<'a> Templates<'a> {
    /// Validates the templates of a credential.
    ///
    /// # Errors
    /// [`Reason::TemplateInvalid`], with the key of the template if only one is invalid.
    pub fn new(template: Option<&'a SecretTemplate>) -> Result<Self, Failure> {
        let Some(SecretTemplate { data, .. }) = template else { return Ok(Self::default()) };
        let total: usize = data.iter().map(|(key, source)| key.len() + source.len()).sum();
        if data.len() > TEMPLATES_MAX || total > TEMPLATES_TOTAL_MAX {
            return Err(invalid(&format!(
                ": at most {TEMPLATES_MAX} templates with {TEMPLATES_TOTAL_MAX} bytes in total are allowed: use fewer or \
                 shorter ones"
            )));
        }
        let mut templates = Vec::with_capacity(data.len());
        for (key, source) in data {
            if source.len() > TEMPLATE_MAX {
                return Err(invalid(&format!("[{key}]: it has more than {TEMPLATE_MAX} bytes: shorten it")));
            }
            let template = Template::parse(source)
                .map_err(|fault| invalid(&format!("[{key}]: line {}: {}: {USAGE}", fault.line, fault.what)))?;
            templates.push((key.as_str(), template));
        }
        let longest = templates.iter().map(|(_, template)| template.longest()).fold(0, usize::saturating_add);
        if longest > RENDERED_MAX {
            return Err(invalid(&format!(
                ": with the longest accepted token, the results would have {longest} bytes in total, more than \
                 {RENDERED_MAX}: use fewer placeholders or filters"
            )));
        }
        Ok(Self(templates))
    }

    /// Renders the templates with the values of the standard keys.
    #[must_use]
    pub fn render(&self, data: &BTreeMap<String, ByteString>) -> BTreeMap<String, ByteString> {
        let values = Values::new(|key| data.get(key).map(|value| value.0.as_slice()));
        let rendered =
            self.0.iter().map(|(key, template)| ((*key).to_owned(), ByteString(template.render(&values).into_bytes())));
        rendered.collect()
    }
}

/// Validates the templates of a credential before a token is requested.
///
/// # Errors
/// As [`Templates::new`].
pub fn check(template: Option<&SecretTemplate>) -> Result<(), Failure> {
    Templates::new(template).map(drop)
}

/// How to write a template, for messages.
const USAGE: &str = "write text and {{ name | filter }} with the names access_token, token_type, expires_at, scope and \
                     issuer, and the filters b64encode, lower, upper, trim, tojson and urlencode";

fn invalid(what: &str) -> Failure {
    let message = format!("spec.secretTemplate.data{what}. The Secret stays as it is");
    Failure::new(Reason::TemplateInvalid, message)
}

#[cfg(test)]
mod tests {
    use itwin_api::{limits, secret_keys};

    use super::*;

    fn templates<'a>(sources: impl IntoIterator<Item = (&'a str, String)>) -> Option<SecretTemplate> {
        let data = sources.into_iter().map(|(key, source)| (key.to_owned(), source)).collect();
        Some(SecretTemplate { data, ..SecretTemplate::default() })
    }

    fn template(source: &str) -> Option<SecretTemplate> {
        templates([("key", source.to_owned())])
    }

    fn data(token: &str) -> BTreeMap<String, ByteString> {
        let values = [("access_token", token), ("scope", "a b"), ("issuer", "https://ims"), ("token_type", "Bearer")];
        values.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec()))).collect()
    }

    fn rejected(template: Option<&SecretTemplate>) -> String {
        let failure = Templates::new(template).expect_err("rejected");
        assert_eq!(failure.reason, Reason::TemplateInvalid);
        failure.message
    }

    #[test]
    fn values_are_rendered_into_the_keys_of_the_templates() {
        let template = templates([("a", "{{ token_type }} {{ access_token }}\n".into()), ("b", "{{ scope }}".into())]);
        let rendered = Templates::new(template.as_ref()).expect("templates").render(&data("the-token"));
        let text = |key: &str| String::from_utf8(rendered[key].0.clone()).expect("text");
        assert_eq!((text("a"), text("b")), ("Bearer the-token".to_owned(), "a b".to_owned()));
        assert_eq!(rendered.len(), 2);
    }

    #[test]
    fn message_names_the_key_and_the_line_and_says_what_to_write() {
        let message = rejected(template("a\n{{ client_secret }}").as_ref());
        assert!(message.starts_with("spec.secretTemplate.data[key]: line 2: the name in '{{ }}' does not exist"));
        for word in ["access_token", "token_type", "expires_at", "scope", "issuer", "urlencode", "stays as it is"] {
            assert!(message.contains(word), "{message}");
        }
    }

    /// With an earlier template engine, some of these aborted the process, and others could test the token character by
    /// character.
    #[test]
    fn templates_that_once_aborted_the_process_or_tested_the_token_are_rejected_by_their_source() {
        let dashes = |count| format!("{{{{ {}1 }}}}", "-".repeat(count));
        let concatenated = |count| format!("{{{{ {}a }}}}", "a~".repeat(count));
        for source in [
            dashes(4000),
            dashes(16_000),
            concatenated(2000),
            concatenated(8000),
            "{{ ".repeat(1300),
            format!("{{{{ {}scope{} }}}}", "(".repeat(2000), ")".repeat(2000)),
            "{% if access_token[0:1] == 'e' %}{{ nope }}{% endif %}".to_owned(),
            format!("{{{{ access_token{} }}}}", " | replace('e', 'eeeeeeeeee')".repeat(100)),
            format!("{{{{ scope{} }}}}", " | tojson".repeat(400)),
        ] {
            let message = rejected(template(&source).as_ref());
            assert!(message.len() < 500, "{message}");
        }
    }

    #[test]
    fn number_and_size_of_templates_are_bounded() {
        let keys: Vec<String> = (0..=TEMPLATES_MAX).map(|number| format!("key-{number}")).collect();
        let of = |count: usize, size: usize| templates(keys.iter().take(count).map(|key| (&**key, "x".repeat(size))));
        assert!(check(of(TEMPLATES_MAX, 1000).as_ref()).is_ok());
        assert!(rejected(of(TEMPLATES_MAX + 1, 1).as_ref()).contains("at most 16 templates"));
        assert!(check(of(1, TEMPLATE_MAX).as_ref()).is_ok());
        assert!(rejected(of(1, TEMPLATE_MAX + 1).as_ref()).contains("data[key-0]: it has more than 4096 bytes"));
        assert!(rejected(of(4, TEMPLATE_MAX).as_ref()).contains("16384 bytes in total"), "keys count too");
    }

    #[test]
    fn total_size_of_the_results_is_bounded_before_rendering() {
        let times = |count: usize, source: &str| template(&source.repeat(count));
        let most = RENDERED_MAX / limits::ACCESS_TOKEN_MAX;
        assert!(check(times(most, "{{ access_token }}").as_ref()).is_ok());
        assert!(rejected(times(most + 1, "{{ access_token }}").as_ref()).contains("longest accepted token"));
        assert!(check(times(1, "{{ access_token | tojson | b64encode }}").as_ref()).is_ok());
        rejected(times(1, "{{ access_token | urlencode | urlencode | urlencode | urlencode }}").as_ref());
        let halves = ["a", "b"].map(|key| (key, "{{ access_token }}".repeat(most / 2 + 1)));
        rejected(templates(halves).as_ref());
    }

    #[test]
    fn longest_values_are_rendered_within_the_bound() {
        let template = template(&"{{ access_token | tojson }}{{ scope | urlencode }}{{ issuer }}".repeat(8));
        let templates = Templates::new(template.as_ref()).expect("templates");
        let longest = |key: &str, size: usize| (key.to_owned(), ByteString(vec![b'"'; size]));
        let data = [
            longest(secret_keys::ACCESS_TOKEN, limits::ACCESS_TOKEN_MAX),
            longest(secret_keys::SCOPE, limits::SCOPE_MAX),
            longest(secret_keys::ISSUER, limits::URL_MAX),
        ];
        let rendered = templates.render(&data.into());
        assert!(rendered["key"].0.len() > RENDERED_MAX / 2 && rendered["key"].0.len() <= RENDERED_MAX);
    }

    #[test]
    fn digest_changes_with_templates_and_is_absent_without_templates() {
        assert_eq!(fingerprint(None), None);
        assert_eq!(fingerprint(Some(&SecretTemplate::default())), None);
        assert_ne!(fingerprint(template("a").as_ref()), fingerprint(template("b").as_ref()));
    }
}
