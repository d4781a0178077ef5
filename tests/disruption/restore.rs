//! The cluster is restored from a backup under two running replicas: etcd's data is replaced by an older copy, and
//! revisions and generations are used a second time.
//!
//! Restores of only etcd, without the API server, are measured as well, although Kubernetes' documentation forbids them:
//! the API server then serves its own cache, which holds the objects that were lost.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use itwin_credential_operator::clock::Clock;
use serde_json::{Value, json};
use testbed::{
    INSTALLATION,
    control_plane::{Backup, Restored},
    eventually,
    operator::Operator,
};

use crate::{
    cluster::Cluster,
    fixture::{Fixture, NAME, PATIENCE, PROGRAM, condition},
};

/// The contract: from the return of the API server to valid tokens and to the effect of every changed spec.
const RECOVERED: Duration = Duration::from_secs(120);
/// The contract: after the leader was killed, another one leads within this; on a busy machine.
const AFTER_KILL: Duration = Duration::from_secs(40);
/// Lifetime of the tokens, in seconds.
const LIFETIME: u32 = 40;
const ARGUMENTS: [&str; 3] = ["--leader-election=true", "--lease-namespace", INSTALLATION];

/// Two replicas on a control plane of their own.
struct Replicas {
    cluster: Cluster,
    fixture: Fixture,
    /// The other replica; the leader is that of the fixture.
    standby: Operator,
}

async fn leads(operator: &Operator, limit: Duration) -> Result<()> {
    let result = eventually("a leader", limit, async || {
        operator.get("/metrics").await.ok().filter(|metrics| metrics.contains("itwin_leader 1\n")).map(drop)
    });
    result.await.with_context(|| operator.process.log_tail())
}

async fn replica(fixture: &Fixture) -> Result<Operator> {
    let namespace = &fixture.namespace;
    Operator::start(&namespace.testbed, Path::new(PROGRAM), &namespace.name, &ARGUMENTS).await
}

fn with_label(stage: &str) -> Value {
    json!({"minimumValidity": "5s", "secretTemplate": {"labels": {"stage": stage}}})
}

fn expiry(data: &std::collections::BTreeMap<String, String>) -> Result<DateTime<Utc>> {
    Ok(DateTime::parse_from_rfc3339(&data["expires_at"])?.to_utc())
}

impl Replicas {
    /// A leader whose credential is Ready, and a standby.
    async fn new(name: &str) -> Result<Self> {
        let cluster = Cluster::start(name).await?;
        let mut fixture = Fixture::on(cluster.namespace(name).await?, &ARGUMENTS).await?;
        fixture.client.lifetime = LIFETIME;
        fixture.with_surroundings().await?;
        fixture.apply_credential(&with_label("first")).await?;
        fixture.wait_ready().await?;
        leads(&fixture.operator, PATIENCE).await?;
        let standby = replica(&fixture).await?;
        Ok(Self { cluster, fixture, standby })
    }

    /// Every spec has its second generation, and the Secrets are newer than in the backup.
    async fn edit(&self) -> Result<()> {
        self.fixture.apply_authority(&json!({"requestTimeout": "11s"})).await?;
        self.fixture.apply_credential(&with_label("lost")).await?;
        self.wait_label("lost", PATIENCE).await
    }

    /// Every spec has its second generation again, another one than before the restore, and the client has another
    /// secret. The authority allows nothing that the credential asks for.
    async fn edit_again(&mut self) -> Result<()> {
        eventually("an API server that serves the CRDs", PATIENCE, async || {
            self.fixture.apply_authority(&json!({"allowedScopes": ["other"]})).await.ok()
        })
        .await?;
        self.fixture.apply_credential(&with_label("second")).await?;
        self.fixture.client.client_secret = testbed::control_plane::random_token();
        self.fixture.register().await?;
        self.fixture.apply_client_secret().await
    }

    /// Every spec is observed, whatever was observed of the same generation before the restore.
    async fn check_specs(&mut self) -> Result<()> {
        self.renew("restored").await?;
        let failed = eventually("a request that the edited authority does not allow", RECOVERED, async || {
            self.revive().await.ok()?;
            let status = self.fixture.status().await.ok()?;
            (condition(&status, "Renewed")?.1 == "ScopeNotAllowed").then_some(())
        });
        let failed = failed.await;
        failed.with_context(|| self.fixture.operator.process.log_tail())?;
        self.fixture.apply_authority(&json!({"allowedScopes": ["itwin-platform"]})).await?;
        self.wait_recovered().await?;
        self.wait_label("second", PATIENCE).await
    }

    async fn renew(&self, value: &str) -> Result<()> {
        let annotation = format!("credentials.itwin.dev/renew={value}");
        self.fixture.namespace.kubectl(&["annotate", "itcred", NAME, "--overwrite", &annotation]).await.map(drop)
    }

    async fn restore(&mut self, backup: &Backup, what: Restored) -> Result<()> {
        self.cluster.control_plane.restore(backup, what).await?;
        self.revive().await
    }

    /// Starts a replica again that has ended, as the kubelet does.
    async fn revive(&mut self) -> Result<()> {
        if !self.fixture.operator.process.is_running() {
            self.fixture.operator = replica(&self.fixture).await?;
        }
        if !self.standby.process.is_running() {
            self.standby = replica(&self.fixture).await?;
        }
        Ok(())
    }

    async fn wait_label(&self, stage: &str, limit: Duration) -> Result<()> {
        let what = format!("the label of the template that says {stage}");
        eventually(&what, limit, async || {
            let secret = self.fixture.secret().await.ok()??;
            (secret["metadata"]["labels"]["stage"] == stage).then_some(())
        })
        .await
        .with_context(|| self.fixture.operator.process.log_tail())
    }

    /// Waits for a token of the client that was registered last, valid for longer than the requests for it take, and for
    /// a status that shows it.
    async fn wait_recovered(&mut self) -> Result<()> {
        let token = eventually("a token that is valid", RECOVERED, async || {
            self.revive().await.ok()?;
            let data = self.fixture.data().await.ok()?;
            (expiry(&data).ok()? > Clock::system().now() + chrono::TimeDelta::seconds(10)).then_some(data)
        })
        .await;
        let last = async { format!("last status: {}", self.fixture.status().await.unwrap_or_default()) };
        let data = match token {
            Ok(data) => data,
            Err(error) => return Err(error.context(last.await).context(self.fixture.operator.process.log_tail())),
        };
        let reported = eventually("a status that shows it", PATIENCE, async || {
            let status = self.fixture.status().await.ok()?;
            let renewed = condition(&status, "Renewed")?;
            let shown = status["expiresAt"].as_str()?.parse::<DateTime<Utc>>().ok()?;
            (shown >= expiry(&data).ok()? && renewed.0 == "True").then_some(())
        });
        let reported = reported.await;
        match reported {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(last.await).context(self.fixture.operator.process.log_tail())),
        }
    }

    /// The replica that leads next knows nothing of the time before.
    async fn check_standby(&mut self) -> Result<()> {
        let old = self.fixture.token().await?;
        self.fixture.stop();
        leads(&self.standby, AFTER_KILL).await?;
        self.renew("failover").await?;
        self.fixture.apply_credential(&with_label("third")).await?;
        self.fixture.wait_token_other_than(&old, PATIENCE).await.with_context(|| self.standby.process.log_tail())?;
        self.wait_label("third", PATIENCE).await.with_context(|| self.standby.process.log_tail())?;
        self.fixture.wait_condition("Renewed", "True", "TokenIssued", PATIENCE).await?;
        Ok(())
    }
}

/// The token of the backup has expired when the cluster is restored.
async fn wait_expired(at: DateTime<Utc>) -> Result<()> {
    eventually("the expiry of the token in the backup", Duration::from_secs(2 * u64::from(LIFETIME)), async || {
        (Clock::system().now() > at).then_some(())
    })
    .await
}

#[tokio::test]
async fn tokens_that_have_expired_in_the_backup_are_renewed_and_changed_specs_are_noticed() -> Result<()> {
    let mut replicas = Replicas::new("restore-expired").await?;
    let expires_at = expiry(&replicas.fixture.data().await?)?;
    let backup = replicas.cluster.control_plane.back_up("old")?;
    replicas.edit().await?;
    wait_expired(expires_at).await?;
    replicas.restore(&backup, Restored::All).await?;
    replicas.edit_again().await?;
    replicas.check_specs().await?;
    replicas.check_standby().await
}

#[tokio::test]
async fn backup_that_is_a_few_edits_old_is_noticed() -> Result<()> {
    let mut replicas = Replicas::new("restore-recent").await?;
    let backup = replicas.cluster.control_plane.back_up("recent")?;
    replicas.edit().await?;
    replicas.restore(&backup, Restored::All).await?;
    replicas.edit_again().await?;
    replicas.check_specs().await?;
    replicas.check_standby().await
}

#[tokio::test]
async fn lease_of_a_replica_that_is_gone_does_not_delay_a_restored_cluster() -> Result<()> {
    let mut replicas = Replicas::new("restore-holder").await?;
    let backup = replicas.cluster.control_plane.back_up("holder")?;
    let expires_at = expiry(&replicas.fixture.data().await?)?;
    // the leader of the backup is gone for good, and two other replicas run
    replicas.fixture.stop();
    leads(&replicas.standby, AFTER_KILL).await?;
    replicas.revive().await?;
    std::mem::swap(&mut replicas.fixture.operator, &mut replicas.standby);
    replicas.edit().await?;
    wait_expired(expires_at).await?;
    replicas.restore(&backup, Restored::All).await?;
    replicas.edit_again().await?;
    replicas.check_specs().await
}

#[tokio::test]
async fn restore_of_etcd_alone_is_survived_as_far_as_the_api_server_shows_it() -> Result<()> {
    let mut replicas = Replicas::new("restore-etcd").await?;
    let expires_at = expiry(&replicas.fixture.data().await?)?;
    let backup = replicas.cluster.control_plane.back_up("etcd")?;
    replicas.edit().await?;
    wait_expired(expires_at).await?;
    replicas.restore(&backup, Restored::EtcdOnly).await?;
    replicas.wait_recovered().await
}
