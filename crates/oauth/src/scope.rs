//! The `scope` of a token response or a claim, in the two forms that servers write.

use serde::Deserialize;

/// RFC 6749 section 3.3 and RFC 9068 section 2.2.3 write a text with spaces; Bentley IMS writes an array.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Scopes {
    /// Scope tokens with a space between two of them.
    Text(String),
    /// An array of scope tokens.
    List(Vec<String>),
}

impl From<Scopes> for Vec<String> {
    fn from(scopes: Scopes) -> Self {
        match scopes {
            Scopes::Text(text) => text.split_ascii_whitespace().map(str::to_owned).collect(),
            // some servers write all of them as one element
            Scopes::List(list) => {
                list.iter().flat_map(|text| text.split_ascii_whitespace()).map(str::to_owned).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let read = |text: &str| serde_json::from_str::<Scopes>(text).map(Vec::from).ok();
        let expected = Some(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(read(r#""a b""#), expected);
        assert_eq!(read(r#"" a  b ""#), expected);
        assert_eq!(read(r#"["a", "b"]"#), expected);
        assert_eq!(read(r#"["a b\n"]"#), expected);
        assert_eq!(read(r#""""#), Some(Vec::new()));
        for other in ["7", "{}", "[1]", "[[]]"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
