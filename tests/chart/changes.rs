//! What a change of the values does to an installed release, and a second release next to it, with Helm 3 and Helm 4.

use anyhow::{Context, Result};
use testbed::namespace::Namespace;

use crate::{chart, refused};

/// Values with which a release has nothing outside of its namespace, and no pods.
const QUIET: &str = "crds.enabled=false,authorities.bentley-ims=null,rbac.create=false,replicaCount=0";

/// Changes that set another one of fields of which only one may be set, and the strategy after each of them. The API
/// server adds defaults to such fields, which Helm must be able to remove.
const CHANGES: [(&str, &str); 8] = [
    ("logLevel=info", "RollingUpdate"),
    ("leaderElection.enabled=false", "Recreate"),
    ("logLevel=debug", "RollingUpdate"),
    ("strategy.type=Recreate", "Recreate"),
    ("strategy.rollingUpdate.maxSurge=1", "RollingUpdate"),
    ("leaderElection.enabled=false", "Recreate"),
    ("replicaCount=2,podDisruptionBudget.minAvailable=1,livenessProbe.enabled=false", "RollingUpdate"),
    ("replicaCount=2,podDisruptionBudget.maxUnavailable=50%", "RollingUpdate"),
];

#[tokio::test]
async fn values_that_exclude_each_other_can_be_changed_into_each_other() -> Result<()> {
    let namespace = Namespace::new("chart-changes").await?;
    let (testbed, chart) = (&namespace.testbed, chart());
    for (release, program) in [("three", &testbed.helm3), ("four", &testbed.helm)] {
        for (set, expected) in CHANGES {
            let values = format!("{QUIET},{set}");
            let upgrade = ["upgrade", "--install", release, &chart, "--namespace", &namespace.name, "--set", &values];
            testbed.helm_with(program, &upgrade).await.with_context(|| format!("{release}: {set}"))?;
            let strategy = ["get", "deployments", "-o", "jsonpath={.items[*].spec.strategy.type}"];
            assert_eq!(namespace.kubectl(&strategy).await?.trim(), expected, "{release}: {set}");
        }
        testbed.helm_with(program, &["uninstall", release, "--namespace", &namespace.name]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn second_release_in_a_namespace_is_refused_unless_it_elects_no_leader() -> Result<()> {
    let namespace = Namespace::new("chart-second").await?;
    let (testbed, chart) = (&namespace.testbed, chart());
    for program in [&testbed.helm3, &testbed.helm] {
        let upgrade = async |release: &str, set: &str| {
            let values = format!("{QUIET},{set}");
            let upgrade = ["upgrade", "--install", release, &chart, "--namespace", &namespace.name, "--set", &values];
            testbed.helm_with(program, &upgrade).await
        };
        let uninstall = async |release: &str| {
            testbed.helm_with(program, &["uninstall", release, "--namespace", &namespace.name]).await
        };
        let (alone, elects) = ("leaderElection.enabled=false", "leaderElection.enabled=true");
        upgrade("first", elects).await.context("install")?;
        let said = refused("a second release", upgrade("second", elects)).await?;
        let expected = format!("namespace {} contains the release first of this chart", namespace.name);
        assert!(said.contains(&expected), "{said}");
        upgrade("first", elects).await.context("the same release again")?;
        // its Lease is elsewhere, or it has none
        upgrade("second", alone).await.context("without a Lease")?;
        upgrade("second", "extraArgs={--lease-namespace=default}").await.context("a Lease elsewhere")?;
        upgrade("first", elects).await.context("next to a release that does not share the Lease")?;
        refused("a second release that elects", upgrade("second", elects)).await?;
        uninstall("first").await?;
        upgrade("second", elects).await.context("after the first one is gone")?;
        uninstall("second").await?;
    }
    Ok(())
}
