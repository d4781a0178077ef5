//! What is read of JSON before it is understood: its nesting, before a parser that recurses reads it, and the error that
//! it names.

use serde::Deserialize;
use serde_json::Value;

/// Levels of arrays and objects. Key sets and discovery documents have three, claims of known servers up to five; the
/// parser itself would follow 128, which takes a stack of some hundred KiB.
const DEPTH_MAX: usize = 32;

/// Whether no array or object of this text is nested deeper than [`DEPTH_MAX`]. Whether it is JSON at all, the parser
/// says: as far as that reads, both agree on what is a string.
#[must_use]
pub fn is_shallow(text: &[u8]) -> bool {
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return false;
        }
    }
    true
}

/// The longest OAuth error code that is read, in bytes; those of RFC 6749 have 22 at most.
const ERROR_CODE_MAX: usize = 64;

/// The OAuth error that an answer names: `error` (RFC 6749 section 5.2), or `errorCode` as some servers write.
#[must_use]
pub fn error_code(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Named {
        error: Option<Value>,
        error_code: Option<Value>,
    }
    let named: Named = is_shallow(body).then(|| serde_json::from_slice(body).ok()).flatten()?;
    let code = named.error.or(named.error_code)?;
    code.as_str().filter(|code| !code.is_empty() && code.len() <= ERROR_CODE_MAX).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_read_under_both_names_and_bounded() {
        let code = |body: &str| error_code(body.as_bytes());
        assert_eq!(code(r#"{"error": "invalid_client", "errorCode": "other"}"#).as_deref(), Some("invalid_client"));
        assert_eq!(code(r#"{"errorCode": "invalid_client"}"#).as_deref(), Some("invalid_client"));
        let long = format!(r#"{{"error": "{}"}}"#, "x".repeat(ERROR_CODE_MAX + 1));
        for other in ["", "<html>", "[]", r#"{"error": 7}"#, r#"{"error": ""}"#, r#"{"error": null}"#, &long] {
            assert_eq!(code(other), None, "{other}");
        }
    }

    #[test]
    fn nesting_is_counted_outside_of_strings() {
        let nested = |open: &str, times: usize, close: &str| format!("{}0{}", open.repeat(times), close.repeat(times));
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            assert!(is_shallow(nested(open, DEPTH_MAX, close).as_bytes()));
            assert!(!is_shallow(nested(open, DEPTH_MAX + 1, close).as_bytes()));
        }
        assert!(is_shallow("[1],".repeat(1000).as_bytes()), "what follows each other is not nested");
        assert!(is_shallow(format!(r#"["{}"]"#, "[".repeat(1000)).as_bytes()));
        assert!(is_shallow(format!(r#"["\"{}\\"]"#, "[".repeat(1000)).as_bytes()));
        assert!(!is_shallow(format!(r#"["\\",{}"#, "[".repeat(1000)).as_bytes()));
        assert!(!is_shallow("[".repeat(1000).as_bytes()), "whether it ends or not");
    }
}
