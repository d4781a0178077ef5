//! One copy of texts that thousands of Secrets share: issuers, client identifiers, scopes, versions of client Secrets.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

/// So many texts are kept before it is asked which of them are still in use.
const FEW: usize = 64;

/// The texts, and how many there may be before those that nobody uses are dropped.
#[derive(Default)]
struct Texts {
    all: HashSet<Arc<str>>,
    sweep_at: usize,
}

/// The one copy of this text. What nobody else holds any more is dropped before the texts grow to twice their number,
/// so that the work for it stays in proportion to what comes in.
pub fn intern(text: &str) -> Arc<str> {
    static TEXTS: Mutex<Option<Texts>> = Mutex::new(None);
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    texts.get_or_insert_default().intern(text)
}

impl Texts {
    fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.all.get(text) {
            return known.clone();
        }
        if self.all.len() >= self.sweep_at.max(FEW) {
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
    fn equal_texts_are_one() {
        assert!(Arc::ptr_eq(&intern("https://ims"), &intern("https://ims")));
        assert!(!Arc::ptr_eq(&intern("https://ims"), &intern("https://other")));
    }

    #[test]
    fn texts_that_no_one_uses_are_dropped() {
        let mut texts = Texts::default();
        let kept = texts.intern("kept");
        for number in 0..100 * FEW {
            texts.intern(&number.to_string());
        }
        assert!(texts.all.len() <= FEW);
        assert!(Arc::ptr_eq(&kept, &texts.intern("kept")));
    }

    #[test]
    fn texts_in_use_stay() {
        let mut texts = Texts::default();
        let used: Vec<Arc<str>> = (0..3 * FEW).map(|number| texts.intern(&number.to_string())).collect();
        assert_eq!(texts.all.len(), used.len());
        assert!(used.iter().all(|text| Arc::ptr_eq(text, &texts.intern(text))));
    }
}
