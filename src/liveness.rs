//! The liveness of the loops and watches that run indefinitely, for the liveness probe.
//!
//! A watch that fails silently while the pod seems healthy (Azure/kars#456, stackabletech/trino-operator#936) is the
//! worst failure of an operator. So each part records heartbeats, and if a part is stalled, the kubelet restarts the
//! container.

mod watches;

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use self::watches::Watch;
pub use self::watches::{Interruption, Listing, Trouble};

/// The parts that must record heartbeats, by name.
#[derive(Default)]
pub struct Liveness {
    parts: Mutex<BTreeMap<String, Part>>,
    /// The watches, by path.
    watches: Mutex<BTreeMap<String, Watch>>,
    /// A watch was interrupted, or works again.
    interrupted: Notify,
}

struct Part {
    limit: Duration,
    last_heartbeat: Instant,
}

impl Liveness {
    /// From now on, `part` must record a heartbeat at least once within `limit`.
    pub fn expect(&self, part: &str, limit: Duration) {
        self.parts(|parts| parts.insert(part.to_owned(), Part { limit, last_heartbeat: Instant::now() }));
    }

    /// Records a heartbeat of `part`. It is ignored if none is expected.
    pub fn heartbeat(&self, part: &str) {
        self.parts(|parts| {
            if let Some(part) = parts.get_mut(part) {
                part.last_heartbeat = Instant::now();
            }
        });
    }

    /// A description of a stalled part, if there is one.
    #[must_use]
    pub fn stalled(&self) -> Option<String> {
        self.stalled_at(Instant::now())
    }

    #[cfg(test)]
    pub(crate) fn heartbeat_since(&self, part: &str, instant: Instant) -> bool {
        self.parts(|parts| parts.get(part).is_some_and(|part| part.last_heartbeat >= instant))
    }

    fn stalled_at(&self, now: Instant) -> Option<String> {
        self.parts(|parts| {
            let silence = |part: &Part| now.saturating_duration_since(part.last_heartbeat);
            let (name, part) = parts.iter().find(|(_, part)| silence(part) > part.limit)?;
            Some(format!("{name} has had no heartbeat for {} s", silence(part).as_secs()))
        })
    }

    fn parts<T>(&self, with: impl FnOnce(&mut BTreeMap<String, Part>) -> T) -> T {
        with(&mut self.parts.lock().unwrap_or_else(PoisonError::into_inner))
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
        assert!(reported.starts_with("the watch has had no heartbeat for 1"), "{reported}");
    }

    #[test]
    fn part_with_heartbeats_is_never_stalled() {
        let liveness = Liveness::default();
        liveness.expect("the watch", Duration::ZERO);
        std::thread::sleep(Duration::from_millis(2));
        assert!(liveness.stalled().is_some());
        liveness.expect("the watch", LIMIT);
        liveness.heartbeat("the watch");
        liveness.heartbeat("an unexpected part");
        assert_eq!(liveness.stalled(), None);
    }
}
