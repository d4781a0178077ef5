//! `check`: why a credential does not work, in the order in which one would search.
//!
//! [`Observed`] is what the operator would read, as far as the user may read it; [`report`] applies the operator's
//! rules to it. What could not be read is said to be unknown, and never counts as fine.

mod client;
mod observed;
mod operator;
mod reported;
mod server;
#[cfg(test)]
mod tests;
mod token;

pub use observed::{Lease, Observed, Published, Seen};
use serde::Serialize;

use crate::{
    output::Structured,
    plain::plain,
    table::{Tone, WIDTH, wrap},
};

/// What is said about one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing, and no problem.
    Note,
    /// It could not be checked.
    Unknown,
    /// It keeps the credential from working, or will.
    Problem,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it is.
    pub level: Level,
    /// The reason of the condition that it leads to, if it leads to one.
    pub reason: Option<&'static str>,
    /// What was found and, of a problem, what to do.
    pub text: String,
    /// Whether it is unknown because the user did not want it to be checked.
    #[serde(skip)]
    pub is_left_out: bool,
}

/// The findings about one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Section {
    /// The part.
    pub title: &'static str,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// What `check` found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The credential, `namespace/name`.
    pub credential: String,
    /// The parts, in the order in which one would search.
    pub sections: Vec<Section>,
}

impl Section {
    fn new(title: &'static str) -> Self {
        Self { title, findings: Vec::new() }
    }

    fn push(&mut self, level: Level, reason: Option<&'static str>, text: impl AsRef<str>) {
        self.findings.push(Finding { level, reason, text: plain(text.as_ref()), is_left_out: false });
    }

    fn ok(&mut self, text: impl AsRef<str>) {
        self.push(Level::Ok, None, text);
    }

    fn note(&mut self, text: impl AsRef<str>) {
        self.push(Level::Note, None, text);
    }

    fn unknown(&mut self, text: impl AsRef<str>) {
        self.push(Level::Unknown, None, text);
    }

    /// Unknown, where `is_left_out` because the user did not want it to be checked.
    fn unknown_unless(&mut self, is_left_out: bool, text: impl AsRef<str>) {
        let text = plain(text.as_ref());
        self.findings.push(Finding { level: Level::Unknown, reason: None, text, is_left_out });
    }

    fn problem(&mut self, text: impl AsRef<str>) {
        self.push(Level::Problem, None, text);
    }

    fn failure(&mut self, failure: &itwin_core::failure::Failure) {
        self.push(Level::Problem, Some(failure.reason.as_str()), &failure.message);
    }

    fn result(&mut self, result: Result<impl AsRef<str>, itwin_core::failure::Failure>) {
        match result {
            Ok(text) => self.ok(text),
            Err(failure) => self.failure(&failure),
        }
    }
}

impl Structured for Report {
    const KIND: &'static str = "CheckReport";
}

/// Applies the rules of the operator to what was observed.
#[must_use]
pub fn report(observed: &Observed) -> Report {
    let sections = vec![
        operator::section(observed),
        server::section(observed),
        client::section(observed),
        token::section(observed),
        reported::section(observed),
        reported::pods(observed),
    ];
    Report { credential: format!("{}/{}", observed.namespace(), observed.name()), sections }
}

impl Report {
    /// The problems, in their order.
    pub fn problems(&self) -> impl Iterator<Item = &Finding> {
        self.sections.iter().flat_map(|section| &section.findings).filter(|finding| finding.level == Level::Problem)
    }

    /// Whether everything was checked that the user wanted to be.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let mut findings = self.sections.iter().flat_map(|section| &section.findings);
        findings.all(|finding| finding.level != Level::Unknown || finding.is_left_out)
    }

    fn count(&self, level: Level) -> usize {
        self.sections.iter().flat_map(|section| &section.findings).filter(|finding| finding.level == level).count()
    }

    /// One page of text.
    #[must_use]
    pub fn render(&self, is_colored: bool) -> String {
        let mut text = format!("ITwinServiceCredential {}\n", plain(&self.credential));
        for section in &self.sections {
            text.push_str(&format!("\n{}\n", section.title));
            for finding in &section.findings {
                let (mark, tone) = match finding.level {
                    Level::Ok => ("ok", Tone::Good),
                    Level::Note => ("note", Tone::Plain),
                    Level::Unknown => ("unknown", Tone::Warning),
                    Level::Problem => ("PROBLEM", Tone::Bad),
                };
                let reason = finding.reason.map_or_else(String::new, |reason| format!("{reason}: "));
                let lines = wrap(&format!("  {mark:<8} "), &format!("{reason}{}", finding.text), WIDTH);
                // the mark is colored after the lines were broken
                text.push_str(&lines.replacen(mark, &tone.paint(mark, is_colored), 1));
            }
        }
        text.push('\n');
        text.push_str(&self.conclusion());
        text
    }

    /// What to do.
    #[must_use]
    pub fn conclusion(&self) -> String {
        let unknown = match self.count(Level::Unknown) {
            0 => String::new(),
            count => format!(" {count} could not be checked, see \"unknown\" above."),
        };
        let number = self.count(Level::Problem);
        match self.problems().next() {
            None => format!("No problem found.{unknown}\n"),
            Some(first) => {
                let count =
                    if number == 1 { "1 problem found.".to_owned() } else { format!("{number} problems found.") };
                let start = if number == 1 { "Solve it first" } else { "Start with the first" };
                wrap("", &format!("{count}{unknown} {start}: {}", first.text), WIDTH)
            }
        }
    }
}
