//! How much memory the tokens take that were issued and not written yet. A server may give the credentials of one
//! namespace thousands of long tokens, and the API server may refuse each write of them: what is kept is limited, first
//! for the namespace that keeps most.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The tokens that one namespace may keep, in bytes: two thousand of an ordinary size.
const NAMESPACE: usize = 4 << 20;
/// From this total on, in bytes, a namespace keeps no more than [`LEAST`].
const TOTAL: usize = 16 << 20;
/// What a namespace may keep in any case, in bytes: some tokens of the greatest size, or a hundred ordinary ones.
const LEAST: usize = 256 << 10;

/// The memory that issued tokens take, for each namespace.
#[derive(Default)]
pub struct KeptTokens {
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    namespaces: HashMap<Arc<str>, usize>,
    total: usize,
}

impl KeptTokens {
    /// Counts a token of this size for as long as the result, or a clone of it, lives.
    #[must_use]
    pub fn count(self: &Arc<Self>, namespace: &str, bytes: usize) -> Counted {
        let mut counts = self.counts();
        let namespace = counts
            .namespaces
            .get_key_value(namespace)
            .map_or_else(|| Arc::from(namespace), |(namespace, _)| namespace.clone());
        *counts.namespaces.entry(namespace.clone()).or_default() += bytes;
        counts.total += bytes;
        drop(counts);
        Counted { _inner: Arc::new(Inner { tokens: self.clone(), namespace, bytes }) }
    }

    /// Whether a namespace may keep what is counted for it by now.
    #[must_use]
    pub fn has_room(&self, namespace: &str) -> bool {
        let counts = self.counts();
        let bytes = counts.namespaces.get(namespace).copied().unwrap_or_default();
        bytes <= if counts.total <= TOTAL { NAMESPACE } else { LEAST }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // every change is complete before anything can panic
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token that is counted. Clones stand for the same memory.
#[derive(Clone)]
pub struct Counted {
    _inner: Arc<Inner>,
}

struct Inner {
    tokens: Arc<KeptTokens>,
    namespace: Arc<str>,
    bytes: usize,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut counts = self.tokens.counts();
        counts.total -= self.bytes;
        if let Some(bytes) = counts.namespaces.get_mut(&self.namespace) {
            *bytes -= self.bytes;
            if *bytes == 0 {
                counts.namespaces.remove(&self.namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: usize = 32 << 10;

    #[test]
    fn namespace_keeps_tokens_up_to_its_limit_and_clones_count_once() {
        let tokens = Arc::new(KeptTokens::default());
        let kept: Vec<_> = (0..NAMESPACE / TOKEN).map(|_| tokens.count("greedy", TOKEN)).collect();
        let clones = kept.clone();
        assert!(tokens.has_room("greedy"));
        let one_more = tokens.count("greedy", TOKEN);
        assert!(!tokens.has_room("greedy") && tokens.has_room("other"));
        drop(kept);
        assert!(!tokens.has_room("greedy"), "the clones are there");
        drop((clones, one_more));
        assert!(tokens.has_room("greedy") && tokens.counts().namespaces.is_empty());
    }

    #[test]
    fn many_namespaces_that_keep_much_leave_room_for_one_that_keeps_little() {
        let tokens = Arc::new(KeptTokens::default());
        let namespaces = 2 * TOTAL / NAMESPACE;
        let kept: Vec<_> = (0..namespaces).map(|n| tokens.count(&format!("greedy-{n}"), NAMESPACE)).collect();
        let _little = tokens.count("modest", 2 << 10);
        assert!(tokens.has_room("modest") && !tokens.has_room("greedy-0"));
        drop(kept);
        assert_eq!(tokens.counts().total, 2 << 10);
    }
}
