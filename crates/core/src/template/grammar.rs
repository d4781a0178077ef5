//! The grammar of a template: text and `{{ name | filter | filter }}`, nothing else.
//!
//! A tenant writes a template, and the operator renders it with a token. So the grammar has no expressions, conditions
//! or loops. The source alone determines whether a template is valid and how long its result can be. Parsing takes one
//! pass without recursion, and rendering cannot fail.

use std::borrow::Cow;

use itwin_api::{limits, secret_keys};

use super::filter::{Filter, Length};

/// Filters of one placeholder: more are of no use, and each can make the result longer.
const FILTERS_MAX: usize = 4;

/// Why and where a template is invalid.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// A valid template.
#[derive(Debug)]
pub struct Template<'a>(Vec<Part<'a>>);

#[derive(Debug)]
enum Part<'a> {
    Text(&'a str),
    Placeholder { name: Name, filters: Vec<Filter> },
}

#[derive(Clone, Copy, Debug)]
enum Name {
    AccessToken,
    TokenType,
    ExpiresAt,
    Scope,
    Issuer,
}

/// The values of placeholders, each truncated to its maximum length.
pub struct Values<'a>([Cow<'a, str>; 5]);

impl<'a> Template<'a> {
    /// Parses a template. A single brace and `}}` are text.
    ///
    /// # Errors
    /// The first [`Fault`].
    pub fn parse(source: &'a str) -> Result<Self, Fault> {
        // the line is counted only for a fault, so that parsing takes one pass
        let fault = |from: &str, what| Fault { line: line_of(source, from), what };
        let mut parts = Vec::new();
        let mut rest = source;
        loop {
            let (text, opened) = rest.split_at(rest.find("{{").unwrap_or(rest.len()));
            if let Some(at) = ["{%", "{#"].into_iter().filter_map(|other| text.find(other)).min() {
                return Err(fault(&rest[at..], "'{%' and '{#' are not part of a template"));
            }
            parts.push(Part::Text(text));
            let Some(inside) = opened.strip_prefix("{{") else { return Ok(Self(parts)) };
            let (inside, after) = inside.split_once("}}").ok_or_else(|| fault(opened, "'{{' is not closed by '}}'"))?;
            parts.push(placeholder(inside).map_err(|what| fault(opened, what))?);
            rest = after;
        }
    }

    /// The maximum length of the result, in bytes.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.0.iter().map(Part::longest).fold(0, usize::saturating_add)
    }

    /// Renders the template. Trailing newlines are removed: no value of the Secret ends in one.
    #[must_use]
    pub fn render(&self, values: &Values<'_>) -> String {
        let mut result = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => result.push_str(text),
                Part::Placeholder { name, filters } => {
                    let value = Cow::Borrowed(&*values.0[*name as usize]);
                    result.push_str(&filters.iter().fold(value, |text, filter| filter.apply(text)));
                }
            }
        }
        result.truncate(result.trim_end_matches(['\n', '\r']).len());
        result
    }
}

/// The line of `source` in which its suffix `rest` begins.
fn line_of(source: &str, rest: &str) -> usize {
    let before = source.len().saturating_sub(rest.len());
    1 + source.as_bytes()[..before].iter().filter(|byte| **byte == b'\n').count()
}

const UNKNOWN_NAME: &str =
    "the name in '{{ }}' does not exist; there are access_token, token_type, expires_at, scope and issuer";
const UNKNOWN_FILTER: &str =
    "a filter in '{{ }}' does not exist; there are b64encode, lower, upper, trim, tojson and urlencode";

fn placeholder(inside: &str) -> Result<Part<'static>, &'static str> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '|';
    if !inside.chars().all(|c| is_plain(c) || c.is_ascii_whitespace()) {
        return Err("only a name and filters are allowed between '{{' and '}}'");
    }
    let mut words = inside.split('|').map(str::trim_ascii);
    let name = words.next().and_then(Name::parse).ok_or(UNKNOWN_NAME)?;
    let mut filters = Vec::new();
    for word in words {
        if filters.len() == FILTERS_MAX {
            return Err("'{{ }}' has more than 4 filters");
        }
        filters.push(Filter::parse(word).ok_or(UNKNOWN_FILTER)?);
    }
    Ok(Part::Placeholder { name, filters })
}

impl Part<'_> {
    fn longest(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Placeholder { name, filters } => {
                filters.iter().fold(name.longest(), |length, filter| filter.longest(length)).bytes
            }
        }
    }
}

impl Name {
    const ALL: [Self; 5] = [Self::AccessToken, Self::TokenType, Self::ExpiresAt, Self::Scope, Self::Issuer];

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.key() == word)
    }

    /// The name, which is also the key of its value in the Secret.
    const fn key(self) -> &'static str {
        match self {
            Self::AccessToken => secret_keys::ACCESS_TOKEN,
            Self::TokenType => secret_keys::TOKEN_TYPE,
            Self::ExpiresAt => secret_keys::EXPIRES_AT,
            Self::Scope => secret_keys::SCOPE,
            Self::Issuer => secret_keys::ISSUER,
        }
    }

    /// The maximum length of the value. A token is valid in a header (`oauth::token`), so it has no control characters.
    const fn longest(self) -> Length {
        match self {
            Self::AccessToken => Length { bytes: limits::ACCESS_TOKEN_MAX, has_controls: false },
            Self::TokenType => Length { bytes: limits::TOKEN_TYPE_MAX, has_controls: false },
            Self::ExpiresAt => Length { bytes: limits::TIME_MAX, has_controls: false },
            Self::Scope => Length { bytes: limits::SCOPE_MAX, has_controls: true },
            Self::Issuer => Length { bytes: limits::URL_MAX, has_controls: true },
        }
    }
}

impl<'a> Values<'a> {
    /// Reads the values from the data of a Secret. Values that are longer than validation assumes are truncated.
    pub fn new(data: impl Fn(&'static str) -> Option<&'a [u8]>) -> Self {
        Self(Name::ALL.map(|name| {
            let text = data(name.key()).map(String::from_utf8_lossy).unwrap_or_default();
            let end = text.floor_char_boundary(name.longest().bytes);
            match text {
                Cow::Borrowed(text) => Cow::Borrowed(&text[..end]),
                Cow::Owned(mut text) => {
                    text.truncate(end);
                    Cow::Owned(text)
                }
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rendered(source: &str, value: &str) -> String {
        let template = Template::parse(source).expect("a template");
        template.render(&Values::new(|_| Some(value.as_bytes())))
    }

    fn fault(source: &str) -> Fault {
        Template::parse(source).expect_err(source)
    }

    #[test]
    fn messages_list_all_names_and_filters() {
        let listed = |message: &'static str| -> Vec<&'static str> {
            let (_, list) = message.split_once("there are ").expect("a list");
            list.split([' ', ',']).filter(|word| !["", "and"].contains(word)).collect()
        };
        assert_eq!(listed(UNKNOWN_NAME), Name::ALL.map(Name::key));
        let filters = listed(UNKNOWN_FILTER);
        assert!(filters.len() == 6 && filters.iter().all(|filter| Filter::parse(filter).is_some()), "{filters:?}");
    }

    #[test]
    fn text_is_unchanged_and_a_single_brace_is_text() {
        for text in ["", "a", "}}", "{", "} {", "{ { x } }", "%} #}", r#"{"a": {}}"#, "ä{ä}ä", "a\nb", "'\"*~`$"] {
            assert_eq!(rendered(text, "x"), text);
        }
    }

    #[test]
    fn placeholder_may_be_anywhere_and_contain_white_space() {
        assert_eq!(rendered("{{scope}}{{ scope }}-{{\n\tscope\n|\tupper }}", "a"), "aa-A");
        assert_eq!(rendered(r#"{"token":{{ scope | tojson }}}"#, "a"), r#"{"token":"a"}"#);
    }

    #[test]
    fn filters_transform_the_value() {
        let by = |filter: &str, value: &str| rendered(&format!("{{{{ scope | {filter} }}}}"), value);
        assert_eq!(by("b64encode", "the-token"), "dGhlLXRva2Vu");
        assert_eq!(by("lower", "AbÄ"), "abÄ");
        assert_eq!(by("upper", "aBäß"), "ABäß");
        assert_eq!(by("trim", " \t a b\u{a0} \r\n"), "a b\u{a0}");
        assert_eq!(by("tojson", "a\"\\\n\u{1}ä"), r#""a\"\\\n\u0001ä""#);
        assert_eq!(by("urlencode", "aZ09-._~ /+%ä"), "aZ09-._~%20%2F%2B%25%C3%A4");
        assert_eq!(by("trim | upper | b64encode", " a "), "QQ==");
    }

    #[test]
    fn trailing_newlines_of_a_result_are_removed() {
        assert_eq!(rendered("{{ scope }}\r\n\n", "a\n"), "a");
    }

    #[test]
    fn fault_has_its_line() {
        assert_eq!(fault("a\nb {{ scope").line, 2);
        assert_eq!(fault("a\n{{ scope }}\n{% if %}\n{{ scope }}").line, 3);
        assert_eq!(fault("{{ scope }}{{ nothing }}").line, 1);
    }

    #[test]
    fn everything_else_is_rejected() {
        for source in [
            "{{",
            "{{ scope",
            "{{ scope }",
            "{{}}",
            "{{ }}",
            "{{ | upper }}",
            "{{ scope | }}",
            "{{ scope || upper }}",
            "{{- scope }}",
            "{{ scope -}}",
            "{{ 'a' }}",
            "{{ \"a\" }}",
            "{{ scope[0] }}",
            "{{ scope.x }}",
            "{{ scope + 1 }}",
            "{{ scope ~ scope }}",
            "{{ scope scope }}",
            "{{ (scope) }}",
            "{{ {scope} }}",
            "{{{ scope }}}",
            "{{ SCOPE }}",
            "{{ client_secret }}",
            "{{ authorization }}",
            "{{ scope | exec }}",
            "{{ scope | replace('a', 'b') }}",
            "{{ scope | UPPER }}",
            "{{ scope \u{a0}}}",
            "{{ scope\0 }}",
            "{% if scope %}{% endif %}",
            "{%",
            "{#",
            "{# comment #}",
            "text {% raw %}",
            "{{ scope }} {#",
            "{{ scope | trim | trim | trim | trim | trim }}",
        ] {
            fault(source);
        }
    }

    #[test]
    fn value_that_is_longer_than_expected_is_truncated_at_a_character() {
        let long = "ä".repeat(limits::SCOPE_MAX);
        assert_eq!(rendered("{{ scope }}", &long).len(), limits::SCOPE_MAX);
        let data = |_: &str| Some(&[0xff_u8; limits::SCOPE_MAX][..]);
        let template = Template::parse("{{ scope }}").expect("a template");
        assert!(template.render(&Values::new(data)).len() <= limits::SCOPE_MAX);
    }

    proptest! {
        #[test]
        fn no_result_is_longer_than_calculated(
            value in "\\PC{0,40}|[\\x00-\\x7f]{0,40}",
            chosen in proptest::collection::vec(0_usize..6, 0..=FILTERS_MAX),
        ) {
            let all = ["b64encode", "lower", "upper", "trim", "tojson", "urlencode"];
            let filters: String = chosen.iter().map(|filter| format!(" | {}", all[*filter])).collect();
            let parsed: Vec<Filter> = chosen.iter().filter_map(|filter| Filter::parse(all[*filter])).collect();
            let length = Length { bytes: value.len(), has_controls: value.chars().any(|c| c < ' ') };
            let longest = parsed.iter().fold(length, |length, filter| filter.longest(length)).bytes;
            let source = format!("{{{{ scope{filters} }}}}");
            prop_assert!(rendered(&source, &value).len() <= longest);
        }

        #[test]
        fn any_source_is_rendered_or_rejected(source in "([{}%#|\\-' ]|scope|upper|\\PC){0,60}") {
            if let Ok(template) = Template::parse(&source) {
                let result = template.render(&Values::new(|_| Some(b"token")));
                prop_assert!(result.len() <= template.longest());
            }
        }
    }
}
