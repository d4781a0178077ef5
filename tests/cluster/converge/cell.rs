//! One credential in all phases, and the state in which each phase must end.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use itwin_api::{
    credential::{CredentialStatus, ITwinServiceCredential},
    secret_keys,
};
use itwin_core::desired_secret;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use testbed::{eventually, operator::Operator};

use crate::converge::{columns::Phase, fixture::Fixture, follower::text};

/// What a manual edit writes in place of the token.
pub const EDITED: &str = "edited manually";

/// Limit of a phase: a call without a response (8 s), backoffs, and a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Cell {
    pub name: String,
    /// The authority is limited to namespaces with a label, so that the operator reads the namespace.
    pub restricts_namespaces: bool,
}

/// The Secret before a phase.
pub struct Before(Option<Secret>);

/// Fails with the failures of all cells, unless each came to its end.
pub fn assert_all_ended_well(results: Vec<Result<()>>, operator: &Operator) -> Result<()> {
    let cells = results.len();
    let failures: Vec<String> = results.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    ensure!(
        failures.is_empty(),
        "{} of {cells} cells; log {}:\n{}",
        failures.len(),
        operator.process.log().display(),
        failures.join("\n")
    );
    Ok(())
}

impl Cell {
    pub fn new(name: &str, restricts_namespaces: bool) -> Self {
        Self { name: name.to_owned(), restricts_namespaces }
    }

    pub fn client_secret_name(&self) -> String {
        format!("{}-client", self.name)
    }

    pub fn authority_name(&self, fixture: &Fixture) -> String {
        fixture.namespace.unique(&self.name)
    }

    pub fn client_id(&self, fixture: &Fixture) -> String {
        self.authority_name(fixture)
    }

    /// What a user does at the beginning of a phase. The objects of the first one exist already.
    pub async fn begin(&self, fixture: &Fixture, phase: Phase) -> Result<Before> {
        if phase == Phase::Issue {
            return Ok(Before(None));
        }
        let secret = self.secret(fixture).await?.context("no Secret")?;
        let params = PatchParams::default();
        match phase {
            Phase::Issue => {}
            Phase::Renewal => self.request_renewal(fixture).await?,
            Phase::ManualEdit => {
                let patch = json!({"stringData": {secret_keys::ACCESS_TOKEN: EDITED}});
                fixture.secrets().patch(&self.name, &params, &Patch::Merge(&patch)).await?;
            }
            Phase::Deletion => drop(fixture.secrets().delete(&self.name, &DeleteParams::default()).await?),
        }
        Ok(Before(Some(secret)))
    }

    pub async fn request_renewal(&self, fixture: &Fixture) -> Result<()> {
        fixture.renew_now(&self.name, "1").await
    }

    /// The current state, for callers that begin a phase in another way.
    pub async fn before(&self, fixture: &Fixture) -> Result<Before> {
        Ok(Before(self.secret(fixture).await?))
    }

    /// Waits until the second in which the token was issued is over, so that the next one differs in its times and the
    /// status must be written.
    pub async fn next_second(&self, fixture: &Fixture) -> Result<()> {
        let secret = self.secret(fixture).await?.context("no Secret")?;
        let issued_at = secret.annotations().get(secret_keys::ISSUED_AT).context("issued-at")?.clone();
        let issued_at = chrono::DateTime::parse_from_rfc3339(&issued_at)?;
        eventually("the next second", PATIENCE, async || (now_in_seconds() > issued_at.timestamp()).then_some(())).await
    }

    /// Waits for the state in which a phase ends.
    pub async fn end(&self, fixture: &Fixture, phase: Phase, before: &Before) -> Result<()> {
        self.end_within(PATIENCE, fixture, phase, before).await
    }

    pub async fn end_within(&self, limit: Duration, fixture: &Fixture, phase: Phase, before: &Before) -> Result<()> {
        let mut last = None;
        let result = eventually("the state without a fault", limit, async || {
            match self.assert_ended(fixture, phase, before).await {
                Ok(()) => Some(()),
                Err(error) => {
                    last = Some(error);
                    None
                }
            }
        });
        result
            .await
            .with_context(|| format!("{} in {phase:?}: {:#}", self.name, last.unwrap_or_else(|| anyhow::anyhow!(""))))
    }

    async fn assert_ended(&self, fixture: &Fixture, phase: Phase, before: &Before) -> Result<()> {
        let secret = self.secret(fixture).await?.context("no Secret")?;
        let credential = fixture.credentials().get(&self.name).await?;
        fixture.follower.assert_good(&secret)?;
        self.assert_owned(fixture, &secret, &credential).await?;
        self.assert_reported(fixture, &secret, &credential)?;
        let authority = fixture.authorities().get(&self.authority_name(fixture)).await?;
        let conditions = authority.status.map(|status| status.conditions).unwrap_or_default();
        ensure!(holds(&conditions, "Ready", "AuthorityReachable"), "authority: {conditions:?}");
        let renewed = credential.status.unwrap_or_default().last_renew_request;
        ensure!(renewed.is_some() == (phase > Phase::Issue), "last renewal on request: {renewed:?}");
        if let Before(Some(before)) = before {
            let same_secret = before.uid() == secret.uid();
            ensure!(same_secret == (phase != Phase::Deletion), "the same Secret: {same_secret}");
            if phase == Phase::Renewal {
                let token = |secret| text(secret, secret_keys::ACCESS_TOKEN);
                ensure!(token(before)? != token(&secret)?, "the same token");
            }
        }
        Ok(())
    }

    async fn assert_owned(
        &self,
        fixture: &Fixture,
        secret: &Secret,
        credential: &ITwinServiceCredential,
    ) -> Result<()> {
        let annotation = |key: &str| secret.annotations().get(key).map(String::as_str).unwrap_or_default();
        let client = fixture.secrets().get_metadata(&self.client_secret_name()).await?;
        let client_version =
            format!("{}/{}", client.uid().unwrap_or_default(), client.resource_version().unwrap_or_default());
        for (key, expected) in [
            (secret_keys::OWNER_UID, credential.uid().unwrap_or_default()),
            (secret_keys::ISSUER_ANNOTATION, fixture.namespace.testbed.faults.issuer.clone()),
            (secret_keys::CLIENT_ID, self.client_id(fixture)),
            (secret_keys::CLIENT_VERSION, client_version),
            (secret_keys::EXPIRES_AT_ANNOTATION, text(secret, secret_keys::EXPIRES_AT)?),
        ] {
            ensure!(annotation(key) == expected, "annotation {key} is {}", annotation(key));
        }
        let labels = desired_secret::labels(credential);
        ensure!(labels.iter().all(|(key, value)| secret.labels().get(key) == Some(value)), "labels");
        ensure!(secret.type_.as_deref() == Some("Opaque"), "type");
        let owners = secret.owner_references();
        let owned = owners.len() == 1
            && owners[0].controller == Some(true)
            && owners[0].uid == annotation(secret_keys::OWNER_UID);
        ensure!(owned, "owners: {owners:?}");
        Ok(())
    }

    fn assert_reported(&self, fixture: &Fixture, secret: &Secret, credential: &ITwinServiceCredential) -> Result<()> {
        let status = credential.status.clone().unwrap_or_default();
        ensure!(holds(&status.conditions, "Ready", "TokenValid"), "{:?}", status.conditions);
        ensure!(holds(&status.conditions, "Renewed", "TokenIssued"), "{:?}", status.conditions);
        let CredentialStatus { consecutive_failures, last_failure, .. } = &status;
        ensure!(
            *consecutive_failures == 0 && last_failure.is_none(),
            "{consecutive_failures} failures, {last_failure:?}"
        );
        ensure!(status.observed_generation == credential.metadata.generation, "generation");
        ensure!(status.secret_name.as_ref() == Some(&self.name), "secretName");
        ensure!(status.client_id == Some(self.client_id(fixture)), "clientId is {:?}", status.client_id);
        ensure!(status.scopes == ["itwin-platform"], "scopes are {:?}", status.scopes);
        ensure!(status.issued_at.as_ref() == secret.annotations().get(secret_keys::ISSUED_AT), "issuedAt");
        ensure!(
            status.expires_at.as_ref() == secret.annotations().get(secret_keys::EXPIRES_AT_ANNOTATION),
            "expiresAt"
        );
        ensure!(status.renew_at.is_some() && status.usable_until.is_some(), "renewAt, usableUntil");
        ensure!(
            status.last_renew_request.as_ref() == credential.annotations().get(secret_keys::RENEW),
            "lastRenewRequest"
        );
        Ok(())
    }

    /// Plays a phase from its beginning to its end.
    pub async fn go_through(&self, fixture: &Fixture, phase: Phase) -> Result<()> {
        if phase != Phase::Issue {
            self.next_second(fixture).await?;
        }
        let before = self.begin(fixture, phase).await?;
        self.end(fixture, phase, &before).await
    }

    /// Fails if any version of the Secret was worse than the one before.
    pub async fn assert_never_worse(&self, fixture: &Fixture) -> Result<()> {
        let version = self.secret(fixture).await?.context("no Secret")?.resource_version();
        eventually("the follower to catch up", PATIENCE, async || {
            fixture.follower.has_observed(&self.name, version.clone()).then_some(())
        })
        .await?;
        fixture.follower.assert_never_worse(&self.name, 1, 1)
    }

    pub async fn secret(&self, fixture: &Fixture) -> Result<Option<Secret>> {
        Ok(fixture.secrets().get_opt(&self.name).await?)
    }
}

#[expect(clippy::disallowed_methods, reason = "a test compares with the wall clock")]
fn now_in_seconds() -> i64 {
    Utc::now().timestamp()
}

fn holds(conditions: &[Condition], kind: &str, reason: &str) -> bool {
    conditions
        .iter()
        .any(|condition| condition.type_ == kind && condition.status == "True" && condition.reason == reason)
}
