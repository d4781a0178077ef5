//! A credential that is being deleted: the operator requests no token for it any more, so that its last one ends.

use itwin_api::credential::ITwinServiceCredential;
use itwin_core::messages_lifetime;

/// Finalizers that are named.
const NAMED: usize = 5;

/// Why the token of a credential is not renewed any more, with the finalizers that hold it, in words that the operator
/// uses too; `None` if it is not being deleted.
#[must_use]
pub fn why(credential: &ITwinServiceCredential) -> Option<String> {
    credential.metadata.deletion_timestamp.as_ref()?;
    let finalizers = credential.metadata.finalizers.as_deref().unwrap_or_default();
    Some(messages_lifetime::being_deleted(&finalizers[..finalizers.len().min(NAMED)]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::view::tests::{credential, deleted, merge};

    #[test]
    fn deletion_names_the_first_finalizers() {
        assert_eq!(why(&credential("a", &json!({"metadata": {"finalizers": ["example.com/hold"]}}))), None);
        let held = why(&credential("a", &deleted())).unwrap_or_default();
        assert!(held.contains("is being deleted and is held by finalizer example.com/hold"), "{held}");
        let mut many = deleted();
        let names: Vec<String> = (0..9).map(|number| format!("example.com/{number}")).collect();
        merge(&mut many, &json!({"metadata": {"finalizers": names}}));
        let held = why(&credential("a", &many)).unwrap_or_default();
        assert!(held.contains("example.com/4") && !held.contains("example.com/5"), "{held}");
    }
}
