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

/// `Ready` of a credential that is being deleted: its reason, and its message without what is said of the deletion.
fn ready_of(observed: &ObservedState, attempts: &Attempts, second: i64) -> (String, String) {
    let status = status(&Inputs {
        observed,
        attempts,
        description: &Description::default(),
        secret: "token",
        generation: Some(2),
        renew_at: None,
        previous: &CredentialStatus::default(),
        waits_for: None,
        client_expiry: None,
        deletion: Some(&[]),
        now: at(second),
    });
    let ready = status.conditions.into_iter().find(|condition| condition.type_ == READY).expect("Ready");
    let (message, _) = ready.message.split_once("; the credential is being deleted").expect("what is said of it");
    (ready.reason, message.to_owned())
}

#[test]
fn ready_of_a_credential_that_is_being_deleted_claims_nothing_of_a_secret_that_was_not_read() {
    let message = |target: Target| {
        let observed = ObservedState { target, ..observe(None) };
        let (reason, message) = ready_of(&observed, &Attempts::default(), 1);
        assert_eq!(reason, "Pending");
        let (_, after_failure) = ready_of(&observed, &failed(Reason::SecretReadFailed), 1);
        assert_eq!(after_failure, format!("{message}: see the message of condition Renewed"));
        message
    };
    assert_eq!(message(Target::Absent), "Secret token holds no token for this spec");
    let mut of_another_spec = observe(Some(3600));
    of_another_spec.desired.request = "other".into();
    let (_, said) = ready_of(&of_another_spec, &Attempts::default(), 1);
    assert_eq!(said, "Secret token holds no token for this spec");
    assert_eq!(message(Target::Presumed), "Secret token was not read");
    assert_eq!(message(Target::Unread { last: None }), "Secret token was not read");
}

#[test]
fn suspended_credential_that_is_being_deleted_is_not_to_be_resumed() {
    for (lifetime, reason) in [(None, "Pending"), (Some(3600), "TokenExpired")] {
        let observed = ObservedState { suspend: true, ..observe(lifetime) };
        let (reported, message) = ready_of(&observed, &Attempts::default(), 3600);
        assert_eq!(reported, reason);
        assert!(!message.contains("suspend"), "{message}");
    }
}
