//! The finalizers of an object, of which anyone who may write the object can add any number.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};

/// So many finalizers of an object are kept: a message names them, and more than one is rare.
const FINALIZERS_MAX: usize = 3;

/// The first finalizers, which are names: the rest is dropped while it is read.
pub(super) struct Finalizers(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Finalizers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Finalizers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of finalizers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Finalizers, A::Error> {
                let mut names = Vec::new();
                while names.len() < FINALIZERS_MAX {
                    match all.next_element()? {
                        Some(name) => names.push(name),
                        None => return Ok(Finalizers(names)),
                    }
                }
                while all.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Finalizers(names))
            }
        }
        deserializer.deserialize_seq(Names)
    }
}

#[cfg(test)]
mod tests {
    use itwin_api::credential::ITwinServiceCredential;
    use serde_json::{Value, json};

    use super::*;
    use crate::controller::guarded::Guarded;

    #[test]
    fn first_finalizers_of_an_object_that_is_being_deleted_are_kept() {
        let finalizers = |value: Value, deleted_at: Value| {
            let mut object =
                json!({"metadata": {"name": "agent"}, "spec": {"clientCredentialsRef": {"name": "client"}}});
            object["metadata"]["finalizers"] = value;
            object["metadata"]["deletionTimestamp"] = deleted_at;
            let guarded: Guarded<ITwinServiceCredential> = serde_json::from_value(object).expect("guarded");
            guarded.open().expect("understood").metadata.finalizers
        };
        let names: Vec<String> = (0..1000).map(|number| format!("example.com/{number}")).collect();
        let deleted_at = json!("2026-01-01T00:00:00Z");
        assert_eq!(finalizers(json!(names), deleted_at.clone()).as_deref(), Some(&names[..FINALIZERS_MAX]));
        assert_eq!(finalizers(json!(names[..1]), deleted_at.clone()).as_deref(), Some(&names[..1]));
        assert_eq!(finalizers(Value::Null, deleted_at), None);
        assert_eq!(finalizers(json!(names), Value::Null), None, "no one reads them");
    }
}
