//! The custom resources of the documentation are valid.

use itwin_api::{authority::ITwinAuthority, credential::ITwinServiceCredential};
use itwin_core::template;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{none, yaml};

/// Reports what of `written` is not in `decoded`: a type drops a field that it does not know.
fn lost(written: &Value, decoded: &Value, path: &str, wrong: &mut Vec<String>) {
    match (written, decoded) {
        (Value::Object(written), Value::Object(decoded)) => {
            for (name, value) in written {
                match decoded.get(name) {
                    Some(decoded) => lost(value, decoded, &format!("{path}.{name}"), wrong),
                    None => wrong.push(format!("{path}.{name} is no field")),
                }
            }
        }
        (Value::Array(written), Value::Array(decoded)) => {
            for (at, (written, decoded)) in written.iter().zip(decoded).enumerate() {
                lost(written, decoded, &format!("{path}[{at}]"), wrong);
            }
        }
        _ => {}
    }
}

fn through<T: DeserializeOwned + Serialize>(object: &Value, place: &str, wrong: &mut Vec<String>) {
    match serde_json::from_value::<T>(object.clone()) {
        Err(error) => wrong.push(format!("{place}: {error}")),
        Ok(typed) => lost(object, &serde_json::to_value(typed).expect("JSON"), place, wrong),
    }
}

#[test]
fn custom_resources_are_valid() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (place, _, objects) in yaml() {
        for object in objects {
            match object["kind"].as_str() {
                Some("ITwinAuthority") => through::<ITwinAuthority>(&object, &place, &mut wrong),
                Some("ITwinServiceCredential") => {
                    through::<ITwinServiceCredential>(&object, &place, &mut wrong);
                    let credential = serde_json::from_value::<ITwinServiceCredential>(object).ok();
                    let templates = credential.and_then(|credential| credential.spec.secret_template);
                    let refused = template::check(templates.as_ref()).err();
                    wrong.extend(refused.map(|rejection| format!("{place}: {}", rejection.message)));
                }
                _ => continue,
            }
            count += 1;
        }
    }
    none(&wrong);
    assert!(count > 8, "only {count} objects were found");
}
