//! The right to send one token request, which is returned however the request ends.

use std::sync::Arc;

use itwin_core::{
    object::{ObjectKey, ObjectVersion},
    requests::{Outcome, Requester, pacer::Pacer},
    token::Content,
};

use super::Requests;

/// The right to send one request. Dropping it gives the right back, as if nothing had been sent.
pub struct Slot {
    pub(super) requests: Arc<Requests>,
    pub(super) authority: Arc<str>,
    pub(super) key: Arc<ObjectKey>,
    /// The client.
    pub(super) requester: Requester,
    /// It was counted as sent, and the pace stood so then.
    pub(super) paced: Option<Pacer>,
    pub(super) ended: Option<(Outcome, ObjectVersion, Option<Box<Content>>)>,
}

impl Slot {
    /// Waits until the request may really be sent: at most one interval of the pace.
    pub async fn paced(&mut self) {
        let at = {
            let mut state = self.requests.state();
            let Some(queue) = state.queues.get_mut(&self.authority) else { return };
            let at = queue.sends.ready_at(self.requests.now().monotonic);
            queue.sends.take(at);
            self.paced = Some(queue.sends.clone());
            at
        };
        tokio::time::sleep_until(at.into()).await;
    }

    /// The request was sent and ended, with this version of the client Secret. `content` is what equal requests get.
    pub fn end(mut self, outcome: Outcome, version: ObjectVersion, content: Option<Box<Content>>) {
        self.ended = Some((outcome, version, content));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.requests.clone().settle(self);
    }
}
