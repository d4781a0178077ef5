//! What the index knows of one Secret, and which credentials write and read it.

use std::sync::Arc;

use itwin_core::{object::ObjectKey, revisions};

use crate::observe::target::SecretMetadata;

/// The known state of a Secret.
#[derive(Clone, Debug, Default)]
pub enum Known {
    /// Nothing is known, so it must be read.
    #[default]
    Unknown,
    /// The Secret does not exist.
    Absent,
    /// The Secret exists.
    Present(Arc<SecretMetadata>),
}

/// What is known of a Secret, and which credentials reference it.
#[derive(Default)]
pub(super) struct Slot {
    /// The credentials that write it, sorted, followed by those that only read it, sorted; usually one.
    pub(super) credentials: Vec<Arc<ObjectKey>>,
    /// The number of writers, which is separate since thousands of credentials may read one client Secret.
    pub(super) writers: u32,
    pub(super) known: Known,
    /// The latest observed resourceVersion of the Secret or of its deletion.
    pub(super) version: u64,
    /// Whether it was observed since the current list started.
    pub(super) listed: bool,
    /// The credential that writes it was created while this process led, and nothing else was ever known of it.
    pub(super) is_of_new_credential: bool,
    /// What is known was read by one credential: the others do not know it before the watch shows it too.
    pub(super) is_from_read: bool,
}

/// What an observation of a Secret was, compared with what is known.
#[derive(PartialEq)]
pub(super) enum Observed {
    Older,
    Same,
    New,
}

impl Slot {
    /// Keeps what was observed, unless it is older than what is known.
    pub(super) fn observe(&mut self, secret_metadata: SecretMetadata) -> Observed {
        self.listed = true;
        let version = revisions::parse(secret_metadata.resource_version());
        if version.is_some_and(|version| version < self.version) {
            return Observed::Older;
        }
        if matches!(&self.known, Known::Present(known) if known.version == secret_metadata.version) {
            return Observed::Same;
        }
        self.version = version.unwrap_or_default();
        self.known = Known::Present(Arc::new(secret_metadata));
        Observed::New
    }

    /// Whatever is observed next is accepted.
    pub(super) fn forget_version(&mut self) {
        (self.known, self.version, self.is_of_new_credential) = (Known::Unknown, 0, false);
    }

    /// A client Secret exists as a rule, and a second writer may have written it.
    pub(super) fn may_be_presumed_absent(&self) -> bool {
        let is_unknown = matches!(self.known, Known::Unknown) && self.version == 0;
        self.is_of_new_credential && is_unknown && self.writers == 1 && self.readers().is_empty()
    }

    pub(super) fn writers(&self) -> &[Arc<ObjectKey>] {
        &self.credentials[..self.writers as usize]
    }

    pub(super) fn readers(&self) -> &[Arc<ObjectKey>] {
        &self.credentials[self.writers as usize..]
    }

    pub(super) fn add_writer(&mut self, credential: &Arc<ObjectKey>) {
        if let Err(place) = self.writers().binary_search(credential) {
            self.insert(place, credential);
            self.writers += 1;
        }
    }

    pub(super) fn add_reader(&mut self, credential: &Arc<ObjectKey>) {
        if let Err(place) = self.readers().binary_search(credential) {
            self.insert(self.writers as usize + place, credential);
        }
    }

    fn insert(&mut self, place: usize, credential: &Arc<ObjectKey>) {
        self.credentials.reserve_exact(usize::from(self.credentials.is_empty()));
        self.credentials.insert(place, credential.clone());
    }

    pub(super) fn remove(&mut self, credential: &ObjectKey) {
        self.writers -= u32::from(self.writers().iter().any(|writer| **writer == *credential));
        self.credentials.retain(|other| **other != *credential);
    }
}
