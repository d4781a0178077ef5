//! Generates the API reference from the schemas of the two custom resources.

use itwin_api::{authority::ITwinAuthority, credential::ITwinServiceCredential};
use kube::CustomResourceExt;
use serde_json::Value;

const HEAD: &str = "\
# API reference

<!-- Generated from the types by tests/docs/reference.rs: run `make generate`. -->

This page lists every field of both custom resources, as the API server validates them. `kubectl explain itcred.spec`
and `kubectl explain itauth.spec` show the same. For guidance with examples, see [configuration.md](configuration.md).
For the reasons of the conditions, see [troubleshooting.md](troubleshooting.md).

A *duration* is text such as `90s`, `5m` or `1h30m`. A *set* is a list without duplicates.
";

/// What the rule of a duration has in its message; the reference shows the type by its name.
const DURATION: &str = "must be a duration such as";
/// The pattern of strings whose form a rule validates.
const ASCII: &str = "^[ -~]*$";

/// The whole document.
pub fn document() -> String {
    let mut text = HEAD.to_owned();
    for crd in [ITwinAuthority::crd(), ITwinServiceCredential::crd()] {
        kind(&mut text, &serde_json::to_value(crd).expect("JSON"));
    }
    text
}

fn kind(text: &mut String, crd: &Value) {
    let names = &crd["spec"]["names"];
    let version = &crd["spec"]["versions"][0];
    let schema = &version["schema"]["openAPIV3Schema"];
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = word(&names["kind"]);
    text.push_str(&format!("\n## {name}\n\n{}\n", wrapped(&one_line(&schema["description"]), "")));
    let list = |value: &Value| {
        let words = value.as_array().into_iter().flatten().map(|word| format!("`{}`", word.as_str().unwrap_or("")));
        words.collect::<Vec<_>>().join(", ")
    };
    text.push_str(&format!(
        "| | |\n|---|---|\n| `apiVersion` | `{}/{}` |\n| scope | {} |\n| plural, short name, category | `{}`, {}, {} |\n| columns of `kubectl get` | {} |\n",
        word(&crd["spec"]["group"]),
        word(&version["name"]),
        word(&crd["spec"]["scope"]),
        word(&names["plural"]),
        list(&names["shortNames"]),
        list(&names["categories"]),
        columns(version),
    ));
    for part in ["spec", "status"] {
        let schema = &schema["properties"][part];
        text.push_str(&format!("\n### {name} {part}\n\n{}\n", wrapped(&one_line(&schema["description"]), "")));
        text.push_str("| field | type | default | meaning |\n|---|---|---|---|\n");
        fields(text, "", schema);
    }
    let mut rules = Vec::new();
    collect_rules("", schema, &mut rules);
    text.push_str(&format!(
        "\n### {name} rules\n\nIn addition to types and limits, the API server checks these rules:\n\n"
    ));
    for rule in rules {
        text.push_str(&wrapped(&rule, "  "));
    }
}

fn columns(version: &Value) -> String {
    let columns = version["additionalPrinterColumns"].as_array().into_iter().flatten();
    let columns = columns.map(|column| {
        let name = column["name"].as_str().unwrap_or_default().to_uppercase();
        if column["priority"] == 1 { format!("{name} (`-o wide`)") } else { name }
    });
    columns.collect::<Vec<_>>().join(", ")
}

/// One row for each field; nested fields follow their parent.
fn fields(text: &mut String, parent: &str, schema: &Value) {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(|name| name.as_str()).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if parent.is_empty() { name.clone() } else { format!("{parent}.{name}") };
        let default = match &field["default"] {
            Value::Null if required.contains(&name.as_str()) => "required".to_owned(),
            Value::Null => String::new(),
            // the defaults of the nested fields show the same
            Value::Object(_) => String::new(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        text.push_str(&format!(
            "| `{path}` | {} | {default} | {} |\n",
            type_of(field).replace('|', "\\|"),
            one_line(&field["description"]).replace('|', "\\|")
        ));
        if of_kubernetes(field).is_some() {
            continue;
        }
        fields(text, &path, field);
        if field["items"]["properties"].is_object() {
            fields(text, &format!("{path}[]"), &field["items"]);
        }
    }
}

/// Types of Kubernetes itself, which its own documentation describes.
fn of_kubernetes(field: &Value) -> Option<&'static str> {
    if field["properties"]["matchLabels"].is_object() {
        return Some("label selector");
    }
    field["items"]["properties"]["lastTransitionTime"].is_object().then_some("list of conditions")
}

fn type_of(field: &Value) -> String {
    if let Some(name) = of_kubernetes(field) {
        return name.to_owned();
    }
    let limit = |low: &str, high: &str| match (field[low].as_u64(), field[high].as_u64()) {
        (_, None) => String::new(),
        (None | Some(0), Some(high)) => format!("at most {high}"),
        (Some(low), Some(high)) => format!("{low} to {high}"),
    };
    let mut parts = vec![match field["type"].as_str().unwrap_or("any") {
        "array" => {
            let kind = if field["x-kubernetes-list-type"] == "set" { "set" } else { "list" };
            let items = &field["items"];
            let of = if items["properties"].is_object() { "object".to_owned() } else { type_of(items) };
            match limit("minItems", "maxItems").as_str() {
                "" => format!("{kind}: {of}"),
                count => format!("{kind} of {count}: {of}"),
            }
        }
        "object" if field["additionalProperties"].is_object() => {
            format!("map of {}: {}", limit("minProperties", "maxProperties"), type_of(&field["additionalProperties"]))
        }
        "string" if is_duration(field) => "duration".to_owned(),
        "string" if field["format"] == "date-time" => "time".to_owned(),
        other => other.to_owned(),
    }];
    if let Some(words) = field["enum"].as_array() {
        let words: Vec<String> = words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
        return words.join(" or ");
    }
    let number = |name: &str| field[name].as_f64().map(|number| number as i64);
    let characters = limit("minLength", "maxLength");
    if parts[0] != "duration" && !characters.is_empty() {
        parts.push(format!("{characters} characters"));
    }
    if let (Some(low), Some(high)) = (number("minimum"), number("maximum")) {
        parts.push(format!("{low} to {high}"));
    }
    if let Some(pattern) = field["pattern"].as_str().filter(|pattern| *pattern != ASCII) {
        parts.push(format!("`{pattern}`"));
    }
    parts.join(", ")
}

fn is_duration(field: &Value) -> bool {
    let mut rules = field["x-kubernetes-validations"].as_array().into_iter().flatten();
    rules.any(|rule| rule["message"].as_str().is_some_and(|message| message.starts_with(DURATION)))
}

/// The messages of the rules, each with the field that it is about.
fn collect_rules(path: &str, schema: &Value, rules: &mut Vec<String>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let place = if path.is_empty() { String::new() } else { format!("`{path}`: ") };
        rules.push(format!("- {place}{}", rule["message"].as_str().expect("each rule has a message")));
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        collect_rules(&if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, field, rules);
    }
    if schema["items"].is_object() {
        collect_rules(&format!("{path}[]"), &schema["items"], rules);
    }
}

fn one_line(text: &Value) -> String {
    text.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A paragraph in lines of at most 120 characters; all but the first are indented.
fn wrapped(entry: &str, indent: &str) -> String {
    let (mut lines, mut line) = (String::new(), String::new());
    for word in entry.split(' ') {
        if !line.is_empty() && line.len() + 1 + word.len() > 120 {
            lines.push_str(line.trim_end());
            lines.push('\n');
            line = format!("{indent}{word}");
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    format!("{lines}{line}\n")
}
