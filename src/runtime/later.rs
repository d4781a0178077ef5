//! When objects are reconciled again. What is due at once does not wait here: a timer costs a system call and a wait for
//! its next tick, a millisecond.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use tokio::time::Instant;

/// What orders the objects: their times, and of equal ones the order in which they were set.
type Place = (Instant, u64);

/// The objects that are reconciled later, each once.
pub struct Later<T> {
    by_time: BTreeMap<Place, T>,
    places: HashMap<T, Place>,
    count: u64,
}

impl<T> Default for Later<T> {
    fn default() -> Self {
        Self { by_time: BTreeMap::new(), places: HashMap::new(), count: 0 }
    }
}

impl<T: Clone + Eq + Hash> Later<T> {
    /// Has an object be due at this time, and at no other.
    pub fn set(&mut self, object: T, at: Instant) {
        self.remove(&object);
        self.count += 1;
        self.by_time.insert((at, self.count), object.clone());
        self.places.insert(object, (at, self.count));
    }

    /// Forgets an object.
    pub fn remove(&mut self, object: &T) {
        if let Some(place) = self.places.remove(object) {
            self.by_time.remove(&place);
        }
    }

    /// When the next object is due.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.by_time.first_key_value().map(|((at, _), _)| *at)
    }

    /// Removes the next object that is due at this time.
    pub fn pop_due(&mut self, now: Instant) -> Option<T> {
        let first = self.by_time.first_entry().filter(|first| first.key().0 <= now)?;
        let object = first.remove();
        self.places.remove(&object);
        Some(object)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn objects_are_due_in_the_order_of_their_times_each_once() {
        let (mut later, start) = (Later::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for (object, seconds) in [("b", 20), ("d", 30), ("c", 20), ("a", 40), ("e", 5), ("a", 10)] {
            later.set(object, at(seconds));
        }
        later.remove(&"e");
        later.remove(&"of nothing");
        assert_eq!(later.next_at(), Some(at(10)));
        assert_eq!(later.pop_due(at(9)), None);
        let due: Vec<&str> = std::iter::from_fn(|| later.pop_due(at(29))).collect();
        assert_eq!(due, ["a", "b", "c"], "at its last time, and in the order in which they were set");
        assert_eq!((later.next_at(), later.pop_due(at(30))), (Some(at(30)), Some("d")));
        assert!(later.next_at().is_none() && later.by_time.is_empty() && later.places.is_empty());
    }
}
