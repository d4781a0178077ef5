//! The queues of the authorities, in which of them each request is, and what the dispatcher is to do.

use std::{collections::HashMap, sync::Arc};

use itwin_core::{
    object::ObjectKey,
    requests::{Now, Outcome, RequestQueue, pacer::Pacer},
    token::Content,
};

/// Limits of an authority before its spec was read; nothing is sent then.
const FIRST_LIMITS: (u16, u32) = (1, 60);

/// The queues of all authorities, and what waits in them.
#[derive(Default)]
pub(super) struct State {
    /// By the name of the authority.
    pub(super) queues: HashMap<Arc<str>, Queue>,
    /// In which queue each credential's request is, waiting or admitted.
    pub(super) places: HashMap<Arc<ObjectKey>, Arc<str>>,
    /// Tokens that were issued to an equal request, until their credentials take them.
    pub(super) shared: HashMap<Arc<ObjectKey>, Box<Content>>,
    /// Credentials to reconcile.
    pub(super) enqueued: Vec<Arc<ObjectKey>>,
    /// Authorities that answer again.
    pub(super) recovered: Vec<Arc<str>>,
}

/// The queue of one authority.
pub(super) struct Queue {
    pub(super) queue: RequestQueue<Arc<ObjectKey>>,
    /// The pace at which requests are really sent: what is admitted evenly may reach this point in bursts.
    pub(super) sends: Pacer,
    /// How often the circuit closed again: moves when attempts are worth while again.
    pub(super) recoveries: u32,
}

impl State {
    pub(super) fn name(&self, authority: &str) -> Arc<str> {
        self.queues.get_key_value(authority).map_or_else(|| Arc::from(authority), |(name, _)| name.clone())
    }

    pub(super) fn queue(&mut self, authority: &str) -> &mut Queue {
        let name = self.name(authority);
        self.queues.entry(name).or_insert_with(|| {
            let (max_in_flight, per_minute) = FIRST_LIMITS;
            Queue { queue: RequestQueue::new(max_in_flight, per_minute), sends: Pacer::new(per_minute), recoveries: 0 }
        })
    }

    /// Takes out what waits, and gives back what was admitted and no worker has taken up.
    pub(super) fn leave(&mut self, key: &ObjectKey, now: Now) {
        let Some((key, place)) = self.places.remove_entry(key) else { return };
        let Some(Queue { queue, .. }) = self.queues.get_mut(&place) else { return };
        queue.leave(&key);
        if queue.is_admitted(&key) {
            queue.settle(&key, None, &Outcome::NotSent, now);
        }
    }
}
