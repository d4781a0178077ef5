//! What a command prints, and in which form.

use std::{
    io::{self, IsTerminal, Write},
    sync::OnceLock,
};

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    plain::{plain, plain_value},
    problem::{Outcome, Problem},
    table,
};

/// The version of what `-o json` and `-o yaml` print. Fields may be added; a change of one is another version.
pub const VERSION: &str = "itcred.credentials.itwin.dev/v1";

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people, in 100 columns.
    #[default]
    Table,
    /// For people, with further columns and nothing cut.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

impl Form {
    /// The width that tables fit.
    #[must_use]
    pub fn width(self) -> Option<usize> {
        (self != Self::Wide).then_some(table::WIDTH)
    }

    /// Whether programs read it: then an object is all that standard output holds.
    #[must_use]
    pub fn is_structured(self) -> bool {
        matches!(self, Self::Json | Self::Yaml)
    }
}

/// Whether standard output takes colors: it is a terminal, and the user did not decline them (<https://no-color.org>).
#[must_use]
pub fn is_colored() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    std::io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb
}

/// Why something could not be printed, the first time: `rotate` must go on meanwhile, and so its lines cannot fail.
static LOST: OnceLock<String> = OnceLock::new();

/// Prints text. [`complete`] says whether that worked.
pub fn print(text: &str) {
    if let Err(error) = write(&mut io::stdout().lock(), text) {
        LOST.get_or_init(|| error.to_string());
    }
}

/// Writes text. A reader that went away, such as `head`, is no error.
fn write(out: &mut impl Write, text: &str) -> io::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Whether help was printed as a whole. A reader that went away, such as `head`, is no error.
///
/// # Errors
/// Why it was not.
pub fn written(printed: io::Result<()>) -> Result<(), Problem> {
    match printed.and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(unwritten(&error.to_string())),
        _ => Ok(()),
    }
}

fn unwritten(error: &str) -> Problem {
    Problem::new(format!("the output could not be written: {error}"))
}

/// The outcome of a command, if all that it printed was written.
///
/// # Errors
/// Why it was not.
pub fn complete(outcome: Outcome) -> Result<Outcome, Problem> {
    unless_lost(outcome, LOST.get())
}

fn unless_lost(outcome: Outcome, lost: Option<&String>) -> Result<Outcome, Problem> {
    lost.map_or(Ok(outcome), |error| Err(unwritten(error)))
}

/// Prints one line about the progress of a command, outside of its output.
pub fn progress(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(as_line(text).as_bytes());
}

/// Prints a line of a result as soon as it is known. Where an object follows, the line is about the progress.
pub fn line(form: Form, text: &str) {
    if form.is_structured() {
        progress(text);
    } else {
        print(&as_line(text));
    }
}

/// One line; the text may hold what others wrote.
fn as_line(text: &str) -> String {
    plain(text) + "\n"
}

/// What `-o json` and `-o yaml` print for a command. Its fields are those of docs/kubectl-itcred.md.
pub trait Structured: Serialize {
    /// Its `kind`.
    const KIND: &'static str;

    /// The object: `apiVersion`, `kind` and the fields.
    ///
    /// # Errors
    /// Never for the types of this crate.
    fn object(&self) -> Result<Value, Problem> {
        let content = serde_json::to_value(self).map_err(|error| unmade(&error))?;
        let mut object = json!({"apiVersion": VERSION, "kind": Self::KIND});
        if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), plain_value(content)) {
            object.extend(fields);
        }
        Ok(object)
    }

    /// Prints the object.
    ///
    /// # Errors
    /// As [`Self::object`].
    fn print(&self, form: Form) -> Result<(), Problem> {
        print(&text(form, &self.object()?)?);
        Ok(())
    }
}

fn unmade(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(format!("no output can be made: {error}"))
}

/// An object as JSON or YAML.
fn text(form: Form, object: &Value) -> Result<String, Problem> {
    match form {
        Form::Yaml => serde_saphyr::to_string(object).map_err(|error| unmade(&error)),
        _ => serde_json::to_string_pretty(object).map(|text| text + "\n").map_err(|error| unmade(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An output that fails in this way once it is flushed.
    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn output_that_is_lost_is_an_error_unless_its_reader_went_away() {
        assert!(write(&mut Failing(io::ErrorKind::BrokenPipe), "text").is_ok());
        let error = write(&mut Failing(io::ErrorKind::StorageFull), "text").expect_err("a full disk").to_string();
        assert_eq!(unless_lost(Outcome::Findings, None), Ok(Outcome::Findings));
        let problem = unless_lost(Outcome::Fine, Some(&error)).expect_err("lost").to_string();
        assert!(problem.starts_with("the output could not be written: ") && problem.ends_with(&error), "{problem}");
    }

    #[test]
    fn line_is_one_line_that_no_terminal_obeys() {
        assert_eq!(as_line("a\u{1b}[2J\nb"), "a?[2J b\n");
    }

    #[test]
    fn json_and_yaml_have_a_version_and_a_kind() {
        #[derive(Serialize)]
        struct List {
            items: Vec<&'static str>,
        }
        impl Structured for List {
            const KIND: &'static str = "List";
        }
        let object = List { items: vec!["a\u{1b}"] }.object().expect("an object");
        assert_eq!(object, json!({"apiVersion": VERSION, "kind": "List", "items": ["a?"]}));
        let read: Value = serde_json::from_str(&text(Form::Json, &object).expect("JSON")).expect("JSON");
        let yaml: Value = serde_saphyr::from_str(&text(Form::Yaml, &object).expect("YAML")).expect("YAML");
        assert_eq!((&read, &yaml), (&object, &object));
    }
}
