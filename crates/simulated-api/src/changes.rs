//! Notice of changes. Unlike tokio's watch channel it notifies those who wait in the order in which they began to wait:
//! the channel spreads them at random, and then nothing repeats itself.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

#[derive(Debug, Default)]
struct Shared {
    count: AtomicU64,
    notify: Notify,
}

/// Reports changes. Clones report to the same listeners.
#[derive(Clone, Debug, Default)]
pub struct Changes(Arc<Shared>);

impl Changes {
    /// Something changed.
    pub fn report(&self) {
        self.0.count.fetch_add(1, Ordering::SeqCst);
        self.0.notify.notify_waiters();
    }

    /// Listens from now on.
    pub fn listen(&self) -> Listener {
        Listener { seen: self.0.count.load(Ordering::SeqCst), shared: self.0.clone() }
    }
}

/// Hears of changes.
#[derive(Debug)]
pub struct Listener {
    shared: Arc<Shared>,
    seen: u64,
}

impl Listener {
    /// What has changed up to now is known.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.count.load(Ordering::SeqCst);
    }

    /// Waits until something has changed that is not known.
    pub async fn changed(&mut self) {
        loop {
            let notified = self.shared.notify.notified();
            let count = self.shared.count.load(Ordering::SeqCst);
            if count != self.seen {
                self.seen = count;
                return;
            }
            notified.await;
        }
    }
}
