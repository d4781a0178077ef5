//! Reads the parts of Markdown that the documentation uses: headings, links, fenced blocks and the commands in them.

use std::path::{Path, PathBuf};

/// A fenced block.
#[derive(Clone, Debug)]
pub struct Block {
    /// The word after the fence.
    pub language: String,
    /// Its text, without the indentation of the fence.
    pub text: String,
    /// Line of its first line of text, from 1.
    pub line: usize,
}

/// A command of a `console` block, with the output below it.
#[derive(Clone, Debug)]
pub struct Command {
    /// The command, with its continuation lines and here-documents.
    pub text: String,
    /// The lines of its output.
    pub output: Vec<String>,
    /// Line of the command, from 1.
    pub line: usize,
}

/// Every Markdown file of the project for readers.
pub fn files(project: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut folders = vec![project.join("docs"), project.join("charts"), project.join("examples")];
    for entry in std::fs::read_dir(project).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        found.extend(Some(path).filter(|path| is_markdown(path)));
    }
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if is_markdown(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn is_markdown(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}

/// The fenced blocks of a text, also those in lists.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<(usize, Block)> = None;
    for (number, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(language)) => {
                let block = Block { language: language.trim().to_owned(), text: String::new(), line: number + 2 };
                open = Some((indent, block));
            }
            (Some(_), Some("")) => found.extend(open.take().map(|(_, block)| block)),
            (Some((indent, block)), _) => {
                block.text.push_str(line.get(*indent..).unwrap_or_default());
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fenced block is not closed");
    found
}

/// The text outside fenced blocks, line by line; lines of blocks are empty.
pub fn prose(text: &str) -> String {
    let mut inside = false;
    let mut kept = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            kept.push_str(line);
        }
        kept.push('\n');
    }
    kept
}

/// The commands of a `console` block.
pub fn commands(block: &Block) -> Vec<Command> {
    let mut found: Vec<Command> = Vec::new();
    let mut lines = block.text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(first) = line.strip_prefix("$ ") else {
            let command = found.last_mut().expect("a console block starts with a command");
            command.output.push(line.to_owned());
            continue;
        };
        let mut text = first.to_owned();
        while text.ends_with('\\') {
            text.push('\n');
            text.push_str(lines.next().expect("a continuation line").1);
        }
        if let Some((_, end)) = first.split_once("<<") {
            let end = end.trim_matches(|c: char| c == '\'' || c == '-' || c.is_whitespace()).to_owned();
            loop {
                let (_, line) = lines.next().expect("the end of a here-document");
                text.push('\n');
                text.push_str(line);
                if line == end {
                    break;
                }
            }
        }
        found.push(Command { text, output: Vec::new(), line: block.line + number });
    }
    found
}

/// The headings of a text: their level and their words.
pub fn headings(text: &str) -> Vec<(usize, String)> {
    let headings = prose(text);
    let headings = headings.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let words = line.trim_start_matches('#');
            (line.len() - words.len(), words.trim().to_owned())
        })
        .collect()
}

/// The anchor that renderers give a heading.
pub fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// The targets of the links `[words](target)` of a text.
pub fn links(text: &str) -> Vec<String> {
    // code contains no links
    let prose = prose(text);
    let plain: String = prose.split('`').step_by(2).collect::<Vec<_>>().join("code");
    let targets = plain.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).collect()
}

/// The text between single backticks.
pub fn code_spans(text: &str) -> Vec<String> {
    let prose = prose(text);
    // a span may continue in the next line, but not in the next paragraph
    let spans = prose.split("\n\n").flat_map(|paragraph| paragraph.split('`').skip(1).step_by(2));
    spans.map(|span| span.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}
