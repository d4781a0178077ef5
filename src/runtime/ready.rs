//! The work queue of objects that are due and wait for a worker. Namespaces are served round robin, so that thousands
//! of objects of one tenant do not delay those of another. An object with a request slot is first, since others wait
//! for the slot. A namespace that may take no worker now is skipped, and keeps its place.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::Hash,
    sync::Arc,
};

/// The objects that are due, each once.
pub struct Ready<T> {
    first: Lane<T>,
    others: Lane<T>,
    /// All queued objects. One that is moved to the front leaves a stale entry in its namespace.
    queued: HashSet<T>,
    /// The objects in `first`.
    moved: HashSet<T>,
}

/// Objects by namespace.
struct Lane<T> {
    namespaces: HashMap<Arc<str>, VecDeque<T>>,
    /// Namespaces with objects in round robin order, the next one at the front.
    rotation: VecDeque<Arc<str>>,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { namespaces: HashMap::new(), rotation: VecDeque::new() }
    }
}

impl<T> Default for Ready<T> {
    fn default() -> Self {
        Self { first: Lane::default(), others: Lane::default(), queued: HashSet::new(), moved: HashSet::new() }
    }
}

impl<T: Clone + Eq + Hash> Ready<T> {
    /// Adds an object of a namespace unless it is queued. An object that `goes_first` is moved to the front.
    pub fn push(&mut self, object: T, namespace: &str, goes_first: bool) {
        let is_new = self.queued.insert(object.clone());
        if goes_first {
            if self.moved.insert(object.clone()) {
                self.first.push(object, namespace);
            }
        } else if is_new {
            self.others.push(object, namespace);
        }
    }

    /// Removes the next object for whose namespace `take` returns something, and returns both.
    pub fn pop<W>(&mut self, take: impl Fn(&str) -> Option<W>) -> Option<(T, W)> {
        let Self { first, others, queued, moved } = self;
        let next = first.pop(&take, |object| moved.contains(object));
        let next = next.or_else(|| others.pop(&take, |object| queued.contains(object) && !moved.contains(object)));
        let (object, taken) = next?;
        moved.remove(&object);
        queued.remove(&object);
        Some((object, taken))
    }

    /// Removes objects for which `is_wanted`, at most so many, and of all namespaces in turn. One that goes first stays.
    pub fn take(&mut self, most: usize, is_wanted: impl Fn(&T) -> bool) -> Vec<T> {
        let Self { others: Lane { namespaces, rotation }, queued, moved, .. } = self;
        let queues = rotation.iter().filter_map(|namespace| namespaces.get(namespace));
        let mut queues: Vec<_> = queues.map(|objects| objects.iter()).collect();
        let mut taken = Vec::new();
        while taken.len() < most {
            let before = taken.len();
            for objects in &mut queues {
                if taken.len() == most {
                    return taken;
                }
                // its entry in the queue is stale from here on, and keeps its place if it is queued again
                let next =
                    objects.find(|object| !moved.contains(*object) && is_wanted(object) && queued.remove(*object));
                taken.extend(next.cloned());
            }
            if taken.len() == before {
                break;
            }
        }
        taken
    }

    /// Whether the queue is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }
}

impl<T> Lane<T> {
    fn push(&mut self, object: T, namespace: &str) {
        let place = self.namespaces.get_key_value(namespace).map(|(namespace, _)| namespace.clone());
        let namespace = place.unwrap_or_else(|| {
            let namespace: Arc<str> = namespace.into();
            self.rotation.push_back(namespace.clone());
            namespace
        });
        self.namespaces.entry(namespace).or_default().push_back(object);
    }

    /// The next object that `is_queued` and for whose namespace `take` returns something. Entries that are stale cost
    /// their namespace no turn.
    fn pop<W>(&mut self, take: impl Fn(&str) -> Option<W>, is_queued: impl Fn(&T) -> bool) -> Option<(T, W)> {
        let mut place = 0;
        loop {
            let namespace = self.rotation.get(place)?.clone();
            let objects = self.namespaces.get_mut(&namespace)?;
            while objects.front().is_some_and(|object| !is_queued(object)) {
                objects.pop_front();
            }
            let taken = if objects.is_empty() { None } else { take(&namespace) };
            let next = taken.and_then(|taken| Some((objects.pop_front()?, taken)));
            if objects.is_empty() {
                self.rotation.remove(place);
                self.namespaces.remove(&namespace);
            } else if next.is_some() {
                self.rotation.remove(place);
                self.rotation.push_back(namespace);
            } else {
                place += 1;
            }
            if next.is_some() {
                return next;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(ready: &mut Ready<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| ready.pop(|_| Some(()))).map(|(name, ())| name).collect()
    }

    #[test]
    fn namespaces_are_served_round_robin() {
        let mut ready = Ready::default();
        for name in ["a1", "a2", "a3", "b1", "b2", "c1"] {
            ready.push(name, &name[..1], false);
        }
        assert_eq!(order(&mut ready), ["a1", "b1", "c1", "a2", "b2", "a3"]);
        assert!(ready.is_empty() && ready.others.rotation.is_empty() && ready.others.namespaces.is_empty());
    }

    #[test]
    fn namespace_that_may_take_no_worker_is_skipped_and_keeps_its_place() {
        let mut ready = Ready::default();
        for (name, goes_first) in [("a1", false), ("a2", true), ("b1", false), ("b2", false), ("c1", true)] {
            ready.push(name, &name[..1], goes_first);
        }
        let mut next = |refused: &str| {
            let take = |namespace: &str| (namespace != refused).then_some(());
            ready.pop(take).map(|(name, ())| name)
        };
        assert_eq!([next("a"), next("a")], [Some("c1"), Some("b1")], "also where its object goes first");
        assert_eq!([next("b"), next("b"), next("b")], [Some("a2"), Some("a1"), None]);
        assert_eq!([next(""), next("")], [Some("b2"), None]);
        assert!(ready.is_empty() && ready.others.rotation.is_empty() && ready.first.namespaces.is_empty());
    }

    #[test]
    fn objects_are_taken_out_of_turn() {
        let mut ready = Ready::default();
        for name in ["a1", "a2", "b1", "b2"] {
            ready.push(name, &name[..1], false);
        }
        assert_eq!(ready.take(2, |_| true), ["a1", "b1"], "of all namespaces in turn");
        for most in 0..4 {
            let mut ready = Ready::default();
            for name in ["a1", "a2", "b1", "c1"] {
                ready.push(name, &name[..1], false);
            }
            let mut all = ready.take(most, |_| true);
            assert_eq!(all.len(), most);
            all.extend(order(&mut ready));
            all.sort_unstable();
            assert_eq!(all, ["a1", "a2", "b1", "c1"], "none is lost where only {most} are taken");
        }
        ready.push("b2", "b", true);
        assert_eq!(ready.take(9, |name| name.ends_with('2')), ["a2"], "one that goes first stays");
        ready.push("a2", "a", false);
        assert_eq!(order(&mut ready), ["b2", "a2"]);
        assert!(ready.is_empty());
    }

    #[test]
    fn object_is_queued_once_and_may_be_moved_to_the_front() {
        let mut ready = Ready::default();
        for name in ["a1", "a2", "a1", "b1"] {
            ready.push(name, &name[..1], false);
        }
        ready.push("a2", "a", true);
        ready.push("a2", "a", true);
        assert_eq!(order(&mut ready), ["a2", "a1", "b1"]);
        assert!(ready.is_empty());
    }
}
