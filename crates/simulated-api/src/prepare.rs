//! What a write can and cannot change, by resource and subresource.

use serde_json::{Value, json};

use crate::{
    object::{self, set_meta},
    request::Call,
    resources::{Resource, Rules},
};

/// Sets what the server decides about in a new object.
pub fn new_object(resource: &Resource, object: &mut Value) {
    if resource.counts_generations() {
        set_meta(object, "generation", json!(1));
    }
    match resource.rules {
        Rules::Custom => drop(object.as_object_mut().and_then(|fields| fields.remove("status"))),
        Rules::Workload => object["status"] = json!({}),
        Rules::Namespace => {
            object["spec"]["finalizers"] = json!(["kubernetes"]);
            object["status"] = json!({"phase": "Active"});
        }
        _ => {}
    }
}

/// Sets back what the subresource cannot change, and counts generations.
pub fn updated_object(call: &Call, old: &Value, new: &mut Value) {
    let is_status = call.subresource == "status";
    match call.resource.rules {
        Rules::Custom if is_status => {
            let status = new.as_object_mut().and_then(|fields| fields.remove("status"));
            let managed = object::remove_meta(new, "managedFields").unwrap_or_default();
            *new = old.clone();
            set_meta(new, "managedFields", managed);
            set_part(new, "status", status);
        }
        Rules::Workload if is_status => {
            new["spec"] = old["spec"].clone();
            set_meta(new, "labels", old["metadata"]["labels"].clone());
        }
        Rules::Namespace if is_status => new["spec"] = old["spec"].clone(),
        Rules::Custom | Rules::Workload => {
            set_part(new, "status", old.get("status").cloned());
            if is_new_generation(&call.resource, new, old) {
                set_meta(new, "generation", json!(object::generation(old) + 1));
            }
        }
        Rules::Namespace => {
            new["spec"] = old["spec"].clone();
            new["status"] = old["status"].clone();
        }
        _ => {}
    }
}

fn set_part(object: &mut Value, name: &str, part: Option<Value>) {
    let Some(fields) = object.as_object_mut() else { return };
    match part {
        Some(part) => drop(fields.insert(name.to_owned(), part)),
        None => drop(fields.remove(name)),
    }
}

/// Whether something changes that makes a new generation.
fn is_new_generation(resource: &Resource, new: &Value, old: &Value) -> bool {
    if resource.rules == Rules::Workload {
        // a Deployment's annotations are copied to its ReplicaSets
        let is_annotated = new["metadata"]["annotations"] != old["metadata"]["annotations"];
        return new["spec"] != old["spec"] || resource.kind == "Deployment" && is_annotated;
    }
    !object::fields_but(new, "metadata").eq(object::fields_but(old, "metadata"))
}
