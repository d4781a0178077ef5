//! Which requests are lists and watches, and how many objects to request in a page of a list, so that the page is not
//! too long: Kubernetes limits pages only by the number of objects.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use http::{Uri, uri::PathAndQuery};

/// A page that is too long is requested again with this fraction of its objects: 1/4. Halves would take too many
/// requests: large objects are a thousand times as long as others.
const SMALLER: u32 = 4;
/// A page that has at most half of the maximum length is followed by one with this many times its objects.
const LARGER: u32 = 2;

/// The number of objects that last fit into a page, for each path whose pages were too long.
pub struct Pages {
    most: usize,
    fitting: Mutex<HashMap<String, u32>>,
}

impl Pages {
    /// Limits pages to `most` bytes.
    pub fn new(most: usize) -> Self {
        Self { most, fitting: Mutex::default() }
    }

    /// The number of objects to request in the next page of a path, at most `requested`.
    pub fn next(&self, path: &str, requested: u32) -> u32 {
        self.fitting(|fitting| fitting.get(path).map_or(requested, |limit| requested.min(*limit)))
    }

    /// Records that a page with this limit was too long.
    pub fn was_too_long(&self, path: &str, limit: u32) {
        self.fitting(|fitting| fitting.insert(path.to_owned(), (limit / SMALLER).max(1)));
    }

    /// Records that a page with this limit had this length in bytes.
    pub fn fitted(&self, path: &str, limit: u32, length: usize) {
        self.fitting(|fitting| {
            // a path whose pages were never too long is not remembered
            if let Some(next) = fitting.get_mut(path)
                && length <= self.most / LARGER as usize
            {
                *next = limit.saturating_mul(LARGER);
            }
        });
    }

    fn fitting<T>(&self, with: impl FnOnce(&mut HashMap<String, u32>) -> T) -> T {
        with(&mut self.fitting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether a request is a watch.
pub fn is_watch(uri: &Uri) -> bool {
    parameters(uri).any(|parameter| parameter == "watch=true")
}

/// The `limit` of a list of all objects; `None` for other requests.
pub fn limit(uri: &Uri) -> Option<u32> {
    if is_of_one(uri) {
        return None;
    }
    parameters(uri).find_map(|parameter| parameter.strip_prefix("limit="))?.parse().ok()
}

/// Whether a request is for all objects of its path: a watch, or a page of a list.
pub fn is_of_all(uri: &Uri) -> bool {
    limit(uri).is_some() || (is_watch(uri) && !is_of_one(uri))
}

/// A list or watch of one object by its name has the path of that of all objects, and says nothing of them.
fn is_of_one(uri: &Uri) -> bool {
    parameters(uri).any(|parameter| parameter.starts_with("fieldSelector="))
}

fn parameters(uri: &Uri) -> impl Iterator<Item = &str> {
    uri.query().into_iter().flat_map(|query| query.split('&'))
}

/// The same list with another `limit`.
pub fn with_limit(uri: &Uri, limit: u32) -> Result<Uri, http::Error> {
    let query = uri.query().unwrap_or_default().split('&');
    let query = query.map(|part| if part.starts_with("limit=") { format!("limit={limit}") } else { part.to_owned() });
    let query = format!("{}?{}", uri.path(), query.collect::<Vec<_>>().join("&"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(query)?);
    Ok(Uri::from_parts(parts)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_limit_of_a_list_is_changed() {
        let uri: Uri = "/api/v1/secrets?&limit=100&continue=a%3D%3D&labelSelector=limit%3D".parse().expect("a URI");
        assert_eq!(limit(&uri), Some(100));
        let other = with_limit(&uri, 6).expect("a URI");
        assert_eq!(other, "/api/v1/secrets?&limit=6&continue=a%3D%3D&labelSelector=limit%3D");
        for other in ["watch=true", "fieldSelector=metadata.name%3Dx&limit=1"] {
            assert_eq!(limit(&format!("/api/v1/secrets?{other}").parse().expect("a URI")), None, "{other}");
        }
    }

    #[test]
    fn watch_or_list_of_one_object_is_not_of_all() {
        for (query, expected) in [
            ("&watch=true&timeoutSeconds=60", (true, true)),
            ("&fieldSelector=metadata.name%3Dx&watch=true", (true, false)),
            ("&limit=100", (false, true)),
            ("&fieldSelector=metadata.name%3Dx&limit=1", (false, false)),
            ("labelSelector=watch%3Dtrue", (false, false)),
        ] {
            let uri: Uri = format!("/api/v1/secrets?{query}").parse().expect("a URI");
            assert_eq!((is_watch(&uri), is_of_all(&uri)), expected, "{query}");
        }
        assert!(!is_of_all(&"/api/v1/secrets".parse().expect("a URI")), "no query");
    }

    #[test]
    fn pages_shrink_until_they_fit_and_grow_again_up_to_the_requested_limit() {
        let pages = Pages::new(1000);
        let mut limits = Vec::new();
        for _ in 0..5 {
            limits.push(pages.next("/a", 100));
            pages.was_too_long("/a", pages.next("/a", 100));
        }
        assert_eq!(limits, [100, 25, 6, 1, 1]);
        assert_eq!(pages.next("/b", 100), 100, "another path");
        pages.fitted("/a", 1, 501);
        assert_eq!(pages.next("/a", 100), 1, "two objects would not fit");
        limits.clear();
        for _ in 0..8 {
            pages.fitted("/a", pages.next("/a", 100), 500);
            limits.push(pages.next("/a", 100));
        }
        assert_eq!(limits, [2, 4, 8, 16, 32, 64, 100, 100]);
    }
}
