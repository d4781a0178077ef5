//! How a look tells how the credential stands, as `controller::tell` does it.

use chrono::{DateTime, TimeDelta, Utc};
use itwin_credential_operator::{
    api::credential::CredentialStatus,
    observe::{index::Known, target::Description},
    report::status,
};
use kube::ResourceExt;

use crate::look::{Halt, Look};

impl Look<'_> {
    pub fn report(&mut self, next: Option<DateTime<Utc>>, wait: Option<TimeDelta>) -> Result<TimeDelta, Halt> {
        let (facts, _) = self.facts();
        self.note_version();
        let previous = self.previous_status();
        let description = self.description();
        let now = self.world.clock();
        let next = next.or(self.memory.not_before.filter(|at| *at > now && !facts.suspend));
        let status = status::status(&status::Inputs {
            facts: &facts,
            attempts: &self.memory.attempts,
            description: &description,
            secret: &self.subject.target.name,
            generation: self.subject.credential.metadata.generation,
            renew_at: next,
            previous: &previous,
            waits_for: None,
            now,
        });
        if status != previous {
            self.write_status(&status)?;
        }
        Ok(self.requeue(now, &facts, next, wait))
    }

    /// Its watches lag, and never show what is older than what they have shown.
    fn note_version(&mut self) {
        let version: u64 =
            self.subject.credential.resource_version().and_then(|text| text.parse().ok()).unwrap_or_default();
        self.memory.written_status.take_if(|(written_at, _)| *written_at <= version);
    }

    fn previous_status(&self) -> CredentialStatus {
        match &self.memory.written_status {
            Some((_, status)) => CredentialStatus::clone(status),
            None => self.subject.credential.status.clone().unwrap_or_default(),
        }
    }

    fn description(&self) -> Description {
        match self.process.index.get(&self.subject.target) {
            Known::Present(seen) => seen.description.clone(),
            _ => Description::default(),
        }
    }

    fn write_status(&mut self, status: &CredentialStatus) -> Result<(), Halt> {
        self.before_call()?;
        let version = self.world.write_status(&self.subject.uid, status).map_err(Halt::Error)?;
        self.faults.after_commit(self.world)?;
        self.memory.written_status = Some((version, Box::new(status.clone())));
        Ok(())
    }
}
