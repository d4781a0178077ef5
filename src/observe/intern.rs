//! Interned strings that thousands of Secrets share: issuers, client identifiers, scopes and versions of client
//! Secrets.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

/// The number of strings up to which unused ones are not dropped.
const SWEEP_MIN: usize = 64;

/// The interned strings, and the number of strings at which unused ones are dropped.
#[derive(Default)]
struct Strings {
    all: HashSet<Arc<str>>,
    sweep_at: usize,
}

/// Returns the shared copy of a string. Unused strings are dropped before the number of strings doubles, so that the
/// work is proportional to the number of new strings.
pub fn intern(text: &str) -> Arc<str> {
    static STRINGS: Mutex<Option<Strings>> = Mutex::new(None);
    let mut strings = STRINGS.lock().unwrap_or_else(PoisonError::into_inner);
    strings.get_or_insert_default().intern(text)
}

impl Strings {
    fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.all.get(text) {
            return known.clone();
        }
        if self.all.len() >= self.sweep_at.max(SWEEP_MIN) {
            self.all.retain(|text| Arc::strong_count(text) > 1);
            self.sweep_at = self.all.len() * 2;
        }
        let new: Arc<str> = text.into();
        self.all.insert(new.clone());
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_share_one_copy() {
        assert!(Arc::ptr_eq(&intern("https://ims"), &intern("https://ims")));
        assert!(!Arc::ptr_eq(&intern("https://ims"), &intern("https://other")));
    }

    #[test]
    fn unused_strings_are_dropped() {
        let mut strings = Strings::default();
        let kept = strings.intern("kept");
        for number in 0..100 * SWEEP_MIN {
            strings.intern(&number.to_string());
        }
        assert!(strings.all.len() <= SWEEP_MIN);
        assert!(Arc::ptr_eq(&kept, &strings.intern("kept")));
    }

    #[test]
    fn strings_in_use_are_kept() {
        let mut strings = Strings::default();
        let used: Vec<Arc<str>> = (0..3 * SWEEP_MIN).map(|number| strings.intern(&number.to_string())).collect();
        assert_eq!(strings.all.len(), used.len());
        assert!(used.iter().all(|text| Arc::ptr_eq(text, &strings.intern(text))));
    }
}
