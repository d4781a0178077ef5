//! The nesting of JSON, checked before a parser that recurses reads it.

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
        assert!(is_shallow("[1],".repeat(1000).as_bytes()), "what follows each other is not nested");
        assert!(is_shallow(format!(r#"["{}"]"#, "[".repeat(1000)).as_bytes()));
        assert!(is_shallow(format!(r#"["\"{}\\"]"#, "[".repeat(1000)).as_bytes()));
        assert!(!is_shallow(format!(r#"["\\",{}"#, "[".repeat(1000)).as_bytes()));
        assert!(!is_shallow("[".repeat(1000).as_bytes()), "whether it ends or not");
    }
}
