//! What a command prints, and in which form.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{plain::plain_value, problem::Problem, table};

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

/// Prints text. A reader that went away, such as `head`, is no error.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints one line about the progress of a command, outside of its output.
pub fn progress(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "{}", crate::plain::plain(text));
}

/// Prints a line of a result as soon as it is known. Where an object follows, the line is about the progress.
pub fn line(form: Form, text: &str) {
    if form.is_structured() {
        progress(text);
    } else {
        print(&format!("{text}\n"));
    }
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
