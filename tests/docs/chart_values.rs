//! The values of the chart that the documentation names exist.

use serde_json::Value;

use crate::{documents, markdown, none, project, read, yaml};

/// Whether the schema of the chart accepts a value at this path.
fn takes(schema: &Value, path: &[&str]) -> bool {
    let Some((name, rest)) = path.split_first() else { return true };
    let name = name.trim_end_matches(|c: char| c == ']' || c == '[' || c.is_ascii_digit());
    if schema["properties"][name].is_object() {
        return takes(&schema["properties"][name], rest);
    }
    match &schema["additionalProperties"] {
        Value::Bool(false) => false,
        Value::Object(_) => takes(&schema["additionalProperties"], rest),
        // the schema does not describe the content
        _ => !schema["properties"].is_object(),
    }
}

/// The paths of the leaves of values; a leaf is anything but a map.
fn leaves(values: &Value, path: &str, found: &mut Vec<String>) {
    match values.as_object().filter(|map| !map.is_empty()) {
        None => found.push(path.to_owned()),
        Some(map) => {
            for (name, value) in map {
                leaves(value, &if path.is_empty() { name.clone() } else { format!("{path}\u{0}{name}") }, found);
            }
        }
    }
}

#[test]
fn values_of_the_chart_exist() {
    let schema: Value =
        serde_json::from_str(&read(project().join("charts/itwin-credential-operator/values.schema.json")))
            .expect("JSON");
    let mut wrong = Vec::new();
    let mut count = 0;
    let mut check = |place: String, path: &str, separator: char| {
        count += 1;
        if !takes(&schema, &path.split(separator).collect::<Vec<_>>()) {
            wrong.push(format!("{place}: there is no value {}", path.replace(separator, ".")));
        }
    };
    for (place, text, objects) in yaml() {
        if text.starts_with("# values") {
            for values in &objects {
                let mut found = Vec::new();
                leaves(values, "", &mut found);
                found.iter().for_each(|path| check(place.clone(), path, '\u{0}'));
            }
        }
    }
    for (file, text) in documents() {
        for block in markdown::blocks(&text).iter().filter(|block| block.language == "console") {
            for command in markdown::commands(block) {
                let mut words = command.text.split_whitespace();
                while let Some(word) = words.next() {
                    let settings = match word {
                        "--set" | "--set-file" | "--set-string" => words.next().unwrap_or_default(),
                        _ => continue,
                    };
                    let settings = settings.trim_matches('\'');
                    for path in settings.split(',').filter_map(|setting| setting.split_once('=')).map(|(path, _)| path)
                    {
                        check(format!("{}:{}", file.display(), command.line), path, '.');
                    }
                }
            }
        }
    }
    // in prose, a code span that starts with a section of values.yaml and has a dot is a value
    let sections: Vec<&String> = schema["properties"].as_object().expect("values").keys().collect();
    for (file, text) in
        documents().into_iter().filter(|(file, _)| file.starts_with("docs") || file.ends_with("README.md"))
    {
        for span in markdown::code_spans(&text) {
            let path = span.split(['=', ' ', ':']).next().unwrap_or_default();
            let section = path.split('.').next().unwrap_or_default();
            if path.contains('.') && sections.iter().any(|name| *name == section) && !path.ends_with(".yaml") {
                check(file.display().to_string(), path, '.');
            }
        }
    }
    none(&wrong);
    assert!(count > 20, "only {count} values were found");
}
