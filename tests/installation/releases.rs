//! Releases of Helm 3 and Helm 4: how they are rolled out and back, changed, removed and taken over.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testbed::operator::Operator;

use crate::{Cluster, DEAD, PROGRAM, chart, crds, helm, refused};

async fn rolls_out_and_back(version: &str) -> Result<()> {
    let cluster = Cluster::new(&format!("helm{version}-dead-authority")).await?;
    let helm = helm(&cluster.testbed, version);
    let verbose = ["--set", "logLevel=debug"];
    let three = ["--set", "logLevel=debug,authorities.ims.maxConcurrentRequests=3"];
    cluster.helm(&helm, "install", "prod", &[]).await.context("install")?;
    let _operator = Operator::start(&cluster.testbed, Path::new(PROGRAM), "", &[]).await?;
    cluster.authority_is_not_ready().await?;
    let (uid, before) = cluster.authority().await?;
    cluster.helm(&helm, "upgrade", "prod", &verbose).await.context("upgrade")?;
    cluster.helm(&helm, "upgrade", "prod", &three).await.context("change of the authority")?;
    assert_eq!(cluster.authority().await?, (uid.clone(), 3), "it is changed in place");
    cluster.authority_is_not_ready().await?;
    cluster.helm(&helm, "rollback", "prod", &["2"]).await.context("rollback")?;
    assert_eq!(cluster.authority().await?, (uid.clone(), before), "it is restored in place");
    cluster.helm(&helm, "upgrade", "prod", &["--set", "authorities.ims=null"]).await.context("removal")?;
    cluster.helm(&helm, "uninstall", "prod", &[]).await.context("uninstall")?;
    assert_eq!(cluster.authority().await?.0, uid, "it is kept");
    cluster.authority_is_not_ready().await?;
    cluster.helm(&helm, "install", "prod", &[]).await.context("install again")?;
    assert_eq!(cluster.authority().await?, (uid, before), "it is taken over");
    Ok(())
}

#[tokio::test]
async fn rollout_and_rollback_with_helm_4_do_not_depend_on_an_authorization_server() -> Result<()> {
    rolls_out_and_back("4").await
}

#[tokio::test]
async fn rollout_and_rollback_with_helm_3_do_not_depend_on_an_authorization_server() -> Result<()> {
    rolls_out_and_back("3").await
}

/// A release that Helm 3 created, after the upgrade with the flags that the documentation names.
#[tokio::test]
async fn helm_4_takes_over_a_release_of_helm_3() -> Result<()> {
    let cluster = Cluster::new("helm-both").await?;
    let [four, three] = ["4", "3"].map(|version| helm(&cluster.testbed, version));
    cluster.helm(&three, "install", "prod", &[]).await?;
    let _operator = Operator::start(&cluster.testbed, Path::new(PROGRAM), "", &[]).await?;
    cluster.helm(&three, "upgrade", "prod", &[]).await?;
    cluster.authority_is_not_ready().await?;
    let (uid, before) = cluster.authority().await?;
    let limit = |number: u64| format!("authorities.ims.maxConcurrentRequests={number}");
    let flags = ["--server-side=true", "--force-conflicts", "--wait=hookOnly", "--set", &limit(3)];
    cluster.helm(&four, "upgrade", "prod", &flags).await.context("the first upgrade with Helm 4")?;
    assert_eq!(cluster.authority().await?, (uid.clone(), 3));
    for number in [4, 5] {
        cluster.helm(&four, "upgrade", "prod", &["--set", &limit(number)]).await.context("the next upgrade")?;
        assert_eq!(cluster.authority().await?, (uid.clone(), number));
    }
    cluster.helm(&four, "rollback", "prod", &[]).await.context("rollback")?;
    assert_eq!(cluster.authority().await?, (uid.clone(), 4));
    // the authority of a revision that Helm 3 made is no hook
    refused(cluster.helm(&four, "rollback", "prod", &["2", "--timeout=5s"])).await?;
    let back = ["2", "--server-side=true", "--force-conflicts", "--wait=hookOnly"];
    cluster.helm(&four, "rollback", "prod", &back).await.context("a revision of Helm 3")?;
    assert_eq!(cluster.authority().await?, (uid, before));
    Ok(())
}

#[tokio::test]
async fn helm_4_takes_over_an_authority_that_kubectl_applied() -> Result<()> {
    let cluster = Cluster::new("helm4-kubectl-authority").await?;
    let helm = helm(&cluster.testbed, "4");
    cluster.testbed.kubectl(&["apply", "--server-side", "-f", &crds()]).await?;
    cluster.testbed.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", &crds()]).await?;
    let _operator = Operator::start(&cluster.testbed, Path::new(PROGRAM), "", &[]).await?;
    let authority = json!({"apiVersion": "credentials.itwin.dev/v1alpha1", "kind": "ITwinAuthority",
        "metadata": {"name": "ims"}, "spec": {"issuer": DEAD}});
    cluster.testbed.kubectl_with(&["apply", "-f", "-"], Some(&authority.to_string())).await?;
    cluster.authority_is_not_ready().await?;
    let (uid, before) = cluster.authority().await?;
    // it is no hook yet
    let take = ["--take-ownership", "--wait=hookOnly"];
    cluster.helm(&helm, "install", "prod", &take).await.context("install")?;
    assert_eq!(cluster.authority().await?, (uid.clone(), before));
    cluster.helm(&helm, "upgrade", "prod", &["--set", "logLevel=debug"]).await.context("an upgrade, which waits")?;
    // kubectl owns the field too, and Helm forces no hook
    let limit = ["--set", "authorities.ims.maxConcurrentRequests=3"];
    let said = refused(cluster.helm(&helm, "upgrade", "prod", &limit)).await?;
    ensure!(said.contains("conflict with") && said.contains(".spec.maxConcurrentRequests"), "{said}");
    let edit = ["patch", "itauth", "ims", "--type=merge", "-p", r#"{"spec":{"maxConcurrentRequests":3}}"#];
    cluster.testbed.kubectl(&edit).await?;
    cluster.helm(&helm, "upgrade", "prod", &limit).await.context("after the same change with kubectl")?;
    assert_eq!(cluster.authority().await?, (uid.clone(), 3));
    // in the first revision, it is no hook
    refused(cluster.helm(&helm, "rollback", "prod", &["1", "--timeout=5s"])).await?;
    cluster.helm(&helm, "rollback", "prod", &["1", "--wait=hookOnly"]).await.context("rollback")?;
    assert_eq!(cluster.authority().await?.0, uid);
    Ok(())
}

/// An object that no API server accepts, so that an upgrade fails after it was rendered.
const INVALID: &str = r#"extraObjects=[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"Not_A_Name"}}]"#;

#[tokio::test]
async fn change_that_helm_would_lose_fails_instead() -> Result<()> {
    let cluster = Cluster::new("helm-lost-change").await?;
    let helm = cluster.testbed.helm3.clone();
    // the API server adds a field to a part of this spec
    let signed = "authorities.ims.clientAuthentication=private_key_jwt,authorities.ims.clientAssertion.algorithm=ES256";
    let limit = |number: u64| format!("{signed},authorities.ims.maxConcurrentRequests={number}");
    let [two, three, four] = [2, 3, 4].map(limit);
    let lost = async |what: &str, set: &str, says: &str| -> Result<()> {
        let said = refused(cluster.helm(&helm, what, "prod", &["--set", set])).await?;
        ensure!(said.contains("ITwinAuthority ims") && said.contains(says), "{what} with {set}: {said}");
        Ok(())
    };
    let upgrade =
        async |set: &str| cluster.helm(&helm, "upgrade", "prod", &["--set", set]).await.context(set.to_owned());
    cluster.helm(&helm, "install", "prod", &["--set", &two]).await?;
    lost("upgrade", &three, "upgrade once").await?;
    // what a user added is no change of the values
    let edit = ["patch", "itauth", "ims", "--type=merge", "-p", r#"{"spec":{"requestsPerMinute":60}}"#];
    cluster.testbed.kubectl(&edit).await?;
    lost("upgrade", signed, "upgrade once").await.context("a field that is removed")?;
    let said = refused(cluster.helm(&helm, "upgrade", "prod", &["--set", &two, "--set-json", INVALID])).await?;
    ensure!(said.contains("Not_A_Name"), "{said}");
    lost("upgrade", &three, "upgrade once").await.context("after an upgrade that failed")?;
    upgrade(&two).await?;
    upgrade(&three).await?;
    assert_eq!(cluster.authority().await?.1, 3);

    cluster.helm(&helm, "rollback", "prod", &["1"]).await?;
    lost("upgrade", &four, "upgrade once").await.context("after a rollback to the first revision")?;
    upgrade(&three).await?;
    upgrade("authorities.ims=null").await?;
    lost("upgrade", &four, "upgrade once").await.context("after it was left out")?;
    upgrade(&three).await?;
    upgrade(&four).await?;
    assert_eq!(cluster.authority().await?.1, 4);

    cluster.helm(&helm, "uninstall", "prod", &[]).await?;
    lost("install", &three, "then upgrade").await.context("after an uninstall")?;
    cluster.helm(&helm, "install", "prod", &["--set", &four]).await?;
    upgrade(&three).await?;
    assert_eq!(cluster.authority().await?.1, 3);
    Ok(())
}

#[tokio::test]
async fn helm_4_changes_an_authority_that_the_release_did_not_contain() -> Result<()> {
    let cluster = Cluster::new("helm4-change").await?;
    let helm = cluster.testbed.helm.clone();
    let limit = |number: u64| format!("authorities.ims.maxConcurrentRequests={number}");
    let upgrade =
        async |set: &str| cluster.helm(&helm, "upgrade", "prod", &["--set", set]).await.context(set.to_owned());
    cluster.helm(&helm, "install", "prod", &["--set", &limit(2)]).await?;
    refused(cluster.helm(&helm, "upgrade", "prod", &["--set-json", INVALID])).await?;
    upgrade(&limit(3)).await?;
    assert_eq!(cluster.authority().await?.1, 3);
    upgrade("authorities.ims=null").await?;
    upgrade(&limit(4)).await?;
    assert_eq!(cluster.authority().await?.1, 4);
    cluster.helm(&helm, "uninstall", "prod", &[]).await?;
    cluster.helm(&helm, "install", "prod", &["--set", &limit(5)]).await?;
    assert_eq!(cluster.authority().await?.1, 5);
    Ok(())
}

async fn keeps_restrictions(version: &str) -> Result<()> {
    let cluster = Cluster::new(&format!("helm{version}-restrictions")).await?;
    let helm = helm(&cluster.testbed, version);
    let chart = chart();
    // no value is set below one that is null, as this authority is in other tests
    let upgrade = async |flag: &str, set: &str| {
        let release = ["upgrade", "prod", &chart, "--install", "--create-namespace", "--namespace", "operator"];
        let settings = ["--wait", "--timeout", "60s", "--set", "replicaCount=0", flag, "--set", set];
        cluster.testbed.helm_with(&helm, &[&release[..], &settings].concat()).await
    };
    let default = "authorities.bentley-ims.issuer=https://ims.bentley.com";
    let allowed = async || {
        let path = "jsonpath={.spec.allowedScopes}{.spec.allowedAudiences}";
        cluster.testbed.kubectl(&["get", "itauth", "bentley-ims", "-o", path]).await
    };
    let rendered = async || -> Result<bool> {
        let get = async |what: &str| {
            cluster.testbed.helm_with(&helm, &["get", what, "prod", "--namespace", "operator"]).await
        };
        Ok([get("manifest").await?, get("hooks").await?].iter().any(|text| text.contains("name: \"bentley-ims\"")))
    };
    upgrade("--reset-values", default).await.context("install")?;
    // what a user added is not lost, so that it is no reason to refuse; and a value that Helm has from then on does not change
    let restrictions = r#"{"spec":{"allowedScopes":["y"],"allowedAudiences":["x"]}}"#;
    let edit = ["patch", "itauth", "bentley-ims", "--type=merge", "-p", restrictions];
    cluster.testbed.kubectl(&edit).await?;
    upgrade("--reset-values", default).await.context("after an edit")?;
    upgrade("--reset-values", "authorities.bentley-ims.allowedAudiences={x}").await.context("a restriction")?;
    assert_eq!(allowed().await?, r#"["y"]["x"]"#);
    assert!(rendered().await?);

    let reuse = async |set: &str| upgrade("--reset-then-reuse-values", set).await;
    let said = refused(reuse("authorities.bentley-ims=null")).await?;
    ensure!(said.contains("allowedAudiences:"), "{said}");
    ensure!(said.contains("set authorities.bentley-ims=false"), "{said}");
    assert_eq!(allowed().await?, r#"["y"]["x"]"#);
    reuse("authorities.bentley-ims=false").await.context("left out")?;
    reuse("logLevel=debug,authorities.bentley-ims=false").await.context("left out again")?;
    assert_eq!(allowed().await?, r#"["y"]["x"]"#, "Helm deletes no authority");
    assert!(!rendered().await?);
    Ok(())
}

#[tokio::test]
async fn null_of_a_restricted_authority_does_not_open_it_with_helm_4() -> Result<()> {
    keeps_restrictions("4").await
}

#[tokio::test]
async fn null_of_a_restricted_authority_does_not_open_it_with_helm_3() -> Result<()> {
    keeps_restrictions("3").await
}

async fn takes_over(version: &str) -> Result<()> {
    let cluster = Cluster::new(&format!("helm{version}-take-ownership")).await?;
    let helm = helm(&cluster.testbed, version);
    // CRDs that kubectl applied
    cluster.testbed.kubectl(&["apply", "--server-side", "-f", &crds()]).await?;
    cluster.testbed.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", &crds()]).await?;
    let take = ["--take-ownership"];
    let said = refused(cluster.helm(&helm, "install", "first", &[])).await?;
    assert!(said.contains("invalid ownership metadata"), "{said}");
    cluster.helm(&helm, "install", "first", &take).await.context("over CRDs of kubectl")?;

    // and those of a release of another name, which is gone
    let (uid, _) = cluster.authority().await?;
    cluster.helm(&helm, "uninstall", "first", &[]).await?;
    let said = refused(cluster.helm(&helm, "install", "second", &[])).await?;
    assert!(said.contains("invalid ownership metadata"), "{said}");
    cluster.helm(&helm, "install", "second", &take).await.context("over a release of another name")?;
    assert_eq!(cluster.authority().await?.0, uid);

    // not the authority of a release that is installed
    let chart = chart();
    let settings =
        format!("crds.enabled=false,replicaCount=0,authorities.bentley-ims=null,authorities.ims.issuer={DEAD}");
    let third = ["install", "third", &chart, "--namespace", "third", "--create-namespace", "--set", &settings];
    let said = refused(cluster.testbed.helm_with(&helm, &third)).await?;
    let expected =
        if version == "4" { "belongs to the release second in namespace operator" } else { "invalid ownership" };
    assert!(said.contains(expected), "{said}");
    Ok(())
}

#[tokio::test]
async fn helm_4_takes_over_what_remained_of_another_release() -> Result<()> {
    takes_over("4").await
}

#[tokio::test]
async fn helm_3_takes_over_what_remained_of_another_release() -> Result<()> {
    takes_over("3").await
}
