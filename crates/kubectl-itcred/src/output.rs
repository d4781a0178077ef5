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

/// The text of an object as JSON or YAML: `kind`, and the fields of `content`.
///
/// # Errors
/// Never for the types of this crate.
pub fn structured(form: Form, kind: &str, content: &impl Serialize) -> Result<String, Problem> {
    let failed = |error: &dyn std::fmt::Display| Problem::new(format!("no output can be made: {error}"));
    let content = serde_json::to_value(content).map_err(|error| failed(&error))?;
    let mut object = json!({"apiVersion": VERSION, "kind": kind});
    if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), plain_value(content)) {
        object.extend(fields);
    }
    match form {
        Form::Yaml => serde_saphyr::to_string(&object).map_err(|error| failed(&error)),
        _ => serde_json::to_string_pretty(&object).map(|text| text + "\n").map_err(|error| failed(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_yaml_have_a_version_and_a_kind() {
        let content = json!({"items": [{"name": "a\u{1b}"}]});
        let text = structured(Form::Json, "StatusList", &content).expect("JSON");
        let read: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(read["apiVersion"], VERSION);
        assert_eq!(read["items"][0]["name"], "a?");
        let yaml: Value =
            serde_saphyr::from_str(&structured(Form::Yaml, "StatusList", &content).expect("YAML")).expect("YAML");
        assert_eq!(read, yaml);
    }
}
