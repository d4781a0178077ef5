//! What was written into the statuses of authorities, which the watch may not show.

use std::time::Duration;

use itwin_api::{
    authority::{AuthorityStatus, ITwinAuthority},
    conditions::READY,
};
use kube::ResourceExt;

use super::{Authorities, entry::Reported};

/// A status that was replaced by another writer is written again no sooner than this.
const REPORT_AGAIN: Duration = Duration::from_secs(30);
/// The watch shows a change within this. One that it has not shown by then holds up no status.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);

/// The status of an authority, as far as is known.
pub(in crate::controller) struct KnownStatus {
    /// The status.
    pub(in crate::controller) status: AuthorityStatus,
    /// The resourceVersion that guards it: a list of conditions is written as a whole, and others may write into it. `None`
    /// where the object has changed, and no watch shows it.
    pub(in crate::controller) guard: Option<String>,
}

impl Authorities {
    /// The status that an authority has: the one that was written last, until the watch shows the object again.
    pub(in crate::controller) fn known_status(&self, object: &ITwinAuthority) -> KnownStatus {
        let shown = object.resource_version();
        let entries = self.entries();
        let entry = entries.get(&object.name_any());
        let written = entry.and_then(|entry| entry.reported.as_ref()).filter(|reported| reported.shown == shown);
        let (status, version) = match written {
            Some(reported) => (reported.status.clone(), reported.written.clone()),
            None => (object.status.clone().unwrap_or_default(), shown.clone()),
        };
        let conflict = entry.and_then(|entry| entry.conflict.as_ref()).filter(|(_, before)| *before == shown);
        let now = self.clock.monotonic();
        let is_unseen = conflict.is_some_and(|(since, _)| now.saturating_duration_since(*since) >= SHOWN_WITHIN);
        // those of others are known only at a version
        let is_ours = status.conditions.iter().all(|condition| condition.type_ == READY);
        KnownStatus { status, guard: version.filter(|_| !(is_unseen && is_ours)) }
    }

    /// How long not to write this status again: another writer, such as another operator, has just replaced it, and two
    /// who answer each other's writes at once would be a storm.
    pub(in crate::controller) fn reported_lately(&self, name: &str, status: &AuthorityStatus) -> Option<Duration> {
        let entries = self.entries();
        let reported = entries.get(name)?.reported.as_ref()?;
        let same = |status: &AuthorityStatus| {
            let conditions = status.conditions.iter().map(|c| (c.status.clone(), c.reason.clone()));
            (status.observed_generation, conditions.collect::<Vec<_>>())
        };
        let left = REPORT_AGAIN.checked_sub(reported.at.elapsed())?;
        (same(&reported.status) == same(status)).then_some(left)
    }

    /// Notes a status that was written, and the resourceVersion that the object then had.
    pub(in crate::controller) fn note_reported(
        &self,
        object: &ITwinAuthority,
        status: AuthorityStatus,
        written: Option<String>,
    ) {
        if let Some(entry) = self.entries().get_mut(&object.name_any()) {
            let (at, shown) = (self.clock.monotonic(), object.resource_version());
            entry.reported = Some(Reported { at, shown, written, status });
            entry.conflict = None;
        }
    }

    /// Forgets which statuses were written: in a cluster that was restored from a backup they may be gone, although
    /// the object has the resourceVersion that the watch had shown before them.
    pub(in crate::controller) fn forget_reported(&self) {
        for entry in self.entries().values_mut() {
            (entry.reported, entry.conflict) = (None, None);
        }
    }

    /// Notes that a status was refused, since the object has changed.
    pub(in crate::controller) fn note_conflict(&self, object: &ITwinAuthority) {
        let (now, shown) = (self.clock.monotonic(), object.resource_version());
        if let Some(entry) = self.entries().get_mut(&object.name_any())
            && entry.conflict.as_ref().is_none_or(|(_, before)| *before != shown)
        {
            entry.conflict = Some((now, shown));
        }
    }
}
