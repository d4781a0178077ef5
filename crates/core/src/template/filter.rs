//! The filters of a placeholder: what each makes of a value, and how long its result can be.

use std::borrow::Cow;

use base64::Engine;

/// What a placeholder makes of its value.
#[derive(Clone, Copy, Debug)]
pub enum Filter {
    /// `b64encode`: base64 (RFC 4648 section 4).
    Base64,
    /// `lower`: ASCII letters in lower case.
    Lower,
    /// `upper`: ASCII letters in upper case.
    Upper,
    /// `trim`: without ASCII white space at both ends.
    Trim,
    /// `tojson`: a JSON string.
    Json,
    /// `urlencode`: percent-encoded (RFC 3986 section 2.1).
    Url,
}

/// The maximum length of a value, and whether it can contain control characters, which take six bytes each in JSON.
#[derive(Clone, Copy)]
pub struct Length {
    /// The maximum length, in bytes.
    pub bytes: usize,
    /// Whether the value can contain control characters.
    pub has_controls: bool,
}

impl Filter {
    /// The filter of this name.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "b64encode" => Self::Base64,
            "lower" => Self::Lower,
            "upper" => Self::Upper,
            "trim" => Self::Trim,
            "tojson" => Self::Json,
            "urlencode" => Self::Url,
            _ => return None,
        })
    }

    /// The filtered text. `lower`, `upper` and `trim` affect only ASCII letters and ASCII white space, so that they never
    /// make a value longer.
    pub fn apply(self, text: Cow<'_, str>) -> Cow<'_, str> {
        match self {
            Self::Base64 => base64::engine::general_purpose::STANDARD.encode(text.as_bytes()).into(),
            Self::Lower => text.to_ascii_lowercase().into(),
            Self::Upper => text.to_ascii_uppercase().into(),
            Self::Trim => text.trim_ascii().to_owned().into(),
            Self::Json => serde_json::Value::from(text).to_string().into(),
            Self::Url => percent_encoded(&text).into(),
        }
    }

    /// The maximum length of the result.
    pub const fn longest(self, text: Length) -> Length {
        let Length { bytes, has_controls } = text;
        match self {
            Self::Base64 => Length { bytes: bytes.div_ceil(3).saturating_mul(4), has_controls: false },
            Self::Lower | Self::Upper | Self::Trim => text,
            Self::Json => {
                let longest_escape = if has_controls { r"\u0000".len() } else { r"\\".len() };
                let bytes = bytes.saturating_mul(longest_escape).saturating_add("\"\"".len());
                Length { bytes, has_controls: false }
            }
            Self::Url => Length { bytes: bytes.saturating_mul("%00".len()), has_controls: false },
        }
    }
}

/// Encodes all but the unreserved characters of RFC 3986 section 2.3 as `%` and two hexadecimal digits.
fn percent_encoded(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded.push('%');
            encoded.push(DIGITS[usize::from(byte >> 4)].into());
            encoded.push(DIGITS[usize::from(byte & 0xF)].into());
        }
    }
    encoded
}
