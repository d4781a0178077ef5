//! How a look tells how the credential stands, as `controller::tell` does it.

use chrono::{DateTime, TimeDelta, Utc};
use itwin_credential_operator::{
    api::credential::CredentialStatus,
    clock,
    decide::facts::Facts,
    report::status::{self, Description},
};
use kube::ResourceExt;

use crate::look::{Halt, Look};

impl Look<'_> {
    pub fn report(&mut self, next: Option<DateTime<Utc>>, wait: Option<TimeDelta>) -> Result<TimeDelta, Halt> {
        let (facts, _) = self.facts();
        let previous = self.previous_status();
        let description = self.describe(&facts, &previous)?;
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
            now,
        });
        if status != previous {
            self.write_status(&status)?;
        }
        Ok(self.requeue(now, &facts, next, wait))
    }

    fn previous_status(&self) -> CredentialStatus {
        let credential = self.subject.credential;
        let version: u64 = credential.resource_version().and_then(|text| text.parse().ok()).unwrap_or_default();
        match &self.memory.written_status {
            Some((written_at, status)) if *written_at > version => status.clone(),
            _ => credential.status.clone().unwrap_or_default(),
        }
    }

    fn describe(&mut self, facts: &Facts, previous: &CredentialStatus) -> Result<Description, Halt> {
        let Some(stamp) = facts.held_for_spec() else { return Ok(Description::default()) };
        if self.memory.description.is_none() {
            let told = previous.issued_at.as_deref() == Some(clock::to_rfc3339(stamp.issued_at).as_str());
            if told && previous.client_id.is_some() && !previous.scopes.is_empty() {
                self.memory.description =
                    Some(Description { client_id: previous.client_id.clone(), scopes: previous.scopes.clone() });
            } else {
                self.read_target()?;
            }
        }
        Ok(self.memory.description.clone().unwrap_or_default())
    }

    fn write_status(&mut self, status: &CredentialStatus) -> Result<(), Halt> {
        self.before_call()?;
        if let Ok(version) = self.world.write_status(&self.subject.uid, status) {
            self.faults.after_commit(self.world)?;
            self.memory.written_status = Some((version, status.clone()));
        }
        Ok(())
    }
}
