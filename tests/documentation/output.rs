//! What a command printed, compared with what the document shows.

/// Whether a line is in the output. Words with a digit may differ: times, ages, numbers. A line of nothing but numbers
/// and durations is what the command is about, and may not.
pub fn is_shown(line: &str, printed: &str) -> bool {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let line = words(line);
    let is_exact = line.iter().all(|word| is_measure(word));
    let same = |shown: &String, is: &String| shown == is || (!is_exact && shown.contains(|c: char| c.is_ascii_digit()));
    printed
        .lines()
        .map(words)
        .any(|is| is.len() == line.len() && line.iter().zip(&is).all(|(shown, is)| same(shown, is)))
}

/// Whether a word is a number or a duration.
fn is_measure(word: &str) -> bool {
    let unit = word.trim_start_matches(|c: char| c.is_ascii_digit());
    unit.len() < word.len() && ["", "ms", "s", "m", "h"].contains(&unit)
}

#[test]
fn output_is_compared_word_by_word_except_numbers() {
    assert!(is_shown("a  True 5s", "x\na True 17s\n"));
    assert!(!is_shown("a True 5s", "a False 5s"));
    assert!(!is_shown("a True", "a True 5s"));
    assert!(is_shown("300 8", "300 8"));
    for (shown, printed) in [("300 8", "300 9"), ("0", "1"), ("5s 10s", "5s 20s")] {
        assert!(!is_shown(shown, printed), "{shown}");
    }
}
