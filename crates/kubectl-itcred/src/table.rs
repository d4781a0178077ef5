//! Tables and paragraphs that fit a terminal of 100 columns.

use crate::plain::plain;

/// The width that fits: of terminals, tickets and reviews.
pub const WIDTH: usize = 100;
/// Spaces between two columns, as kubectl has them.
const GAP: usize = 3;
/// A column is not cut to fewer characters.
const NARROWEST: usize = 8;

/// How a text stands out on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As other text.
    #[default]
    Plain,
    /// Fine.
    Good,
    /// It needs attention.
    Warning,
    /// Wrong.
    Bad,
}

impl Tone {
    /// The text in the tone's color, if colors are wanted (ECMA-48 section 8.3.117).
    #[must_use]
    pub fn paint(self, text: &str, is_colored: bool) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Good => 32,
            Self::Warning => 33,
            Self::Bad => 31,
        };
        if is_colored { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// A cell of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell(String, Tone);

impl Cell {
    /// A cell; the text may hold what others wrote.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self::toned(text, Tone::Plain)
    }

    /// A cell that stands out.
    pub fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        let text = plain(text.as_ref());
        Self(if text.is_empty() { "-".to_owned() } else { text }, tone)
    }
}

/// A table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The heads of the columns.
    pub heads: Vec<&'static str>,
    /// The rows, each with a cell for each column.
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// The table as text. With a width, the widest columns are cut until each line fits.
    #[must_use]
    pub fn render(&self, width: Option<usize>, is_colored: bool) -> String {
        let heads: Vec<Cell> = self.heads.iter().map(Cell::new).collect();
        let lines: Vec<&[Cell]> = [&heads[..]].into_iter().chain(self.rows.iter().map(|row| &row[..])).collect();
        let mut widths = vec![0; self.heads.len()];
        for line in &lines {
            for (column, cell) in widths.iter_mut().zip(*line) {
                *column = (*column).max(cell.0.chars().count());
            }
        }
        if let Some(width) = width {
            fit(&mut widths, width);
        }
        lines.iter().map(|line| render_line(line, &widths, is_colored)).collect()
    }
}

/// Cuts the widest column until all fit.
fn fit(widths: &mut [usize], width: usize) {
    let total = |widths: &[usize]| widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
    while total(widths) > width {
        match widths.iter_mut().max().filter(|widest| **widest > NARROWEST) {
            Some(widest) => *widest -= 1,
            None => return,
        }
    }
}

fn render_line(cells: &[Cell], widths: &[usize], is_colored: bool) -> String {
    let mut line = String::new();
    for (number, (Cell(text, tone), width)) in cells.iter().zip(widths).enumerate() {
        let shown = cut(text, *width);
        let padding = width - shown.chars().count();
        line.push_str(&tone.paint(&shown, is_colored));
        if number + 1 < cells.len() {
            line.push_str(&" ".repeat(padding + GAP));
        }
    }
    line.push('\n');
    line
}

/// At most this many characters.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// A text in lines that fit, the first after `first` and the others after as many spaces.
#[must_use]
pub fn wrap(first: &str, text: &str, width: usize) -> String {
    let indent = first.chars().count();
    let mut lines = vec![first.to_owned()];
    let mut used = indent;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if used > indent && used + 1 + length > width {
            lines.push(" ".repeat(indent));
            used = indent;
        }
        let line = lines.last_mut();
        if let Some(line) = line {
            if used > indent {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
            used += length;
        }
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(cells: &[&[&str]]) -> Table {
        let rows = cells.iter().map(|row| row.iter().map(Cell::new).collect()).collect();
        Table { heads: vec!["NAME", "STATE"], rows }
    }

    #[test]
    fn columns_are_aligned_and_lines_end_without_spaces() {
        let text = table(&[&["a", "Ready"], &["longer", ""]]).render(Some(WIDTH), false);
        assert_eq!(text, "NAME     STATE\na        Ready\nlonger   -\n");
    }

    #[test]
    fn widest_columns_are_cut_until_each_line_fits() {
        let (name, state) = ("n".repeat(253), "s".repeat(60));
        let text = table(&[&[&name, &state]]).render(Some(WIDTH), false);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.lines().nth(1).is_some_and(|line| line.contains('…')), "{text}");
        let whole = table(&[&[&name, &state]]).render(None, false);
        assert!(whole.contains(&name) && whole.contains(&state));
    }

    #[test]
    fn colors_do_not_count_as_width_and_are_left_out_where_they_are_not_wanted() {
        let mut table = table(&[&["a", "b"]]);
        table.rows[0][0] = Cell::toned("a", Tone::Bad);
        assert_eq!(table.render(None, true).lines().nth(1), Some("\u{1b}[31ma\u{1b}[0m      b"));
        assert!(!table.render(None, false).contains('\u{1b}'));
    }

    #[test]
    fn cells_hold_no_control_characters() {
        assert!(!table(&[&["a\u{1b}[2J", "b\n"]]).render(None, false).contains('\u{1b}'));
    }

    #[test]
    fn paragraph_has_a_hanging_indent() {
        assert_eq!(wrap("- ", "one two three", 9), "- one two\n  three\n");
        assert_eq!(wrap("- ", &"x".repeat(20), 9), format!("- {}\n", "x".repeat(20)));
        assert_eq!(wrap("- ", "", 9), "-\n");
    }
}
