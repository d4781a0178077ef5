//! How a look tells how the credential stands, as `controller::report` does it.

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::credential::CredentialStatus;
use itwin_core::{observed::Description, status};
use itwin_credential_operator::observe::index::Known;
use kube::ResourceExt;

use crate::reconcile::{Halt, Reconcile};

impl Reconcile<'_> {
    pub fn report(&mut self, next: Option<DateTime<Utc>>, wait: Option<TimeDelta>) -> Result<TimeDelta, Halt> {
        let observed = self.observe();
        self.note_version();
        let previous = self.previous_status();
        let description = self.description();
        let now = self.world.clock();
        let next = next.or(self.retry_state.not_before().filter(|at| *at > now && !observed.suspend));
        let status = status::status(&status::Inputs {
            observed: &observed,
            attempts: &self.retry_state.reported(),
            description: &description,
            secret: &self.references.target.name,
            generation: self.references.credential.metadata.generation,
            renew_at: next,
            previous: &previous,
            waits_for: None,
            now,
        });
        if status != previous {
            self.write_status(&status)?;
        }
        Ok(self.requeue(now, &observed, next, wait))
    }

    /// Its watches lag, and never show what is older than what they have shown.
    fn note_version(&mut self) {
        let version: u64 =
            self.references.credential.resource_version().and_then(|text| text.parse().ok()).unwrap_or_default();
        self.retry_state.observed_version(version);
    }

    fn previous_status(&self) -> CredentialStatus {
        match self.retry_state.written_status() {
            Some(status) => status.clone(),
            None => self.references.credential.status.clone().unwrap_or_default(),
        }
    }

    fn description(&self) -> Description {
        match self.process.index.get(&self.references.target) {
            Known::Present(secret_metadata) => secret_metadata.description.clone(),
            _ => Description::default(),
        }
    }

    fn write_status(&mut self, status: &CredentialStatus) -> Result<(), Halt> {
        self.before_call()?;
        let version = self.world.write_status(&self.references.uid, status).map_err(Halt::Error)?;
        self.faults.after_commit(self.world)?;
        self.retry_state.status_written(version, status.clone());
        Ok(())
    }
}
