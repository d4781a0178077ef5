//! Text from the cluster, fit for a terminal.
//!
//! Names, messages and claims are written by tenants and servers. Printed as they are, they could clear the screen, set
//! colors, or show text in another order than it has.

/// The longest text that is printed, in characters.
const LONGEST: usize = 2000;

/// The text as one line without control characters, and without characters that change the direction of text.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut shown: String = text.chars().take(LONGEST).map(harmless).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

fn harmless(c: char) -> char {
    match c {
        '\n' | '\r' | '\t' => ' ',
        c if c.is_control() || is_invisible(c) => '?',
        c => c,
    }
}

/// Marks and overrides of direction, separators of lines and paragraphs, zero-width characters, and tags.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// All strings of a value without such characters, for output that other programs read. Control characters are escaped
/// in JSON, but a terminal shows the others.
#[must_use]
pub fn plain_value(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::String(text) => Value::String(plain(&text)),
        Value::Array(items) => Value::Array(items.into_iter().map(plain_value).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(key, value)| (plain(&key), plain_value(value))).collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let hostile = "a\u{1b}[2J\u{9b}31m\u{7}b\r\nc\u{202e}d\u{2066}\u{200f}\u{feff}\0\u{7f}\u{2028}é日";
        assert_eq!(plain(hostile), "a?[2J?31m?b  c?d??????é日");
        let value = serde_json::json!({"a\u{1b}": ["\u{202e}", 1, null]});
        assert_eq!(plain_value(value), serde_json::json!({"a?": ["?", 1, null]}));
    }

    #[test]
    fn text_is_bounded() {
        assert_eq!(plain(&"é".repeat(100_000)).chars().count(), LONGEST + 1);
    }
}
