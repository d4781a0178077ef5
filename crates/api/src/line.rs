//! Text that tenants and servers wrote, as a part of one line.
//!
//! Names in owner references, what an admission webhook says and the like come with any characters. In a log a line break
//! would begin a line that this program did not write, and a terminal would obey an escape sequence. So no condition, event
//! or line of a log has such a character.

/// The text as one line without control characters, and without characters that change the direction of text.
#[must_use]
pub fn line(text: String) -> String {
    if text.chars().all(|c| harmless(c) == c) { text } else { text.chars().map(harmless).collect() }
}

/// The character, or what stands in its place.
#[must_use]
pub fn harmless(c: char) -> char {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_stays_one_line_and_what_is_harmless_stays_as_it_is() {
        let hostile = "a\u{1b}[2J\u{9b}31m\u{7}b\r\nc\u{202e}d\u{2066}\u{200f}\u{feff}\0\u{7f}\u{2028}é日";
        assert_eq!(line(hostile.to_owned()), "a?[2J?31m?b  c?d??????é日");
        let harmless = "Secret team/a could not be written (HTTP 403: …): ask Zoë";
        assert_eq!(line(harmless.to_owned()), harmless);
    }
}
