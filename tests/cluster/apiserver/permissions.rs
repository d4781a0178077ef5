//! The chart grants exactly what the operator uses, as the API server's audit log shows it.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use serde_json::Value;
use testbed::{
    INSTALLATION, Testbed,
    audit::{Use, granted, used},
    eventually,
};

/// Other tests use what the role grants; each of them ends before this.
const OTHERS: Duration = Duration::from_secs(150);

#[tokio::test]
async fn role_holds_what_is_used_and_nothing_else() -> Result<()> {
    let testbed = Testbed::current()?;
    // read repeatedly: a test removes the Lease's permissions for a moment
    let granted = async || -> Result<BTreeSet<Use>> {
        let roles = ["get", "clusterrole,role", INSTALLATION, "--namespace", INSTALLATION, "-o", "json"];
        let roles: Value = serde_json::from_str(&testbed.kubectl(&roles).await?)?;
        Ok(roles["items"].as_array().into_iter().flatten().flat_map(|role| granted(&role["rules"])).collect())
    };
    assert!(!granted().await?.is_empty());
    let used = || -> Result<(BTreeSet<Use>, Vec<Use>)> {
        let (mut used, mut refused) = used(&testbed)?;
        // the test of CA certificates that are followed grants this itself; tests of the chart hold what its values grant
        let is_of_the_role = |(verb, _, resource): &Use| verb != "get" || resource != "configmaps";
        used.retain(is_of_the_role);
        refused.retain(is_of_the_role);
        Ok((used, refused))
    };
    let result = eventually("the use of everything that is granted", OTHERS, async || {
        let granted = granted().await.ok()?;
        used().ok().filter(|(used, _)| *used == granted)
    });
    if let Err(error) = result.await {
        anyhow::bail!("{error}; granted: {:?}, used: {:?}", granted().await?, used()?.0);
    }
    let (_, mut refused) = used()?;
    // a test takes the Lease from a leader
    refused.retain(|(_, _, resource)| resource != "leases");
    assert!(refused.is_empty(), "the operator tried what is forbidden: {refused:?}");
    Ok(())
}
