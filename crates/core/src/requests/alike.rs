//! The waiting requests by client and content, so that those of a client, and those that share a response, are found
//! without reading all that wait.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::request::{Request, Requester};

/// The waiting requests by client and content.
#[derive(Debug)]
pub struct Alike<K> {
    clients: HashMap<Requester, BTreeMap<Arc<str>, BTreeSet<K>>>,
}

impl<K> Default for Alike<K> {
    fn default() -> Self {
        Self { clients: HashMap::new() }
    }
}

impl<K: Ord> Alike<K> {
    /// Adds a request.
    pub fn insert(&mut self, request: &Request, key: K) {
        let contents = self.clients.entry(request.requester.clone()).or_default();
        contents.entry(request.content.clone()).or_default().insert(key);
    }

    /// Removes a request.
    pub fn remove(&mut self, request: &Request, key: &K) {
        let Some(contents) = self.clients.get_mut(&request.requester) else { return };
        if let Some(keys) = contents.get_mut(&request.content) {
            keys.remove(key);
            if keys.is_empty() {
                contents.remove(&request.content);
            }
        }
        if contents.is_empty() {
            self.clients.remove(&request.requester);
        }
    }

    /// The requests of a client.
    pub fn of_client(&self, requester: &Requester) -> impl Iterator<Item = &K> {
        self.clients.get(requester).into_iter().flat_map(BTreeMap::values).flatten()
    }

    /// The requests with the client and the content of this one.
    pub fn of(&self, request: &Request) -> impl Iterator<Item = &K> {
        let contents = self.clients.get(&request.requester);
        contents.and_then(|contents| contents.get(&request.content)).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(secret: &str, content: &str) -> Request {
        Request {
            requester: Requester { namespace: "a".into(), secret: secret.into() },
            client_version: None,
            content: content.into(),
            expires_at: None,
            is_retry: false,
        }
    }

    #[test]
    fn requests_are_found_by_client_and_content_until_they_are_removed() {
        let mut alike = Alike::default();
        let all = [("one", "x", 1), ("one", "x", 2), ("one", "y", 3), ("two", "x", 4)];
        all.iter().for_each(|(secret, content, key)| alike.insert(&request(secret, content), *key));
        let one = request("one", "x");
        assert_eq!(alike.of(&one).copied().collect::<Vec<i32>>(), [1, 2]);
        assert_eq!(alike.of_client(&one.requester).copied().collect::<Vec<i32>>(), [1, 2, 3]);
        all.iter().for_each(|(secret, content, key)| alike.remove(&request(secret, content), key));
        assert_eq!(alike.of(&one).count() + alike.of_client(&one.requester).count(), 0);
        assert!(alike.clients.is_empty(), "nothing is kept of a client that is gone");
    }
}
