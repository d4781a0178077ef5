//! What `check` reads: what the operator would read, as far as the user may.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{authority::ITwinAuthority, credential::ITwinServiceCredential};
use itwin_core::{failure::Failure, ownership::Named};
use itwin_credential_operator::config::authority::{AuthorityConfig, roots};
use itwin_oauth::key_set::KeySet;
use k8s_openapi::api::core::v1::Secret;

use crate::workloads::{Metadata, PodSpec};

/// Something that was read, or why it could not be.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen<T> {
    /// It was read.
    Known(T),
    /// Why it is not known, in words that follow "not checked: ".
    Unknown(String),
}

impl<T> Seen<T> {
    /// What was read, if it was.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }
}

/// A Lease of an operator.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lease {
    /// Its namespace.
    pub namespace: String,
    /// Who holds it.
    pub holder: Option<String>,
    /// When it was renewed last, by the clock of its holder.
    pub renewed: Option<DateTime<Utc>>,
    /// For how long a renewal holds, in seconds.
    pub seconds: i64,
}

/// A Lease that was renewed so long ago, in its durations, is held by none: another replica would have taken it over.
const DURATIONS: i32 = 3;

impl Lease {
    /// Whether its holder leads.
    #[must_use]
    pub fn leads(&self, now: DateTime<Utc>) -> bool {
        let is_recent = |renewed: DateTime<Utc>| (now - renewed).abs() <= self.duration() * DURATIONS;
        self.holder.is_some() && self.renewed.is_some_and(is_recent)
    }

    /// When its last renewal ends, by the clock of its holder.
    pub(super) fn until(&self) -> Option<DateTime<Utc>> {
        self.renewed?.checked_add_signed(self.duration())
    }

    fn duration(&self) -> TimeDelta {
        TimeDelta::seconds(self.seconds.clamp(1, 3600))
    }
}

/// What an authorization server publishes, as this machine sees it.
pub struct Published {
    /// Its signing keys; none where tokens are opaque.
    pub keys: Option<KeySet>,
    /// Its time, and that of this machine when it answered.
    pub date: Option<(DateTime<Utc>, DateTime<Utc>)>,
}

/// Everything that is checked.
pub struct Observed {
    /// The time.
    pub now: DateTime<Utc>,
    /// The credential.
    pub credential: ITwinServiceCredential,
    /// The other credential that the Secret belongs to, if it does.
    pub other_owner: Seen<Option<Named>>,
    /// The Leases of operators.
    pub leases: Seen<Vec<Lease>>,
    /// The authority; `None` where there is none.
    pub authority: Seen<Option<ITwinAuthority>>,
    /// The CA certificates that the authority refers to; `Err` where there are none.
    pub ca_bundle: Seen<Result<Option<Vec<u8>>, String>>,
    /// The labels of the namespace.
    pub namespace_labels: Seen<BTreeMap<String, String>>,
    /// What the authorization server publishes.
    pub server: Seen<Result<Published, Failure>>,
    /// Whether the user did not want the authorization server to be asked.
    pub is_offline: bool,
    /// The client Secret.
    pub client: Seen<Option<Secret>>,
    /// The Secret with the token.
    pub target: Seen<Option<Secret>>,
    /// The pods of the namespace.
    pub pods: Seen<Vec<(Metadata, PodSpec)>>,
}

impl Observed {
    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.credential.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// The name of the credential.
    #[must_use]
    pub fn name(&self) -> &str {
        self.credential.metadata.name.as_deref().unwrap_or_default()
    }

    /// The name of the authority.
    #[must_use]
    pub fn authority_name(&self) -> &str {
        &self.credential.spec.authority_ref.name
    }

    /// The configuration of the authority, where there is a valid one.
    #[must_use]
    pub fn config(&self) -> Option<AuthorityConfig> {
        configured(self.authority.known()?.as_ref()?, self.ca_bundle.known()).ok()
    }
}

/// The validated spec of an authority, with the CA certificates that it refers to, as far as they are known.
///
/// # Errors
/// What the operator would report.
pub fn configured(
    authority: &ITwinAuthority,
    ca_bundle: Option<&Result<Option<Vec<u8>>, String>>,
) -> Result<AuthorityConfig, String> {
    let config = AuthorityConfig::new(&authority.spec)?;
    match ca_bundle {
        Some(Ok(Some(pem))) => Ok(config.trusting(roots("caBundleRef", pem)?)),
        Some(Err(error)) => Err(error.clone()),
        Some(Ok(None)) | None => Ok(config),
    }
}
