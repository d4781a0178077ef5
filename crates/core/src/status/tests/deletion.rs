//! What a status says of a credential that is being deleted.

use super::*;

#[test]
fn time_passes_for_a_credential_that_is_being_deleted_and_ready_names_its_finalizers() {
    let finalizers = ["example.com/hold".to_owned()];
    let ready = |held: Option<i64>, finalizers: &[String], second: i64| {
        let status = status(&Inputs {
            observed: &observe(held),
            attempts: &Attempts::default(),
            description: &Description::default(),
            secret: "token",
            generation: Some(2),
            renew_at: None,
            previous: &CredentialStatus::default(),
            waits_for: None,
            client_expiry: None,
            deletion: Some(finalizers),
            now: at(second),
        });
        assert_eq!(status.renew_at, None);
        let ready = status.conditions.into_iter().find(|condition| condition.type_ == READY).expect("Ready");
        assert!(ready.message.contains("the credential is being deleted"), "{}", ready.message);
        assert!(ready.message.contains("its token is not renewed"), "{}", ready.message);
        assert_eq!(ready.message.contains("held by finalizer example.com/hold"), !finalizers.is_empty());
        (ready.status, ready.reason)
    };
    assert_eq!(ready(Some(3600), &finalizers, 1), pair("True", "TokenValid"));
    assert_eq!(ready(Some(3600), &finalizers, 3500), pair("False", "BelowMinimumValidity"));
    assert_eq!(ready(Some(3600), &finalizers, 3600), pair("False", "TokenExpired"));
    assert_eq!(ready(None, &[], 1), pair("False", "Pending"));
}
