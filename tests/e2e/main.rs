//! The operator as its users have it: image and chart from a registry, in pods of a real node, installed by Helm, and a
//! pod that reads the token from its mounted file each second. `make e2e` runs this test.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

mod installation;
mod permissions;
mod reader;
mod release;
mod team;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use testbed::{Testbed, eventually};

use installation::Installation;
use reader::Observed;
use team::{SHORT_LIFETIME, Team};

/// Limit for the start or the deletion of a pod on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// The contract: another replica takes over from a stopped leader immediately, and from a dead one within this.
const FOLLOWED: Duration = Duration::from_secs(20);
/// For how many lifetimes of its token a pod is observed.
const LIFETIMES: i64 = 3;
/// The credentials with tokens of an hour: one request each, and one for each deletion of the Secret.
const ISSUED: [(&str, usize); 2] = [("steady", 1), ("late", 1 + 2)];

fn step(start: Instant, what: &str) {
    eprintln!("e2e: {:>5.1} s  {what}", start.elapsed().as_secs_f32());
}

#[tokio::test]
#[ignore = "needs a node for pods: run `make e2e`"]
async fn pod_always_reads_a_valid_token_through_upgrade_failover_and_uninstall() -> Result<()> {
    let start = Instant::now();
    let testbed = Testbed::current()?;
    let archive = std::env::var_os("E2E_IMAGE").map(PathBuf::from).context("E2E_IMAGE names the image's archive")?;
    let mut installation = Installation::prepare(&testbed, &archive).await?;
    step(start, "image and chart released to a registry");

    installation.install().await?;
    let pods = installation.pods_ready().await?;
    assert_eq!(pods.len(), 2, "two replicas by default");
    installation.only_one_leads().await?;
    installation.image_was_pulled().await?;
    step(start, "chart installed, image pulled by its digest: two pods Ready, one leads");

    let team = Team::new(&testbed).await?;
    let early = team.start_reader("early", "late").await?;
    early.waits_for_its_secret().await?;
    team.credential("short", SHORT_LIFETIME, "35s").await?;
    let reader = team.start_reader("reader", "short").await?;
    team.credential("steady", 3600, "20m").await?;
    reader.runs().await?;
    step(start, "a pod reads a token that is valid for about a minute");
    team.credential("late", 3600, "20m").await?;
    early.runs().await?;
    step(start, "a pod that was created before its credential runs as well");

    team.restore_twice("late").await?;
    team.issued(&ISSUED).await?;
    step(start, "a Secret was deleted twice and restored each time");

    installation.upgrade().await?;
    installation.pods_ready().await?;
    installation.only_one_leads().await?;
    team.issued(&ISSUED).await?;
    step(start, "upgraded to another release, no token requested");

    let leader = installation.only_one_leads().await?;
    let deleted = Instant::now();
    installation.delete_pod(&leader).await?;
    installation.another_pod_leads(&leader).await?;
    let took = deleted.elapsed();
    assert!(took < FOLLOWED, "another one leads after {took:?}");
    installation.pods_ready().await?;
    team.issued(&ISSUED).await?;
    step(start, &format!("leader deleted, another one led {:.1} s later, no token requested", took.as_secs_f32()));

    let memory = installation.memory().await?;
    step(start, &format!("resident memory of the operators: {memory:?} bytes"));
    permissions::are_what_is_used(&installation).await?;
    step(start, "the permissions are exactly those that are used");

    let before = team.tokens().await?;
    installation.uninstall().await?;
    assert_eq!(installation.crds().await?, 2, "crds.keep keeps the CRDs");
    let after = team.tokens().await?;
    assert_eq!(after["steady"], before["steady"], "the users' Secrets are kept");
    assert_eq!(after.len(), before.len());
    step(start, "chart uninstalled; CRDs, credentials and Secrets are kept");
    installation.install().await?;
    installation.pods_ready().await?;
    installation.only_one_leads().await?;
    team.renewed("short").await?;
    team.issued(&ISSUED).await?;
    step(start, "installed again; no token requested");

    let what = "a pod that has read its token for several lifetimes";
    let limit = Duration::from_secs(u64::from(SHORT_LIFETIME)) * 4;
    eventually(what, limit, async || {
        let observed = Observed::of(&reader.log().await.ok()?);
        (observed.seconds >= LIFETIMES * i64::from(SHORT_LIFETIME)).then_some(())
    })
    .await?;
    step(start, &format!("a pod has read its token for {LIFETIMES} lifetimes"));
    let observed = Observed::of(&reader.log().await?);
    step(start, &format!("what the pod read: {observed}"));
    installation.test().await?;
    step(start, "helm test succeeded");
    observed.assert_always_valid();
    Observed::of(&early.log().await?).assert_always_valid();
    team.issued_only_when_due("short").await?;
    Ok(())
}
