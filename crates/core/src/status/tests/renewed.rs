//! When `Renewed` becomes True.

use super::*;

#[test]
fn renewed_that_is_false_stays_so_for_another_spec_until_the_next_attempt() {
    let renewed = |attempts: &Attempts, previous: &CredentialStatus, second| {
        let status = reported(&observe(Some(3600)), attempts, previous, at(second));
        let found = condition(&status, RENEWED).map(|(status, reason)| pair(status, reason));
        (found.expect("Renewed"), status)
    };
    let (first, status) = renewed(&failed(Reason::InvalidClient), &CredentialStatus::default(), 1);
    assert_eq!(first, pair("False", "InvalidClient"));
    let follows = Attempts { follows_failure: true, ..Attempts::default() };
    let (waits, status) = renewed(&follows, &status, 2);
    assert_eq!((waits, status.last_failure.is_none()), (first, true), "the failure is not claimed for the other spec");
    assert!(attempts(&status).follows_failure, "nor is it forgotten by a restart");
    let (after, status) = renewed(&Attempts::default(), &status, 3);
    assert_eq!(after, pair("True", "TokenIssued"));
    assert!(!attempts(&status).follows_failure);
    assert_eq!(renewed(&follows, &status, 4).0, after, "a success is not taken back");
}
