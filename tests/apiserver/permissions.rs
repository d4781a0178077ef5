//! The chart grants exactly what the operator uses, as the API server's audit log shows it.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use serde_json::Value;
use stage::{INSTALLATION, Stage, eventually};

/// Other tests use what is granted; each of them ends before this.
const OTHERS: Duration = Duration::from_secs(150);

type Use = (String, String, String);

/// Verb, API group and resource of each rule.
fn granted_by(role: &Value) -> BTreeSet<Use> {
    let words = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let mut granted = BTreeSet::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                granted.extend(words(&rule["verbs"]).into_iter().map(|verb| (verb, group.clone(), resource.clone())));
            }
        }
    }
    granted
}

/// What the API server let the operators do, and what it refused them.
fn used(stage: &Stage) -> Result<(BTreeSet<Use>, Vec<Use>)> {
    let (mut used, mut refused) = (BTreeSet::new(), Vec::new());
    for line in std::fs::read_to_string(stage.directory.join("audit.log"))?.lines() {
        // the last line may be half written
        let Ok(entry) = serde_json::from_str::<Value>(line) else { continue };
        let object = &entry["objectRef"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let resource = match object["subresource"].as_str() {
            Some(sub) => format!("{}/{sub}", text(&object["resource"])),
            None => text(&object["resource"]),
        };
        let entry_use = (text(&entry["verb"]), text(&object["apiGroup"]), resource);
        // a test takes the Lease away from a leader
        if entry["responseStatus"]["code"] == 403 && object["resource"] == "leases" {
            continue;
        }
        if entry["responseStatus"]["code"] == 403 {
            refused.push(entry_use);
        } else {
            used.insert(entry_use);
        }
    }
    Ok((used, refused))
}

#[tokio::test]
async fn role_holds_what_is_used_and_nothing_else() -> Result<()> {
    let stage = Stage::current()?;
    // read again and again: a test takes the Lease's permissions away for a moment
    let granted = async || -> Result<BTreeSet<Use>> {
        let roles = ["get", "clusterrole,role", INSTALLATION, "--namespace", INSTALLATION, "-o", "json"];
        let roles: Value = serde_json::from_str(&stage.kubectl(&roles).await?)?;
        Ok(roles["items"].as_array().into_iter().flatten().flat_map(granted_by).collect())
    };
    assert!(!granted().await?.is_empty());
    let result = eventually("the use of everything that is granted", OTHERS, async || {
        let granted = granted().await.ok()?;
        used(&stage).ok().filter(|(used, _)| *used == granted)
    });
    if let Err(error) = result.await {
        anyhow::bail!("{error}; granted: {:?}, used: {:?}", granted().await?, used(&stage)?.0);
    }
    let (_, refused) = used(&stage)?;
    assert!(refused.is_empty(), "the operator tried what it may not: {refused:?}");
    Ok(())
}
