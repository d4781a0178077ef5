//! What the API server says about a request that it refused, fit for conditions, events and logs.
//!
//! Such a text can come from an admission webhook or a policy, which see the whole object and may repeat a part of it:
//! its data, and labels that a user chooses. It is compared with no secret: if a word were left out because it is a
//! part of one, users could try out what the secret is. The text alone decides which of its words are shown.

#[cfg(test)]
mod tests;
mod words;

use std::{collections::HashSet, fmt, ops::Range, sync::LazyLock};

/// The longest quotation, in characters.
const SHOWN: usize = 300;
/// No more of a text is kept, in bytes: its beginning says what is wrong.
const KEPT: usize = 4 << 10;
/// A shorter part of a secret says nothing about it.
const PART: usize = 8;
/// A known word of this length ends a series of unknown ones: shorter ones occur by chance in a token that is cut into
/// pieces.
const SEPARATOR: usize = 4;
/// The longest number at the end of a known word, such as `secrets=12`.
const DIGITS: usize = 4;
/// The longest name of an object.
const NAME: usize = 253;
const REDACTED: &str = "[redacted]";
/// How the API server begins what it says, with `{}` for the names of objects, kinds and users: it writes these itself,
/// before the words of a webhook or policy.
const BEGINNINGS: [&str; 11] = [
    "admission webhook \"{}\"",
    "Internal error occurred: failed calling webhook \"{}\"",
    "{} \"{}\" is forbidden: ValidatingAdmissionPolicy '{}' with binding '{}'",
    "{} \"{}\" is forbidden: exceeded quota: {}",
    "{} \"{}\" is forbidden: User \"{}\" cannot {} resource \"{}\" in API group \"{}\" in the namespace \"{}\"",
    "{} \"{}\" is forbidden: User \"{}\" cannot {} resource \"{}\" in API group \"{}\"",
    "{} is forbidden: User \"{}\" cannot {} resource \"{}\" in API group \"{}\" in the namespace \"{}\"",
    "{} is forbidden: User \"{}\" cannot {} resource \"{}\" in API group \"{}\"",
    "{} \"{}\" is forbidden",
    "{} \"{}\" is invalid",
    "{} \"{}\" not found",
];

static WORDS: LazyLock<HashSet<&str>> = LazyLock::new(|| words::WORDS.split_ascii_whitespace().collect());

/// A text of the API server. It is shown without control characters and cut to 300 characters. What may be a part of a
/// secret is left out: all but known words, the names that the API server writes before the words of others, and
/// unknown words that have less than 8 bytes together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quote(String);

impl Quote {
    /// Quotes a text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let text = &text[..text.floor_char_boundary(KEPT)];
        let cleaned: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let beginning = BEGINNINGS.iter().filter_map(|form| length(&cleaned, form)).max().unwrap_or_default();
        let (beginning, rest) = cleaned.split_at(beginning);
        Self(format!("{beginning}{}", redact(rest)))
    }

    /// Whether it says that RBAC denies the request.
    #[must_use]
    pub fn is_missing_permission(&self) -> bool {
        self.contains(" cannot ") && self.contains(" resource ")
    }

    /// Whether the text contains this, which must be made of known words.
    #[must_use]
    pub fn contains(&self, text: &str) -> bool {
        self.0.contains(text)
    }
}

impl fmt::Display for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(SHOWN) {
            Some((end, _)) => write!(f, "{}…", &self.0[..end]),
            None => f.write_str(&self.0),
        }
    }
}

/// How much of a text has this form, in bytes; `None` where it begins otherwise.
fn length(text: &str, form: &str) -> Option<usize> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || "-._:/@".contains(c);
    let mut parts = form.split("{}");
    let mut rest = text.strip_prefix(parts.next()?)?;
    for part in parts {
        let end = rest.find(|c| !is_of_name(c)).unwrap_or(rest.len());
        rest = rest[end..].strip_prefix(part).filter(|_| end <= NAME)?;
    }
    Some(text.len() - rest.len())
}

/// The text with each series of unknown words replaced, unless it is short.
fn redact(text: &str) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut done = 0;
    for series in unknown(text).into_iter().filter(|series| series.len() >= PART) {
        redacted.push_str(&text[done..series.start]);
        redacted.push_str(REDACTED);
        done = series.end;
    }
    redacted.push_str(&text[done..]);
    redacted
}

/// Where unknown words follow each other.
fn unknown(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut goes_on = false;
    for word in words(text) {
        if is_known(&text[word.clone()]) {
            goes_on &= word.len() < SEPARATOR;
            continue;
        }
        match found.last_mut() {
            Some(last) if goes_on => last.end = word.end,
            _ => found.push(word),
        }
        goes_on = true;
    }
    found
}

/// The words of a text: all that a token or its base64 usually consists of is inside one (RFC 6750, section 2.1).
fn words(text: &str) -> Vec<Range<usize>> {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || "-_.~+/=".contains(c);
    let mut found = Vec::new();
    let mut next = 0;
    while let Some(start) = text[next..].find(is_inside).map(|start| next + start) {
        next = text[start..].find(|c| !is_inside(c)).map_or(text.len(), |length| start + length);
        if text[start..next].contains(|c: char| c.is_ascii_alphanumeric()) {
            found.push(start..next);
        }
    }
    found
}

/// Whether a word consists of known ones, with numbers behind the first that have fewer digits together than a part of a
/// secret.
fn is_known(word: &str) -> bool {
    if word.bytes().filter(u8::is_ascii_digit).count() >= PART {
        return false;
    }
    let is_listed = |part: &str| WORDS.contains(part.to_ascii_lowercase().as_str());
    let is_number = |part: &str| part.len() <= DIGITS && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = word.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    parts.next().is_some_and(is_listed) && parts.all(|part| is_listed(part) || is_number(part))
}
