//! Since when the CA certificates that an authority refers to cannot be read.

use itwin_core::{authority_status::UnreadBundle, failure::Failure};

use super::Authorities;

impl Authorities {
    /// Notes whether the CA certificates of an authority could be read just now. Returns for how long they could not.
    pub(in crate::controller) fn note_bundle(&self, name: &str, failure: Option<Failure>) -> Option<UnreadBundle> {
        let now = self.clock.monotonic();
        let mut entries = self.entries();
        let since = &mut entries.get_mut(name)?.bundle_unread_since;
        let Some(failure) = failure else {
            *since = None;
            return None;
        };
        let age = now.saturating_duration_since(*since.get_or_insert(now));
        Some(UnreadBundle { failure, age })
    }
}
