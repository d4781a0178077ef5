//! The nesting of a JSON text, before a parser that recurses reads it.

use serde::de::DeserializeOwned;

/// Levels of arrays and objects. Key sets and discovery documents have three, claims of known servers up to five; the
/// parser itself would follow 128, which takes a stack of some hundred KiB.
const DEPTH_MAX: usize = 32;

/// Reads a JSON text that is not nested too deeply; `None` where it is, or is not of this type.
#[must_use]
pub fn read<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    is_shallow(text).then(|| serde_json::from_slice(text).ok()).flatten()
}

/// Whether no array or object of this text is nested deeper than [`DEPTH_MAX`]. Whether it is JSON at all, the parser
/// decides: up to the first error, both agree on what is a string.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_counted_outside_of_strings() {
        let nested = |open: &str, times: usize, close: &str| format!("{}0{}", open.repeat(times), close.repeat(times));
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            assert!(is_shallow(nested(open, DEPTH_MAX, close).as_bytes()));
            assert!(!is_shallow(nested(open, DEPTH_MAX + 1, close).as_bytes()));
        }
        assert!(is_shallow("[1],".repeat(1000).as_bytes()), "values that follow each other are not nested");
        assert!(is_shallow(format!(r#"["{}"]"#, "[".repeat(1000)).as_bytes()));
        assert!(is_shallow(format!(r#"["\"{}\\"]"#, "[".repeat(1000)).as_bytes()));
        assert!(!is_shallow(format!(r#"["\\",{}"#, "[".repeat(1000)).as_bytes()));
        assert!(!is_shallow("[".repeat(1000).as_bytes()), "whether it ends or not");
    }

    #[test]
    fn deep_text_is_not_read() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(read::<serde_json::Value>(nested(DEPTH_MAX).as_bytes()).is_some());
        assert!(read::<serde_json::Value>(nested(DEPTH_MAX + 1).as_bytes()).is_none());
        assert!(read::<bool>(b"7").is_none());
    }
}
