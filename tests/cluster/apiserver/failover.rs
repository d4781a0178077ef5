//! Several replicas, one of which leads. All tests share one Lease, so they run one after the other.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chrono::{SecondsFormat, TimeDelta};
use itwin_credential_operator::clock::Clock;
use nix::sys::signal::Signal;
use serde_json::json;
use testbed::{INSTALLATION, Testbed, eventually, operator::Operator};
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    environment::TestEnvironment,
    fixture::{Fixture, NAME, PATIENCE, SOON},
};

static LEASE: Mutex<()> = Mutex::const_new(());

/// The contract: after the leader was killed, another one leads within this.
const AFTER_KILL: Duration = Duration::from_secs(20);
/// The same after it was stopped, measured by what a user observes: a token that the next one requested.
const AFTER_STOP: Duration = Duration::from_secs(2);
/// How long a test observes that nothing happens.
const WATCHED: Duration = Duration::from_secs(3);

struct Replicas {
    fixture: Fixture,
    _turn: MutexGuard<'static, ()>,
}

impl Replicas {
    /// A namespace with a Ready credential, and a leader.
    async fn new(prefix: &str) -> Result<Self> {
        let turn = LEASE.lock().await;
        let fixture = Fixture::bare_with(prefix, &ARGUMENTS).await?;
        fixture.with_surroundings().await?;
        fixture.apply_credential(&json!({})).await?;
        fixture.wait_ready().await?;
        leads(&fixture.operator, true, PATIENCE).await?;
        Ok(Self { fixture, _turn: turn })
    }

    async fn standby(&self) -> Result<Operator> {
        let standby = self.fixture.start_operator(&ARGUMENTS).await?;
        assert_eq!(standby.get("/healthz").await?, "ok\n");
        assert_eq!(standby.get("/readyz").await?, "ok\n");
        leads(&standby, false, SOON).await?;
        Ok(standby)
    }

    /// Requests a renewal; returns how long it took.
    async fn renewed(&self, limit: Duration) -> Result<Duration> {
        let old = self.fixture.token().await?;
        let value = self.fixture.token_requests().await?.len().to_string();
        let asked = Instant::now();
        self.fixture.renew_now(NAME, &value).await?;
        self.fixture.wait_token_other_than(&old, limit).await?;
        Ok(asked.elapsed())
    }

    async fn holder(&self) -> Result<String> {
        holder(&self.fixture.namespace.testbed).await
    }
}

const ARGUMENTS: [&str; 4] = ["--leader-election=true", "--lease-namespace", INSTALLATION, "--concurrency=4"];

async fn holder(testbed: &Testbed) -> Result<String> {
    let arguments = ["get", "lease", INSTALLATION, "-n", INSTALLATION, "-o", "jsonpath={.spec.holderIdentity}"];
    testbed.kubectl(&arguments).await
}

/// Writes the Lease as another replica would, whose clock differs from ours by so many minutes.
async fn hold(testbed: &Testbed, holder: &str, minutes: i64) -> Result<()> {
    let time = (Clock::system().now() + TimeDelta::minutes(minutes)).to_rfc3339_opts(SecondsFormat::Micros, true);
    let spec = json!({
        "holderIdentity": holder, "leaseDurationSeconds": 12, "acquireTime": time, "renewTime": time, "leaseTransitions": 1,
    });
    let patch = json!({"spec": spec}).to_string();
    testbed.kubectl(&["patch", "lease", INSTALLATION, "-n", INSTALLATION, "--type=merge", "-p", &patch]).await.map(drop)
}

/// The Lease exists. It is a replica that creates it: a test of permissions waits for the use of each of them.
async fn existing_lease(environment: &TestEnvironment) -> Result<MutexGuard<'static, ()>> {
    let turn = LEASE.lock().await;
    if environment.namespace.testbed.kubectl(&["get", "lease", INSTALLATION, "-n", INSTALLATION]).await.is_err() {
        let first = environment.start_operator(&ARGUMENTS).await?;
        leads(&first, true, PATIENCE).await?;
    }
    Ok(turn)
}

async fn leads(operator: &Operator, wanted: bool, limit: Duration) -> Result<()> {
    let line = format!("itwin_leader {}\n", u8::from(wanted));
    let result = eventually(line.trim(), limit, async || {
        operator.get("/metrics").await.ok().filter(|metrics| metrics.contains(&line)).map(drop)
    });
    result.await.with_context(|| operator.process.log_tail())
}

#[tokio::test]
async fn kaniop_standby_is_ready_and_follows_a_leader_that_stops_within_two_seconds() -> Result<()> {
    let mut replicas = Replicas::new("stop").await?;
    let standby = replicas.standby().await?;
    let calls = |metrics: &str| {
        let writes = ["create", "update", "patch"].map(|verb| format!("verb=\"{verb}\""));
        metrics.lines().filter(|line| writes.iter().any(|verb| line.contains(verb))).count()
    };
    assert_eq!(calls(&standby.get("/metrics").await?), 0, "a standby writes nothing");

    let first_holder = replicas.holder().await?;
    let requests = replicas.fixture.token_requests().await?.len();
    replicas.fixture.operator.process.signal(Signal::SIGTERM);
    let stopped = Instant::now();
    leads(&standby, true, SOON).await?;
    let took = stopped.elapsed();
    assert!(took < AFTER_STOP, "the next one leads after {took:?}");
    assert_eq!(replicas.fixture.operator.process.wait(PATIENCE), Some(0));
    assert_ne!(replicas.holder().await?, first_holder);
    assert_eq!(replicas.fixture.token_requests().await?.len(), requests, "nothing was due");
    replicas.renewed(SOON).await?;
    Ok(())
}

#[tokio::test]
async fn killed_leader_is_followed_within_twenty_seconds() -> Result<()> {
    let replicas = Replicas::new("kill").await?;
    let standby = replicas.standby().await?;
    replicas.fixture.operator.process.signal(Signal::SIGKILL);
    let killed = Instant::now();
    replicas.renewed(AFTER_KILL).await?;
    let took = killed.elapsed();
    assert!(took < AFTER_KILL, "a token by the next one after {took:?}");
    leads(&standby, true, SOON).await
}

#[tokio::test]
async fn leader_that_was_stopped_for_longer_than_its_lease_leads_no_longer() -> Result<()> {
    let mut replicas = Replicas::new("frozen").await?;
    let standby = replicas.standby().await?;
    replicas.fixture.operator.process.signal(Signal::SIGSTOP);
    leads(&standby, true, PATIENCE).await?;
    let requests = replicas.fixture.token_requests().await?.len();
    // what it would do immediately when it resumes: a user requests a renewal
    replicas.renewed(SOON).await?;
    replicas.fixture.operator.process.signal(Signal::SIGCONT);
    let code = replicas.fixture.operator.process.wait(PATIENCE);
    assert_eq!(code, Some(1), "it ends and reports it");
    let log = std::fs::read_to_string(replicas.fixture.operator.process.log())?;
    // it finds another holder, or its own lease expired, whichever comes first
    assert!(log.contains("the process ends, so that nothing of it acts any more"), "{log}");
    assert_eq!(replicas.fixture.token_requests().await?.len(), requests + 1, "by the new leader alone");
    Ok(())
}

#[tokio::test]
async fn kaniop_leader_that_cannot_renew_its_lease_ends_before_another_may_lead() -> Result<()> {
    let mut replicas = Replicas::new("no-renewal").await?;
    let testbed = replicas.fixture.namespace.testbed.clone();
    let set_rules = async |rules: &str| {
        let patch = format!(r#"[{{"op":"replace","path":"/rules","value":{rules}}}]"#);
        testbed.kubectl(&["patch", "role", INSTALLATION, "-n", INSTALLATION, "--type=json", "-p", &patch]).await
    };
    let rules = ["get", "role", INSTALLATION, "-n", INSTALLATION, "-o", "jsonpath={.rules}"];
    let rules = testbed.kubectl(&rules).await?;
    set_rules("[]").await?;
    let taken = Instant::now();
    let code = replicas.fixture.operator.process.wait(PATIENCE);
    let took = taken.elapsed();
    set_rules(&rules).await?;
    assert_eq!(code, Some(1));
    assert!(took < Duration::from_secs(12), "the Lease lasts 12 s, and it ended after {took:?}");
    Ok(())
}

#[tokio::test]
async fn kaniop_lease_is_its_holders_and_is_cleared_at_the_end() -> Result<()> {
    let mut replicas = Replicas::new("lease").await?;
    let standby = replicas.standby().await?;
    let holder = replicas.holder().await?;
    let until = Instant::now() + WATCHED;
    while Instant::now() < until {
        assert_eq!(replicas.holder().await?, holder);
    }
    drop(standby);
    replicas.fixture.operator.process.signal(Signal::SIGTERM);
    assert_eq!(replicas.fixture.operator.process.wait(PATIENCE), Some(0));
    assert_eq!(replicas.holder().await?, "", "the holder is cleared");
    Ok(())
}

#[tokio::test]
async fn dead_holder_whose_clock_was_ten_minutes_ahead_is_followed_within_twenty_seconds() -> Result<()> {
    let environment = TestEnvironment::new("ahead").await?;
    let testbed = &environment.namespace.testbed;
    let _turn = existing_lease(&environment).await?;
    hold(testbed, "dead", 10).await?;
    let standby = environment.start_operator(&ARGUMENTS).await?;
    leads(&standby, true, AFTER_KILL).await?;
    assert_ne!(holder(testbed).await?, "dead");
    Ok(())
}

#[tokio::test]
async fn healthy_leader_whose_clock_is_ten_minutes_behind_keeps_its_lease() -> Result<()> {
    let environment = TestEnvironment::new("behind").await?;
    let testbed = &environment.namespace.testbed;
    let _turn = existing_lease(&environment).await?;
    hold(testbed, "healthy", -10).await?;
    let standby = environment.start_operator(&ARGUMENTS).await?;
    let until = Instant::now() + AFTER_KILL;
    while Instant::now() < until {
        hold(testbed, "healthy", -10).await?;
        assert_eq!(holder(testbed).await?, "healthy");
        tokio::time::sleep(WATCHED).await;
    }
    leads(&standby, false, SOON).await?;
    // it watches, and takes the Lease once nothing changes any more
    leads(&standby, true, AFTER_KILL).await
}
