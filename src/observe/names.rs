//! Which Secrets exist, as far as the watch has shown: a few bytes for each. The watch drops what no credential names, so
//! that a credential which is created later would have to read whether there is a Secret of its name.

use std::{
    collections::{HashMap, HashSet},
    hash::BuildHasher,
};

use itwin_core::object::ObjectKey;

/// The place of a watch of all namespaces.
const ALL: &str = "";

/// The Secrets that the watches have shown, by the namespace that each watches, or [`ALL`].
#[derive(Default)]
pub(super) struct Names(HashMap<String, Shown>);

#[derive(Default)]
struct Shown {
    /// A whole list was taken in: what is not here does not exist.
    is_complete: bool,
    /// Digests of namespace and name, with a key of this process, so that no one can choose names whose digests are equal.
    /// Of two that are equal, one is taken for the other. That costs a read, or, once the other is deleted, a token that
    /// waits for its Secret: a creation finds out.
    digests: HashSet<u32>,
    /// The highest resourceVersion of a Secret. Unlike that of a list or bookmark, it comes to each API server with a Secret,
    /// so that no read waits for it for long.
    latest: u64,
}

impl Names {
    /// A list starts.
    pub(super) fn listing_began(&mut self, namespace: Option<&str>) {
        self.0.insert(namespace.unwrap_or(ALL).to_owned(), Shown::default());
    }

    /// A list ended.
    pub(super) fn listing_ended(&mut self, namespace: Option<&str>) {
        if let Some(shown) = self.0.get_mut(namespace.unwrap_or(ALL)) {
            shown.is_complete = true;
            shown.digests.shrink_to_fit();
        }
    }

    /// A Secret exists.
    pub(super) fn exists(&mut self, key: &ObjectKey) {
        let digest = self.digest_of(key);
        if let Some(shown) = self.of_mut(key) {
            shown.digests.insert(digest);
        }
    }

    /// A Secret has this resourceVersion, as a watch shows.
    pub(super) fn is_shown(&mut self, key: &ObjectKey, version: u64) {
        if let Some(shown) = self.of_mut(key) {
            shown.latest = version.max(shown.latest);
        }
    }

    /// The highest resourceVersion that the watch of this Secret has shown; `None` where it has shown no whole list.
    pub(super) fn latest(&self, key: &ObjectKey) -> Option<u64> {
        self.of(key).filter(|shown| shown.is_complete && shown.latest > 0).map(|shown| shown.latest)
    }

    /// A Secret does not exist.
    pub(super) fn is_gone(&mut self, key: &ObjectKey) {
        let digest = self.digest_of(key);
        if let Some(shown) = self.of_mut(key) {
            shown.digests.remove(&digest);
        }
    }

    /// Whether the watch shows that there is no such Secret.
    pub(super) fn is_absent(&self, key: &ObjectKey) -> bool {
        self.of(key).is_some_and(|shown| shown.is_complete && !shown.digests.contains(&self.digest_of(key)))
    }

    /// Nothing is known any more.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    fn of(&self, key: &ObjectKey) -> Option<&Shown> {
        self.0.get(ALL).or_else(|| self.0.get(&key.namespace))
    }

    fn of_mut(&mut self, key: &ObjectKey) -> Option<&mut Shown> {
        let watched = if self.0.contains_key(ALL) { ALL } else { key.namespace.as_str() };
        self.0.get_mut(watched)
    }

    fn digest_of(&self, key: &ObjectKey) -> u32 {
        let digest = self.0.hasher().hash_one((key.namespace.as_str(), key.name.as_str()));
        u32::try_from(digest >> u32::BITS).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, name: &str) -> ObjectKey {
        ObjectKey::new(namespace, name)
    }

    #[test]
    fn absence_is_known_from_a_whole_list_and_what_came_after_it() {
        let (mut names, [there, other]) = (Names::default(), ["there", "other"].map(|name| key("team", name)));
        names.exists(&there);
        assert!(!names.is_absent(&other), "nothing was listed");
        names.listing_began(None);
        names.exists(&there);
        assert!(!names.is_absent(&other), "more may come");
        names.listing_ended(None);
        assert!(names.is_absent(&other) && !names.is_absent(&there));
        names.exists(&other);
        names.is_gone(&there);
        assert!(names.is_absent(&there) && !names.is_absent(&other));
        names.listing_began(None);
        assert!(!names.is_absent(&there), "a list starts again");
        names.listing_ended(None);
        names.forget();
        assert!(!names.is_absent(&there));
    }

    #[test]
    fn no_one_knows_which_names_have_one_digest() {
        let secret = key("team", "there");
        let digests: HashSet<_> = (0..8).map(|_| Names::default().digest_of(&secret)).collect();
        assert!(digests.len() > 1, "it depends on a key of the process");
    }

    #[test]
    fn highest_version_of_a_secret_counts_once_all_are_listed() {
        let (mut names, secret) = (Names::default(), key("team", "there"));
        names.is_shown(&secret, 9);
        names.listing_began(None);
        names.is_shown(&secret, 7);
        assert_eq!(names.latest(&secret), None, "more may come");
        names.listing_ended(None);
        names.is_shown(&key("other", "there"), 8);
        names.is_shown(&secret, 6);
        assert_eq!(names.latest(&secret), Some(8));
        names.listing_began(None);
        names.listing_ended(None);
        assert_eq!(names.latest(&secret), None, "there is no Secret");
    }

    #[test]
    fn each_watched_namespace_counts_for_itself() {
        let mut names = Names::default();
        names.listing_began(Some("team-a"));
        names.listing_began(Some("team-b"));
        names.listing_ended(Some("team-a"));
        names.exists(&key("team-a", "there"));
        assert!(names.is_absent(&key("team-a", "other")) && !names.is_absent(&key("team-a", "there")));
        assert!(!names.is_absent(&key("team-b", "other")) && !names.is_absent(&key("team-c", "other")));
    }
}
