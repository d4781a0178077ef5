//! A cluster that was restored from a backup, noticed by resourceVersions that are lower than before.
//!
//! resourceVersions of one resource can be compared as numbers (KEP-5504) and only grow, unless the store of the API
//! server was replaced by an older copy. Then resourceVersions and generations are given out a second time, and a watch
//! from a resourceVersion of before stays open and shows nothing.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// A restore is noticed at most this often: each one makes every watch list again.
const AT_MOST_EVERY: Duration = Duration::from_secs(10);

/// A resourceVersion as a number, which can be compared with others of its resource (KEP-5504); `None` if it is none.
#[must_use]
pub fn parse(resource_version: &str) -> Option<u64> {
    resource_version.parse().ok()
}

/// How often this process noticed that the cluster was restored. What was concluded from the resourceVersions and
/// generations of an earlier incarnation does not hold in a later one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incarnation(u64);

/// The resourceVersions that were observed, by resource.
#[derive(Debug, Default)]
pub struct Revisions {
    incarnation: Incarnation,
    noticed_at: Option<Instant>,
    highest: BTreeMap<&'static str, u64>,
    /// The highest ones of before the last restore.
    lost: BTreeMap<&'static str, u64>,
}

impl Revisions {
    /// The current incarnation.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The resourceVersion of an object or a bookmark, which may come late.
    pub fn observe(&mut self, resource: &'static str, version: u64) {
        let highest = self.highest.entry(resource).or_default();
        *highest = version.max(*highest);
    }

    /// The highest resourceVersion that was observed of this resource.
    #[must_use]
    pub fn highest(&self, resource: &'static str) -> Option<u64> {
        self.highest.get(resource).copied()
    }

    /// The resourceVersion of an answer that shows the latest state: a list, or an object that is only read and written
    /// in one sequence of calls. `known` is the highest one of when the request was sent: answers to requests of several
    /// namespaces overtake each other. Returns whether it shows that the cluster was restored.
    pub fn observe_latest(&mut self, resource: &'static str, version: u64, known: Option<u64>, now: Instant) -> bool {
        let is_noticed = known.is_some_and(|known| version < known) && self.notice(now);
        self.observe(resource, version);
        is_noticed
    }

    /// The cluster was restored, or may have been. Returns whether that begins another incarnation.
    pub fn notice(&mut self, now: Instant) -> bool {
        let is_too_soon = |at: Instant| now.saturating_duration_since(at) < AT_MOST_EVERY;
        if self.noticed_at.is_some_and(is_too_soon) {
            return false;
        }
        self.noticed_at = Some(now);
        self.incarnation.0 += 1;
        for (resource, highest) in std::mem::take(&mut self.highest) {
            let lost = self.lost.entry(resource).or_default();
            *lost = highest.max(*lost);
        }
        true
    }

    /// Whether resourceVersions of this resource may still be those of before a restore: then a watch may begin at one
    /// that is yet to come, and shows nothing.
    #[must_use]
    pub fn is_behind(&self, resource: &'static str) -> bool {
        self.lost.get(resource).is_some_and(|lost| self.highest.get(resource).is_none_or(|highest| highest < lost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer to a request that nothing overtook.
    fn latest(revisions: &mut Revisions, resource: &'static str, version: u64, now: Instant) -> bool {
        let known = revisions.highest(resource);
        revisions.observe_latest(resource, version, known, now)
    }

    #[test]
    fn answer_that_was_overtaken_is_no_restore() {
        let (mut revisions, now) = (Revisions::default(), Instant::now());
        latest(&mut revisions, "secrets", 7, now);
        let known = revisions.highest("secrets");
        // the list of another namespace, which was requested later
        latest(&mut revisions, "secrets", 12, now);
        assert!(!revisions.observe_latest("secrets", 8, known, now));
        assert!(revisions.observe_latest("secrets", 6, known, now));
    }

    #[test]
    fn lower_version_of_the_latest_state_begins_another_incarnation() {
        let (mut revisions, now) = (Revisions::default(), Instant::now());
        assert!(!latest(&mut revisions, "secrets", 7, now));
        revisions.observe("secrets", 9);
        assert!(!latest(&mut revisions, "leases", 3, now), "each resource counts for itself");
        assert!(!latest(&mut revisions, "secrets", 9, now));
        assert_eq!(revisions.incarnation(), Incarnation::default());
        assert!(latest(&mut revisions, "secrets", 8, now));
        assert_ne!(revisions.incarnation(), Incarnation::default());
        assert!(!latest(&mut revisions, "leases", 1, now), "it is the same restore");
    }

    #[test]
    fn events_that_come_late_are_no_restore() {
        let (mut revisions, now) = (Revisions::default(), Instant::now());
        latest(&mut revisions, "secrets", 7, now);
        revisions.observe("secrets", 5);
        assert!(!latest(&mut revisions, "secrets", 7, now));
    }

    #[test]
    fn restore_is_noticed_once_in_a_while_and_not_missed() {
        let (mut revisions, now) = (Revisions::default(), Instant::now());
        assert!(revisions.notice(now));
        revisions.observe("secrets", 9);
        let soon = now + AT_MOST_EVERY / 2;
        assert!(!latest(&mut revisions, "secrets", 3, soon));
        assert!(latest(&mut revisions, "secrets", 4, now + AT_MOST_EVERY));
    }

    #[test]
    fn versions_of_before_are_awaited_after_a_restore() {
        let (mut revisions, now) = (Revisions::default(), Instant::now());
        latest(&mut revisions, "secrets", 9, now);
        assert!(!revisions.is_behind("secrets"));
        latest(&mut revisions, "secrets", 2, now);
        assert!(revisions.is_behind("secrets") && !revisions.is_behind("leases"));
        revisions.observe("secrets", 9);
        assert!(!revisions.is_behind("secrets"));
    }
}
