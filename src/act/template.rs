//! Further keys of the Secret, rendered from the templates of its credential.
//!
//! A tenant writes the template and we run it, with a token in hand: so there is nothing to call but a few filters, each
//! with a limit to its result; nothing by which a text could be doubled again and again (fuel counts steps, not bytes);
//! and an error never repeats a value.

use std::collections::BTreeMap;

use base64::Engine;
use k8s_openapi::ByteString;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};

use crate::{
    api::{conditions::Reason, credential::SecretTemplate, secret_keys},
    decide::facts::Refusal,
    digest,
};

/// Steps of the template machine; rendering all of the five values takes about ten.
const FUEL: u64 = 20_000;
/// Depth of nested calls and blocks.
const RECURSION: usize = 16;
/// The longest result of one template, in bytes; a Secret may have 1 MiB in all.
const RESULT_MAX: usize = 32 * 1024;

/// The digest of the templates of a credential; `None` where it has none.
#[must_use]
pub fn fingerprint(template: Option<&SecretTemplate>) -> Option<String> {
    let data = &template?.data;
    let parts = data.iter().flat_map(|(key, template)| [key.as_str(), template.as_str()]);
    (!data.is_empty()).then(|| digest::sha256_hex(parts))
}

/// Whether keys that bear this digest were rendered by these templates.
#[must_use]
pub fn is_current(digest: Option<&str>, template: Option<&SecretTemplate>) -> bool {
    digest == fingerprint(template).as_deref()
}

/// Renders the templates over the keys that every Secret has.
///
/// # Errors
/// [`Reason::TemplateInvalid`] with the key of the template that is at fault.
pub fn render(
    template: Option<&SecretTemplate>,
    data: &BTreeMap<String, ByteString>,
) -> Result<BTreeMap<String, ByteString>, Refusal> {
    let Some(template) = template.filter(|template| !template.data.is_empty()) else { return Ok(BTreeMap::new()) };
    let text = |key: &'static str| {
        let value = data.get(key).map(|value| String::from_utf8_lossy(&value.0).into_owned()).unwrap_or_default();
        (key, value)
    };
    let values: BTreeMap<&str, String> = VARIABLES.into_iter().map(text).collect();
    let environment = environment();
    let mut rendered = BTreeMap::new();
    for (key, source) in &template.data {
        within_language(source).map_err(|what| invalid(key, &what))?;
        let result = environment.render_named_str(key, source, &values).map_err(|error| refusal(key, &error))?;
        let result = result.trim_end_matches(['\n', '\r']);
        if result.len() > RESULT_MAX {
            return Err(invalid(key, &format!("its result is longer than {RESULT_MAX} bytes")));
        }
        rendered.insert(key.clone(), ByteString(result.as_bytes().to_vec()));
    }
    Ok(rendered)
}

/// Renders the templates over values of the usual size, to find out before a token is asked for whether they work.
///
/// # Errors
/// As [`render`].
pub fn check(template: Option<&SecretTemplate>) -> Result<(), Refusal> {
    let sample = |key: &str| (key.to_owned(), ByteString(b"2026-01-01T00:00:00Z".to_vec()));
    render(template, &VARIABLES.into_iter().map(sample).collect()).map(drop)
}

/// What a template can name.
const VARIABLES: [&str; 5] = [
    secret_keys::ACCESS_TOKEN,
    secret_keys::TOKEN_TYPE,
    secret_keys::EXPIRES_AT,
    secret_keys::SCOPE,
    secret_keys::ISSUER,
];

/// The statements that a template may use.
const STATEMENTS: [&str; 4] = ["if", "elif", "else", "endif"];

/// Refuses what could make a small template a large text: repetition, and statements that bind or loop. It looks at the
/// text, not at its meaning, and so refuses a little more than it must, never less.
fn within_language(source: &str) -> Result<(), String> {
    if source.contains('*') {
        return Err("it holds an asterisk, and texts are not to be repeated".to_owned());
    }
    for statement in source.split("{%").skip(1) {
        let word: String = statement
            .trim_start_matches(['-', '+'])
            .trim_start()
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        if !STATEMENTS.contains(&word.as_str()) {
            return Err(format!("of statements it may use only {}", STATEMENTS.join(", ")));
        }
    }
    Ok(())
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let base64 = |text: &str| bounded(base64::engine::general_purpose::STANDARD.encode(text));
    environment.add_filter("b64encode", base64);
    environment.add_filter("lower", |text: &str| bounded(text.to_lowercase()));
    environment.add_filter("upper", |text: &str| bounded(text.to_uppercase()));
    environment.add_filter("trim", |text: &str| text.trim().to_owned());
    environment.add_filter("tojson", |value: Value| bounded(serde_json::to_string(&value).map_err(|_| no_json())?));
    environment.add_filter("replace", replace);
    environment
}

fn bounded(text: String) -> Result<String, minijinja::Error> {
    if text.len() <= RESULT_MAX { Ok(text) } else { Err(too_long()) }
}

fn no_json() -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, "not JSON")
}

fn too_long() -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, "too long")
}

/// Replaces parts of a text. The result is bounded, since each call could multiply it.
fn replace(text: &str, from: &str, to: &str) -> Result<String, minijinja::Error> {
    let longest = text.len() + text.matches(from).count().saturating_mul(to.len());
    if longest > RESULT_MAX {
        return Err(too_long());
    }
    Ok(text.replace(from, to))
}

/// The kind of an error and its line: its text could repeat a value, and a value is a secret.
fn refusal(key: &str, error: &minijinja::Error) -> Refusal {
    let what = match error.kind() {
        ErrorKind::SyntaxError => "it is not written as a template must be",
        ErrorKind::UndefinedError => "it names something that does not exist",
        ErrorKind::UnknownFilter => "it uses a filter that does not exist",
        ErrorKind::UnknownFunction | ErrorKind::UnknownTest | ErrorKind::UnknownMethod => {
            "it calls something that does not exist"
        }
        ErrorKind::OutOfFuel => "it takes too many steps",
        _ => "it cannot be rendered",
    };
    let place = error.line().map(|line| format!(" in line {line}")).unwrap_or_default();
    invalid(key, &format!("{what}{place}"))
}

fn invalid(key: &str, what: &str) -> Refusal {
    Refusal::new(
        Reason::TemplateInvalid,
        format!(
            "spec.secretTemplate.data[{key}]: {what}; it may name access_token, token_type, expires_at, scope and issuer, and \
             use the filters b64encode, lower, replace, tojson, trim and upper. The Secret stays as it is"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> Option<SecretTemplate> {
        Some(SecretTemplate { data: [("key".to_owned(), source.to_owned())].into(), ..SecretTemplate::default() })
    }

    fn data() -> BTreeMap<String, ByteString> {
        let values =
            [("access_token", "the-token"), ("scope", "a b"), ("issuer", "https://ims"), ("token_type", "Bearer")];
        values.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec()))).collect()
    }

    fn rendered(source: &str) -> Result<String, String> {
        let rendered = render(template(source).as_ref(), &data()).map_err(|refusal| refusal.message)?;
        Ok(String::from_utf8(rendered["key"].0.clone()).expect("text"))
    }

    #[test]
    fn values_and_filters_are_rendered() {
        assert_eq!(rendered("{{ token_type }} {{ access_token }}\n"), Ok("Bearer the-token".into()));
        assert_eq!(rendered("{{ access_token | b64encode }}"), Ok("dGhlLXRva2Vu".into()));
        assert_eq!(rendered("{{ {'auth': access_token} | tojson }}"), Ok(r#"{"auth":"the-token"}"#.into()));
        assert_eq!(rendered("{{ scope | replace(' ', ',') | upper }}"), Ok("A,B".into()));
        assert_eq!(rendered("{% if scope == 'a b' %}yes{% else %}no{% endif %}"), Ok("yes".into()));
    }

    #[test]
    fn nothing_is_escaped_behind_the_users_back() {
        assert_eq!(rendered("<a href=\"{{ issuer }}\">"), Ok("<a href=\"https://ims\">".into()));
    }

    #[test]
    fn errors_name_the_key_and_repeat_no_value() {
        for source in [
            "{{ access_token",
            "{{ client_secret }}",
            "{{ access_token | exec }}",
            "{{ access_token() }}",
            "{{ access_token + 1 }}",
            "{{ access_token.nothing.more }}",
            "{% include 'file' %}",
        ] {
            let message = rendered(source).expect_err(source);
            assert!(message.starts_with("spec.secretTemplate.data[key]: "), "{message}");
            assert!(!message.contains("the-token"), "{message}");
            assert!(check(template(source).as_ref()).is_err(), "found before a token is asked for: {source}");
        }
    }

    #[test]
    fn hostile_templates_are_bounded_in_time_and_size() {
        for source in [
            "{{ 'x' * 100000000 }}".to_owned(),
            "{{ '}}' * 100000000 }}".to_owned(),
            "{% set x = 'xx' %}".to_owned() + &"{% set x = x ~ x %}".repeat(40),
            "{%- for x in [scope ~ scope] %}{{ x }}{% endfor %}".to_owned(),
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".to_owned(),
            format!("{{{{ scope{} }}}}", " | b64encode".repeat(1000)),
            format!("{{{{ scope{} }}}}", " | tojson".repeat(1000)),
            format!("{{{{ scope{} }}}}", " | replace(' ', '          ')".repeat(400)),
            format!("{{{{ {}scope{} }}}}", "(".repeat(5000), ")".repeat(5000)),
            "{{ '%999999999s' % scope }}".to_owned(),
            "{{ access_token }}".repeat(4000),
        ] {
            let started = std::time::Instant::now();
            assert!(rendered(&source).is_err(), "{}", &source[..20]);
            assert!(started.elapsed().as_secs() < 2, "{}", &source[..20]);
        }
    }

    #[test]
    fn digest_moves_with_keys_and_templates_and_is_absent_without() {
        assert_eq!(fingerprint(None), None);
        assert_eq!(fingerprint(Some(&SecretTemplate::default())), None);
        assert_ne!(fingerprint(template("a").as_ref()), fingerprint(template("b").as_ref()));
    }
}
