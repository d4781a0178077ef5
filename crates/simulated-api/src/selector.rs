//! Label and field selectors of lists and watches.

use serde_json::Value;

use crate::{object::meta, request::Call, status::Failure};

/// What a list or watch is limited to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, String, bool)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    Exists(String, bool),
    In(String, Vec<String>, bool),
}

impl Selector {
    /// The selectors of a request.
    ///
    /// # Errors
    /// 400 where one is invalid, or a field cannot be selected by.
    pub fn new(call: &Call) -> Result<Self, Failure> {
        let labels = split(call.parameter("labelSelector")).into_iter().map(requirement).collect();
        let mut fields = Vec::new();
        for part in split(call.parameter("fieldSelector")) {
            let (name, value, equal) = equality(part).ok_or_else(|| {
                Failure::bad_request(format!("invalid selector: '{part}'; can't understand '{part}'"))
            })?;
            if !matches!(name.as_str(), "metadata.name" | "metadata.namespace") {
                return Err(Failure::bad_request(format!("field label not supported: {name}")));
            }
            fields.push((name, value, equal));
        }
        Ok(Self { labels, fields })
    }

    /// Whether everything is selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object is selected.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        let label = |name: &str| object["metadata"]["labels"].get(name).and_then(Value::as_str);
        let has_label = |requirement: &Requirement| match requirement {
            Requirement::Exists(name, wanted) => label(name).is_some() == *wanted,
            Requirement::In(name, values, wanted) => {
                label(name).is_some_and(|value| values.iter().any(|one| one == value)) == *wanted
            }
        };
        let has_field = |(name, value, equal): &(String, String, bool)| {
            let field = name.strip_prefix("metadata.").unwrap_or(name);
            (meta(object, field) == value) == *equal
        };
        self.labels.iter().all(has_label) && self.fields.iter().all(has_field)
    }
}

/// Parts between commas, of which those in parentheses separate none.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

fn equality(part: &str) -> Option<(String, String, bool)> {
    let (name, value, equal) = part
        .split_once("!=")
        .map(|(name, value)| (name, value, false))
        .or_else(|| part.split_once("==").map(|(name, value)| (name, value, true)))
        .or_else(|| part.split_once('=').map(|(name, value)| (name, value, true)))?;
    Some((name.trim().to_owned(), value.trim().to_owned(), equal))
}

fn requirement(part: &str) -> Requirement {
    for (word, wanted) in [(" notin ", false), (" in ", true)] {
        if let Some((name, values)) = part.split_once(word) {
            let values = values.trim().trim_matches(['(', ')']).split(',').map(|value| value.trim().to_owned());
            return Requirement::In(name.trim().to_owned(), values.collect(), wanted);
        }
    }
    match equality(part) {
        Some((name, value, wanted)) => Requirement::In(name, vec![value], wanted),
        None => Requirement::Exists(part.trim_start_matches('!').to_owned(), !part.starts_with('!')),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn selects(text: &str) -> bool {
        let labels = split(text).into_iter().map(requirement).collect();
        let object = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
        Selector { labels, fields: Vec::new() }.matches(&object)
    }

    #[test]
    fn label_selectors_select_as_documented() {
        for (text, expected) in [
            ("", true),
            ("a=1", true),
            ("a==2", false),
            ("a!=2", true),
            ("c!=2", true),
            ("a,b", true),
            ("!c", true),
            ("c", false),
            ("a in (1,3),b", true),
            ("a notin (1,3)", false),
        ] {
            assert_eq!(selects(text), expected, "{text}");
        }
    }
}
