//! The events that wait to be published. They wait here and not in the reconcile of their object, so that an API server
//! that takes no events, or a webhook that hangs, holds up no renewal. Few of a namespace are under way at a time, and few
//! wait, so that one namespace's are not in the way of another's.

use std::collections::{HashMap, VecDeque};

/// Events that wait, of all namespaces and of one. More of them are dropped, and counted.
const WAITING: (usize, usize) = (4000, 1000);
/// Events that are under way, of all namespaces and of one.
const UNDER_WAY: (usize, usize) = (32, 4);

/// What waits, in the order in which it came, and how many of each namespace are under way.
pub struct Backlog<T> {
    waiting: VecDeque<(String, T)>,
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
        Self { waiting: VecDeque::new(), namespaces: HashMap::new(), under_way: 0 }
    }
}

impl<T> Backlog<T> {
    /// Adds what is to be published in a namespace. Returns false where it is dropped, since too many wait.
    #[must_use]
    pub fn push(&mut self, namespace: &str, event: T) -> bool {
        let is_full = self.waiting.len() >= WAITING.0;
        let waiting = self.namespaces.get(namespace).map_or(0, |counts| counts.waiting);
        if is_full || waiting >= WAITING.1 {
            return false;
        }
        self.namespaces.entry(namespace.to_owned()).or_default().waiting += 1;
        self.waiting.push_back((namespace.to_owned(), event));
        true
    }

    /// The next one that may be published now, with its namespace; [`Self::done`] follows.
    pub fn take(&mut self) -> Option<(String, T)> {
        if self.under_way >= UNDER_WAY.0 {
            return None;
        }
        let may_go = |namespace: &str| self.namespaces.get(namespace).is_none_or(|it| it.under_way < UNDER_WAY.1);
        let place = self.waiting.iter().position(|(namespace, _)| may_go(namespace))?;
        let (namespace, event) = self.waiting.remove(place)?;
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

    /// Whether nothing waits or is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.under_way == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_hang_in_one_namespace_hold_up_no_other() {
        let mut backlog = Backlog::default();
        assert!((0..100).all(|number| backlog.push("hanging", number)));
        assert!(backlog.push("other", 100));
        let taken: Vec<(String, i32)> = std::iter::from_fn(|| backlog.take()).collect();
        let names: Vec<&str> = taken.iter().map(|(namespace, _)| namespace.as_str()).collect();
        assert_eq!(names, ["hanging", "hanging", "hanging", "hanging", "other"]);
        backlog.done("hanging");
        assert_eq!(backlog.take(), Some(("hanging".to_owned(), 4)), "in their order");
    }

    #[test]
    fn too_many_events_are_dropped_those_of_one_namespace_first() {
        let mut backlog = Backlog::default();
        let kept = (0..WAITING.0).filter(|number| backlog.push("loud", *number)).count();
        assert_eq!(kept, WAITING.1);
        assert!(backlog.push("other", 0));
        let kept = (0..2 * WAITING.0).filter(|number| backlog.push(&format!("{number}"), *number)).count();
        assert_eq!(kept, WAITING.0 - WAITING.1 - 1);
    }

    #[test]
    fn nothing_is_kept_of_what_is_published() {
        let mut backlog = Backlog::default();
        assert!((0..10).all(|number| backlog.push("team", number)));
        while let Some((namespace, _)) = backlog.take() {
            backlog.done(&namespace);
        }
        assert!(backlog.is_empty() && backlog.namespaces.is_empty());
    }
}
