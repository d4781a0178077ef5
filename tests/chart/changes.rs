//! What a change of the values does to an installed release, with Helm 3 and Helm 4.

use anyhow::{Context, Result};
use testbed::namespace::Namespace;

use crate::chart;

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
