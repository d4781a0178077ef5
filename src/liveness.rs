//! What must go on for ever, and whether it does: the liveness probe asks here.
//!
//! A watch that died without a word while the pod looks healthy (Azure/kars#456, stackabletech/trino-operator#936) is
//! the worst failure of an operator. So each part says when it moved last, and one that has not moved for too long
//! has the process ended by the kubelet.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The parts that must move, by name.
#[derive(Default)]
pub struct Liveness(Mutex<BTreeMap<String, Part>>);

struct Part {
    limit: Duration,
    moved: Instant,
}

impl Liveness {
    /// From now on `part` must move at least once within `limit`.
    pub fn expect(&self, part: &str, limit: Duration) {
        self.parts(|parts| parts.insert(part.to_owned(), Part { limit, moved: Instant::now() }));
    }

    /// `part` moved. One that nobody expects anything of is ignored.
    pub fn heartbeat(&self, part: &str) {
        self.parts(|parts| {
            if let Some(part) = parts.get_mut(part) {
                part.moved = Instant::now();
            }
        });
    }

    /// A part that has not moved for too long, in words.
    #[must_use]
    pub fn stalled(&self) -> Option<String> {
        self.stalled_at(Instant::now())
    }

    #[cfg(test)]
    pub(crate) fn heartbeat_since(&self, part: &str, instant: Instant) -> bool {
        self.parts(|parts| parts.get(part).is_some_and(|part| part.moved >= instant))
    }

    fn stalled_at(&self, now: Instant) -> Option<String> {
        self.parts(|parts| {
            let still = |part: &Part| now.saturating_duration_since(part.moved);
            let (name, part) = parts.iter().find(|(_, part)| still(part) > part.limit)?;
            Some(format!("{name} has not moved for {} s", still(part).as_secs()))
        })
    }

    fn parts<T>(&self, with: impl FnOnce(&mut BTreeMap<String, Part>) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn stalled_part_is_named() {
        let liveness = Liveness::default();
        liveness.expect("the watch", LIMIT);
        let now = Instant::now();
        assert_eq!(liveness.stalled_at(now + LIMIT / 2), None);
        let reported = liveness.stalled_at(now + LIMIT * 2).unwrap_or_default();
        assert!(reported.starts_with("the watch has not moved for 1"), "{reported}");
    }

    #[test]
    fn part_with_heartbeats_is_never_stalled() {
        let liveness = Liveness::default();
        liveness.expect("the watch", Duration::ZERO);
        std::thread::sleep(Duration::from_millis(2));
        assert!(liveness.stalled().is_some());
        liveness.expect("the watch", LIMIT);
        liveness.heartbeat("the watch");
        liveness.heartbeat("what nobody expects");
        assert_eq!(liveness.stalled(), None);
    }
}
