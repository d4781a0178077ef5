//! The events that wait to be published. They wait here and not in the reconcile of their object, so that an API server
//! that takes no events, or a webhook that hangs, holds up no renewal. Few of a namespace are under way at a time, and few
//! wait, so that one namespace's are not in the way of another's.
//!
//! Events of first tokens wait until there is nothing else to do, but not for long, and not where many do: they come by the
//! thousand where many credentials are created, and no one misses them meanwhile.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

/// Events that wait, of all namespaces and of one. More of them are dropped, and counted.
const WAITING: (usize, usize) = (4000, 3000);
/// Events that are under way, of all namespaces and of one. After a burst of first tokens, each needs a connection of its
/// own, at the moment at which the operator has most in memory.
const UNDER_WAY: (usize, usize) = (24, 8);
/// With more events of first tokens than this, they do not wait for anything else.
const LATER: usize = 1000;
/// Nor does one that has waited for so long.
const LATEST: Duration = Duration::from_secs(10);

/// What waits, the oldest first: its namespace, and since when.
type Queue<T> = VecDeque<(String, T, Instant)>;

/// What waits, in the order in which it came, and how many of each namespace are under way.
pub struct Backlog<T> {
    waiting: Queue<T>,
    /// What waits until there is nothing else to do.
    later: Queue<T>,
    namespaces: HashMap<String, Counts>,
    under_way: usize,
}

#[derive(Default)]
struct Counts {
    waiting: usize,
    under_way: usize,
}

impl<T> Default for Backlog<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), later: VecDeque::new(), namespaces: HashMap::new(), under_way: 0 }
    }
}

impl<T> Backlog<T> {
    /// Adds what is to be published in a namespace, and waits from now on. Returns false where it is dropped, since too many
    /// wait.
    #[must_use]
    pub fn push(&mut self, namespace: &str, event: T, now: Instant) -> bool {
        let is_kept = self.reserve(namespace);
        if is_kept {
            self.waiting.push_back((namespace.to_owned(), event, now));
        }
        is_kept
    }

    /// The same of what waits until there is nothing else to do.
    #[must_use]
    pub fn push_later(&mut self, namespace: &str, event: T, now: Instant) -> bool {
        let is_kept = self.reserve(namespace);
        if is_kept {
            self.later.push_back((namespace.to_owned(), event, now));
        }
        is_kept
    }

    /// Counts one more of a namespace that waits. Returns false where too many do.
    fn reserve(&mut self, namespace: &str) -> bool {
        let is_full = self.waiting.len() + self.later.len() >= WAITING.0;
        let waiting = self.namespaces.get(namespace).map_or(0, |counts| counts.waiting);
        if is_full || waiting >= WAITING.1 {
            return false;
        }
        self.namespaces.entry(namespace.to_owned()).or_default().waiting += 1;
        true
    }

    /// The next one that may be published now, with its namespace; [`Self::done`] follows. `is_busy` says that there is
    /// something else to do. What waits until there is not has its turn by its age once it has waited for long.
    pub fn take(&mut self, is_busy: bool, now: Instant) -> Option<(String, T)> {
        if self.under_way >= UNDER_WAY.0 {
            return None;
        }
        let is_late = |since: Instant| now.saturating_duration_since(since) >= LATEST;
        let is_allowed = !is_busy || self.later.len() > LATER;
        let waiting = first(&self.waiting, &self.namespaces);
        let later = first(&self.later, &self.namespaces).filter(|(_, since)| is_allowed || is_late(*since));
        let (queue, place) = match (waiting, later) {
            (waiting, Some((place, since))) if is_late(since) && waiting.is_none_or(|(_, other)| since < other) => {
                (&mut self.later, place)
            }
            (Some((place, _)), _) => (&mut self.waiting, place),
            (None, Some((place, _))) => (&mut self.later, place),
            (None, None) => return None,
        };
        let (namespace, event, _) = queue.remove(place)?;
        self.under_way += 1;
        let counts = self.namespaces.entry(namespace.clone()).or_default();
        counts.waiting = counts.waiting.saturating_sub(1);
        counts.under_way += 1;
        Some((namespace, event))
    }

    /// One of this namespace is published, or is not and never will be.
    pub fn done(&mut self, namespace: &str) {
        self.under_way = self.under_way.saturating_sub(1);
        let Some(counts) = self.namespaces.get_mut(namespace) else { return };
        counts.under_way = counts.under_way.saturating_sub(1);
        if (counts.waiting, counts.under_way) == (0, 0) {
            self.namespaces.remove(namespace);
        }
    }

    /// Whether something waits until there is nothing else to do.
    #[must_use]
    pub fn has_later(&self) -> bool {
        !self.later.is_empty()
    }

    /// The number of those that wait or are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len() + self.later.len() + self.under_way
    }

    /// Whether nothing waits or is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The place of the first one of a namespace of which not too many are under way, and since when it waits.
fn first<T>(queue: &Queue<T>, namespaces: &HashMap<String, Counts>) -> Option<(usize, Instant)> {
    let may_go = |namespace: &str| namespaces.get(namespace).is_none_or(|counts| counts.under_way < UNDER_WAY.1);
    let place = queue.iter().position(|(namespace, _, _)| may_go(namespace))?;
    queue.get(place).map(|(_, _, since)| (place, *since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_hang_in_one_namespace_hold_up_no_other() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        assert!((0..100).all(|number| backlog.push("hanging", number, now)));
        assert!(backlog.push("other", 100, now));
        let taken: Vec<(String, usize)> = std::iter::from_fn(|| backlog.take(true, now)).collect();
        let names: Vec<&str> = taken.iter().map(|(namespace, _)| namespace.as_str()).collect();
        assert_eq!(names, [&["hanging"; UNDER_WAY.1][..], &["other"]].concat());
        backlog.done("hanging");
        assert_eq!(backlog.take(true, now), Some(("hanging".to_owned(), UNDER_WAY.1)), "in their order");
    }

    #[test]
    fn events_of_first_tokens_wait_for_everything_else_but_not_without_end() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        assert!(backlog.push_later("team", "first", now) && backlog.push("team", "other", now));
        let mut take = |is_busy: bool, after: Duration| backlog.take(is_busy, now + after).map(|(_, event)| event);
        assert_eq!(take(true, Duration::ZERO), Some("other"));
        assert_eq!(take(true, LATEST / 2), None);
        assert_eq!(take(true, LATEST), Some("first"));
        assert!(backlog.push_later("team", "second", now) && backlog.has_later());
        assert_eq!(backlog.take(false, now), Some(("team".to_owned(), "second")));
        assert!(!backlog.has_later() && backlog.len() == 3);
        let kept = (0..=LATER).filter(|_| backlog.push_later("team", "many", now)).count();
        assert_eq!(kept, LATER + 1);
        assert!(backlog.take(true, now).is_some(), "too many wait");
        assert!(backlog.take(true, now).is_none());
    }

    #[test]
    fn event_of_a_first_token_that_is_late_comes_before_younger_ones() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        assert!(backlog.push("team", "old", now) && backlog.push_later("team", "first", now + LATEST / 2));
        assert!((0..3).all(|_| backlog.push("team", "young", now + LATEST)));
        let mut take = |after: Duration| backlog.take(true, now + after).map(|(_, event)| event);
        assert_eq!([take(LATEST), take(LATEST)], [Some("old"), Some("young")]);
        assert_eq!([LATEST * 3 / 2; 3].map(&mut take), [Some("first"), Some("young"), Some("young")]);
    }

    #[test]
    fn too_many_events_are_dropped_those_of_one_namespace_first() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        let kept = (0..WAITING.0).filter(|number| backlog.push("loud", *number, now)).count();
        assert_eq!(kept, WAITING.1);
        assert!(backlog.push("other", 0, now));
        let kept = (0..2 * WAITING.0).filter(|number| backlog.push(&format!("{number}"), *number, now)).count();
        assert_eq!(kept, WAITING.0 - WAITING.1 - 1);
    }

    #[test]
    fn nothing_is_kept_of_what_is_published() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        assert!((0..10).all(|number| backlog.push("team", number, now)));
        assert!((0..10).all(|number| backlog.push_later("team", number, now)));
        while let Some((namespace, _)) = backlog.take(false, now) {
            backlog.done(&namespace);
        }
        assert!(backlog.is_empty() && backlog.namespaces.is_empty());
    }
}
