//! How many failures count, how many clients are remembered, and whose are forgotten beyond that.

use std::{collections::HashMap, sync::Arc};

use crate::requests::request::Requester;

/// Consecutive failures that open a circuit: more than an occasional failure, and few enough to relieve a server soon.
pub(super) const THRESHOLD: u32 = 5;
/// The number of failing clients that are remembered, and of those that fail by themselves. Beyond it, those of the
/// namespace with most of them are forgotten.
pub(super) const FAILING_MAX: usize = 4096;

/// The namespace with most of these clients.
pub(super) fn most_frequent<'a>(clients: impl Iterator<Item = &'a Requester>) -> Option<Arc<str>> {
    let mut counts: HashMap<&Arc<str>, usize> = HashMap::new();
    clients.for_each(|client| *counts.entry(&client.namespace).or_default() += 1);
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(namespace, _)| namespace.clone())
}
