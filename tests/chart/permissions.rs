//! What the chart grants to the operator and to users.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use testbed::{INSTALLATION, Testbed, eventually, namespace::Namespace};

use crate::{SOON, chart, file, objects, of_kind};

/// The verbs that a role allows on a resource.
fn verbs(role: &Value, resource: &str) -> Vec<String> {
    let rules = role["rules"].as_array().into_iter().flatten();
    let rules = rules.filter(|rule| rule["resources"].as_array().is_some_and(|names| names.contains(&json!(resource))));
    let verbs = rules.flat_map(|rule| rule["verbs"].as_array().into_iter().flatten());
    verbs.filter_map(|verb| verb.as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn ca_bundles_that_the_values_name_may_be_read_and_no_others() -> Result<()> {
    let testbed = Testbed::current()?;
    let ca_roles = async |arguments: &[&str]| -> Result<Vec<Value>> {
        let objects = objects(&testbed, "roles", arguments).await?;
        let roles = of_kind(&objects, "Role").into_iter().cloned();
        Ok(roles
            .filter(|role| role["metadata"]["name"].as_str().is_some_and(|name| name.ends_with("-ca-bundles")))
            .collect())
    };
    assert!(ca_roles(&[]).await?.is_empty(), "no authority refers to any");
    let roles = ca_roles(&[&file("everything.yaml")?]).await?;
    let [role] = &roles[..] else { bail!("one Role: {roles:?}") };
    assert_eq!(role["metadata"]["namespace"], "roles");
    let rule = |resource: &str, names: Value| json!({"apiGroups": [""], "resources": [resource], "resourceNames": names, "verbs": ["get"]});
    let expected = [rule("configmaps", json!(["corporate-ca", "other-ca"])), rule("secrets", json!(["ca"]))];
    assert_eq!(role["rules"], json!(expected));
    Ok(())
}

#[tokio::test]
async fn listed_namespaces_are_the_only_ones_with_permissions_on_secrets() -> Result<()> {
    let namespace = Namespace::new("chart-scoped").await?;
    let (testbed, name) = (&namespace.testbed, &namespace.name);
    let set = format!("watchNamespaces={{{name},default}}");
    let objects = objects(testbed, name, &["--set", &set]).await?;
    for role in of_kind(&objects, "ClusterRole") {
        assert!(verbs(role, "secrets").is_empty(), "{} allows Secrets everywhere", role["metadata"]["name"]);
        assert!(verbs(role, "namespaces").is_empty());
    }
    let roles = of_kind(&objects, "Role");
    let with_secrets: Vec<&str> = roles
        .iter()
        .filter(|role| !verbs(role, "secrets").is_empty())
        .filter_map(|role| role["metadata"]["namespace"].as_str())
        .collect();
    assert_eq!(with_secrets, [name.as_str(), "default"]);
    let of_events = |role: &&&Value| verbs(role, "events") == ["create", "patch"];
    assert_eq!(roles.iter().filter(of_events).count(), 2, "the Role of `default` covers events about authorities");

    // and from the point of view of the API server
    let chart = chart();
    let set = format!("watchNamespaces={{{name}}},crds.enabled=false,replicaCount=0,authorities.bentley-ims=null");
    testbed.helm(&["install", name, &chart, "--namespace", name, "--set", &set]).await?;
    let user = format!("--as=system:serviceaccount:{name}:{name}-{INSTALLATION}");
    let may = async |arguments: &[&str]| {
        // it ends with an error if the answer is no
        let answer = testbed.kubectl(&[&["auth", "can-i", &user], arguments].concat()).await;
        answer.is_ok_and(|answer| answer.starts_with("yes"))
    };
    eventually("the permissions", SOON, async || may(&["list", "secrets", "--namespace", name]).await.then_some(()))
        .await?;
    assert!(may(&["get", &format!("namespaces/{name}"), "--namespace", name]).await);
    assert!(may(&["list", "itwinauthorities.credentials.itwin.dev"]).await);
    assert!(may(&["patch", "itwinauthorities.credentials.itwin.dev", "--subresource=status"]).await);
    // events about authorities, which have no namespace
    for verb in ["create", "patch"] {
        assert!(may(&[verb, "events.events.k8s.io", "--namespace", "default"]).await);
        assert!(!may(&[verb, "events.events.k8s.io", "--namespace", "kube-system"]).await);
    }
    assert!(!may(&["list", "secrets", "--namespace", "default"]).await);
    assert!(!may(&["list", "secrets", "--all-namespaces"]).await);
    assert!(!may(&["delete", "secrets", "--namespace", name]).await);
    assert!(!may(&["list", "itwinservicecredentials.credentials.itwin.dev", "--all-namespaces"]).await);
    testbed.helm(&["uninstall", name, "--namespace", name]).await?;
    Ok(())
}

#[tokio::test]
async fn permissions_follow_what_is_switched_on() -> Result<()> {
    let testbed = Testbed::current()?;
    let role = async |set: &str| -> Result<(Value, usize)> {
        let objects = objects(&testbed, INSTALLATION, &["--set", set]).await?;
        let named = |kind: &str| {
            let found = of_kind(&objects, kind).into_iter().filter(|role| role["metadata"]["name"] == INSTALLATION);
            found.cloned().collect::<Vec<Value>>()
        };
        Ok((named("ClusterRole").pop().context("no ClusterRole")?, named("Role").len()))
    };
    let (all, leases) = role("replicaCount=2").await?;
    assert_eq!(verbs(&all, "secrets"), ["get", "list", "watch", "create", "patch"]);
    assert!(verbs(&all, "deployments").is_empty());
    assert_eq!(leases, 1);
    let (unwatched, leases) =
        role("watchSecrets=false,leaderElection.enabled=false,rolloutRestart.enabled=true").await?;
    assert_eq!(verbs(&unwatched, "secrets"), ["get", "create", "patch"]);
    assert_eq!(verbs(&unwatched, "deployments"), ["get", "patch"]);
    assert_eq!(verbs(&unwatched, "rollouts"), ["get", "patch"]);
    assert_eq!(leases, 0);
    let none = objects(&testbed, INSTALLATION, &["--set", "rbac.create=false"]).await?;
    assert!(of_kind(&none, "ClusterRole").is_empty() && of_kind(&none, "RoleBinding").is_empty());
    Ok(())
}

#[tokio::test]
async fn cluster_roles_of_users_include_credentials_and_protect_authorities() -> Result<()> {
    let namespace = Namespace::new("chart-people").await?;
    for role in ["view", "edit", "admin"] {
        let (binding, user) = (format!("--clusterrole={role}"), format!("--user={role}-of-{}", namespace.name));
        namespace.kubectl(&["create", "rolebinding", role, &binding, &user]).await?;
    }
    let may = async |role: &str, verb: &str| {
        let user = format!("--as={role}-of-{}", namespace.name);
        let resource = "itwinservicecredentials.credentials.itwin.dev";
        namespace.kubectl(&["auth", "can-i", verb, resource, &user]).await.is_ok_and(|answer| answer.starts_with("yes"))
    };
    for (role, verb) in [("view", "watch"), ("edit", "create"), ("admin", "create")] {
        eventually("the aggregated roles", SOON, async || may(role, verb).await.then_some(())).await?;
    }
    for (role, reads, writes) in [("view", true, false), ("edit", true, true), ("admin", true, true)] {
        for verb in ["get", "list", "watch"] {
            assert_eq!(may(role, verb).await, reads, "{role} {verb}");
        }
        for verb in ["create", "update", "patch", "delete"] {
            assert_eq!(may(role, verb).await, writes, "{role} {verb}");
        }
    }
    for kind in ["clusterrole/view", "clusterrole/edit", "clusterrole/admin"] {
        let role: Value = serde_json::from_str(&namespace.kubectl(&["get", kind, "-o", "json"]).await?)?;
        let verbs = verbs(&role, "itwinauthorities");
        assert!(verbs.iter().all(|verb| ["get", "list", "watch"].contains(&verb.as_str())), "{kind}: {verbs:?}");
    }
    Ok(())
}

#[tokio::test]
async fn authorities_are_readable_by_all_only_where_the_administrator_says_so() -> Result<()> {
    let testbed = Testbed::current()?;
    let bound = async |set: &str| -> Result<Vec<Value>> {
        let objects = objects(&testbed, "readers", &["--set", set]).await?;
        let to_all = |object: &&&Value| object["subjects"][0]["name"] == "system:authenticated";
        let bindings = of_kind(&objects, "ClusterRoleBinding");
        let names = bindings.iter().filter(to_all).map(|binding| binding["roleRef"]["name"].clone());
        let names: Vec<Value> = names.collect();
        let roles = of_kind(&objects, "ClusterRole");
        Ok(roles.into_iter().filter(|role| names.contains(&role["metadata"]["name"])).cloned().collect())
    };
    assert!(bound("replicaCount=2").await?.is_empty());
    let roles = bound("rbac.authenticatedUsersReadAuthorities=true").await?;
    assert_eq!(roles.len(), 1);
    assert_eq!(verbs(&roles[0], "itwinauthorities"), ["get", "list", "watch"]);
    assert_eq!(roles[0]["rules"].as_array().map(Vec::len), Some(1));
    Ok(())
}
