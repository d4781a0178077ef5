//! What the index knows of Secrets after events, lists, reads and restores, and which credentials it enqueues.

use futures::FutureExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;

fn secret_metadata(version: &str) -> SecretMetadata {
    SecretMetadata::new(&ObjectMeta {
        uid: Some("uid".into()),
        resource_version: Some(version.into()),
        ..ObjectMeta::default()
    })
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("team-a", name)
}

fn index() -> SecretIndex {
    let index = SecretIndex::default();
    index.register(&Arc::new(key("agent")), ["token", "client"]);
    index
}

fn version(index: &SecretIndex) -> Option<String> {
    match index.get(&key("token")) {
        Known::Present(secret_metadata) => Some(secret_metadata.resource_version().to_owned()),
        _ => None,
    }
}

#[test]
fn secrets_that_are_not_referenced_are_not_stored() {
    let index = index();
    assert!(index.observe(&key("other"), secret_metadata("1")).is_empty());
    assert!(!index.is_shown(&key("other"), Some("3")) && index.is_shown(&key("token"), Some("3")));
}

#[test]
fn secret_that_is_referenced_enqueues_its_credential_once() {
    let index = index();
    assert_eq!(index.observe(&key("token"), secret_metadata("5")), [Arc::new(key("agent"))]);
    assert!(index.observe(&key("token"), secret_metadata("5")).is_empty(), "the same version does not enqueue it");
}

#[test]
fn version_that_is_known_enqueues_only_those_that_do_not_know_it() {
    let index = index();
    let shown = |version| index.observe_known(&key("token"), Some("uid"), Some(version));
    assert_eq!(shown("5"), None, "nothing is known");
    index.observe(&key("token"), secret_metadata("5"));
    assert_eq!((shown("4"), shown("5"), shown("6")), (None, Some(Vec::new()), None));
    assert_eq!(index.observe_known(&key("token"), Some("another"), Some("5")), None);
    let known = index.read_begins(&key("token"));
    index.observe_read(&key("token"), secret_metadata("7"), known);
    assert_eq!(shown("7"), Some(vec![Arc::new(key("agent"))]), "one credential read it");
    assert_eq!(shown("7"), Some(Vec::new()));
    index.listing_began(None);
    assert_eq!(shown("7"), Some(Vec::new()));
    index.listing_ended(None);
    assert_eq!(version(&index).as_deref(), Some("7"), "it was listed");
}

#[test]
fn older_events_after_an_own_write_are_ignored() {
    let index = index();
    index.observe(&key("token"), secret_metadata("10"));
    assert!(index.observe(&key("token"), secret_metadata("9")).is_empty());
    assert!(index.observe_absence(&key("token"), Some("9")).is_empty());
    assert_eq!(version(&index).as_deref(), Some("10"));
}

#[test]
fn older_secret_of_a_list_is_read_at_whatever_version_it_has() {
    let index = index();
    index.observe(&key("token"), secret_metadata("10"));
    assert_eq!(index.observe_listed(&key("token"), secret_metadata("9")), [Arc::new(key("agent"))]);
    assert!(matches!(index.get(&key("token")), Known::Unknown));
    index.observe(&key("token"), secret_metadata("9"));
    assert_eq!(version(&index).as_deref(), Some("9"));
    assert!(index.observe_listed(&key("token"), secret_metadata("9")).is_empty());
    assert_eq!(index.observe_listed(&key("token"), secret_metadata("11")), [Arc::new(key("agent"))]);
}

#[tokio::test]
async fn older_secret_that_is_read_shows_a_restore_unless_the_newer_one_came_meanwhile() {
    let index = index();
    index.observe(&key("token"), secret_metadata("10"));
    let known = index.read_begins(&key("token"));
    index.observe(&key("token"), secret_metadata("12"));
    index.observe_read(&key("token"), secret_metadata("11"), known);
    assert_eq!(version(&index).as_deref(), Some("12"));
    assert!(index.older_read().now_or_never().is_none());
    let known = index.read_begins(&key("token"));
    index.observe_read(&key("token"), secret_metadata("9"), known);
    assert_eq!(version(&index).as_deref(), Some("9"));
    assert!(index.older_read().now_or_never().is_some());
}

#[tokio::test]
async fn answer_of_the_version_that_was_asked_for_shows_no_restore() {
    let index = index();
    index.observe(&key("client"), secret_metadata("10"));
    let known = index.read_begins(&key("client"));
    let asked = index.version_at_least(&key("client")).map(|version| version.to_string()).unwrap_or_default();
    // the watch goes on before the cache answers
    index.observe(&key("client"), secret_metadata("12"));
    index.observe_read(&key("client"), secret_metadata(&asked), known);
    assert!(index.older_read().now_or_never().is_none());
}

#[test]
fn restored_cluster_leaves_nothing_known_and_older_versions_are_accepted() {
    let index = index();
    index.observe(&key("token"), secret_metadata("10"));
    index.observe_absence(&key("client"), Some("12"));
    assert!(index.begin_incarnation(later(1)));
    assert!(matches!(index.get(&key("token")), Known::Unknown));
    assert!(matches!(index.get(&key("client")), Known::Unknown));
    index.observe(&key("token"), secret_metadata("9"));
    index.observe(&key("client"), secret_metadata("8"));
    assert_eq!(version(&index).as_deref(), Some("9"));
    assert!(matches!(index.get(&key("client")), Known::Present(_)));
}

/// The incarnation of a cluster that was restored so often.
fn later(restores: u64) -> Incarnation {
    let (mut revisions, now) = (revisions::Revisions::default(), std::time::Instant::now());
    for number in 1..=restores {
        assert!(revisions.notice(now + std::time::Duration::from_secs(3600) * u32::try_from(number).expect("few")));
    }
    revisions.incarnation()
}

#[test]
fn list_of_a_restored_cluster_is_not_voided_by_its_restore() {
    let index = index();
    index.observe(&key("token"), secret_metadata("10"));
    // the watch comes first, and the task that follows restores after the list was recorded
    assert!(index.begin_incarnation(later(1)));
    index.observe_listed(&key("token"), secret_metadata("9"));
    assert!(!index.begin_incarnation(later(1)));
    assert_eq!(version(&index).as_deref(), Some("9"));
    assert!(index.begin_incarnation(later(2)));
    assert!(matches!(index.get(&key("token")), Known::Unknown));
    assert!(!index.begin_incarnation(later(1)), "it comes late");
}

#[test]
fn deletion_enqueues_the_credential() {
    let index = index();
    index.observe(&key("token"), secret_metadata("10"));
    assert_eq!(index.observe_absence(&key("token"), Some("11")), [Arc::new(key("agent"))]);
    assert!(matches!(index.get(&key("token")), Known::Absent));
}

#[test]
fn secret_missing_from_a_relist_is_invalidated() {
    let index = index();
    index.observe(&key("token"), secret_metadata("10"));
    index.observe(&key("client"), secret_metadata("4"));
    index.listing_began(None);
    index.observe(&key("client"), secret_metadata("4"));
    assert_eq!(index.listing_ended(None), [Arc::new(key("agent"))]);
    assert!(matches!(index.get(&key("token")), Known::Unknown));
    assert!(matches!(index.get(&key("client")), Known::Present(_)));
    index.observe(&key("token"), secret_metadata("9"));
    assert_eq!(version(&index).as_deref(), Some("9"), "the cluster may have been restored");
}

/// A list that contains the token Secret alone. Returns whom its end enqueues.
fn list_of_token(index: &SecretIndex) -> Vec<Arc<ObjectKey>> {
    index.listing_began(None);
    assert!(index.is_shown(&key("token"), Some("3")));
    index.observe_listed(&key("token"), secret_metadata("3"));
    index.listing_ended(None)
}

#[test]
fn client_secret_that_a_list_does_not_contain_is_not_shown_and_all_its_readers_are_enqueued() {
    let (index, client) = (index(), key("client"));
    index.register(&Arc::new(key("neighbor")), ["y", "client"]);
    assert!(!index.is_not_shown(&client), "nothing was listed");
    assert_eq!(names(&list_of_token(&index)), ["agent", "neighbor"]);
    assert!(index.is_not_shown(&client) && !index.is_not_shown(&key("token")));
    assert!(!index.is_not_shown(&key("other")), "no credential names it");
    assert_eq!(index.version_at_least(&client), None, "no cache is asked for what is not there");
    // one of them reads it, and the event of its deletion was lost
    index.observe_absence(&client, None);
    assert!(!index.is_not_shown(&client), "it is known to be absent");
    assert_eq!(names(&list_of_token(&index)), ["agent", "neighbor"]);
    assert!(list_of_token(&index).is_empty(), "they know it by now");
    index.observe(&client, secret_metadata("5"));
    assert_eq!(names(&list_of_token(&index)), ["agent", "neighbor"]);
    assert!(index.is_not_shown(&client), "it is gone again");
}

#[test]
fn secret_of_a_new_credential_is_presumed_to_be_absent_where_the_watch_did_not_show_it() {
    let index = SecretIndex::default();
    index.listing_began(None);
    assert!(!index.is_shown(&key("there"), Some("3")));
    index.listing_ended(None);
    for (credential, secret) in [("a", "there"), ("b", "token"), ("c", "late"), ("d", "token-of-d")] {
        index.register(&Arc::new(key(credential)), [secret, "client"]);
    }
    index.observe(&key("late"), secret_metadata("7"));
    for secret in ["there", "token", "late", "client-of-none"] {
        index.credential_was_created(&key(secret));
    }
    let is_presumed = |secret: &str| index.is_presumed_absent(&key(secret));
    assert!(is_presumed("token"));
    assert!(matches!(index.get(&key("token")), Known::Unknown), "nothing is recorded");
    assert!(!is_presumed("there"), "it is read");
    assert!(!is_presumed("late") && matches!(index.get(&key("late")), Known::Present(_)));
    assert!(!is_presumed("token-of-d"), "only where the credential is new");
    assert!(!is_presumed("client-of-none"), "no credential writes it");
    assert_eq!(index.version_at_least(&key("late")), Some(7), "its own");
    assert_eq!(index.version_at_least(&key("there")), Some(3), "what the watch has shown");
}

/// An index whose one credential is new, and for whose Secret the watch has not shown any.
fn index_of_new() -> SecretIndex {
    let index = index();
    index.listing_began(None);
    index.listing_ended(None);
    index.credential_was_created(&key("token"));
    assert!(index.is_presumed_absent(&key("token")));
    index
}

#[test]
fn what_one_credential_read_is_news_for_the_others_once_the_watch_shows_it() {
    let index = index();
    let others = |found: Vec<Arc<ObjectKey>>| found.len();
    let client = key("client");
    index.observe(&client, secret_metadata("4"));
    index.observe_read(&client, secret_metadata("5"), index.read_begins(&client));
    index.observe_read(&client, secret_metadata("5"), index.read_begins(&client));
    assert!(others(index.observe(&client, secret_metadata("4"))) == 0, "an older event");
    assert!(others(index.observe(&client, secret_metadata("5"))) > 0, "its event");
    assert!(others(index.observe(&client, secret_metadata("5"))) == 0, "and no more");
    index.observe_absence(&client, None);
    assert!(others(index.observe_absence(&client, None)) == 0, "another read");
    assert!(others(index.observe_absence(&client, Some("7"))) > 0, "the event of its deletion");
    assert!(others(index.observe_absence(&client, Some("7"))) == 0, "and no more");
}

#[test]
fn absence_is_presumed_only_until_something_is_known() {
    type Change = fn(&SecretIndex);
    let changes: [(&str, Change); 6] = [
        ("its event came", |index| assert!(index.is_shown(&key("token"), Some("3")))),
        ("it is invalidated, after a creation that was refused", |index| index.invalidate(&key("token"))),
        ("the cluster was restored", |index| assert!(index.begin_incarnation(later(1)))),
        ("a list begins", |index| index.listing_began(None)),
        ("another credential reads it", |index| {
            index.register(&Arc::new(key("reader")), ["x", "token"]);
        }),
        ("another credential writes it", |index| {
            index.register(&Arc::new(key("rival")), ["token", "client"]);
        }),
    ];
    for (what, change) in changes {
        let index = index_of_new();
        change(&index);
        assert!(!index.is_presumed_absent(&key("token")), "{what}");
    }
    let index = index_of_new();
    index.observe(&key("token"), secret_metadata("9"));
    index.observe_absence(&key("token"), Some("10"));
    index.invalidate(&key("token"));
    index.credential_was_created(&key("token"));
    assert!(!index.is_presumed_absent(&key("token")), "it was there before");
}

#[test]
fn list_of_another_namespace_changes_nothing() {
    let index = index();
    index.observe(&key("token"), secret_metadata("10"));
    index.listing_began(Some("team-b"));
    assert!(index.listing_ended(Some("team-b")).is_empty());
    assert_eq!(version(&index).as_deref(), Some("10"));
}

#[test]
fn secret_that_is_no_longer_referenced_is_forgotten() {
    let index = index();
    index.register(&Arc::new(key("agent")), ["token", "other-client"]);
    assert!(!index.is_shown(&key("client"), Some("3")) && index.is_shown(&key("other-client"), Some("3")));
    index.unregister(&key("agent"));
    assert!(!index.is_shown(&key("token"), Some("3")) && !index.is_shown(&key("other-client"), Some("3")));
}

fn names(keys: &[Arc<ObjectKey>]) -> Vec<&str> {
    keys.iter().map(|key| key.name.as_str()).collect()
}

#[test]
fn writers_of_a_secret_are_distinguished_from_its_readers() {
    let index = index();
    for (name, secrets) in [("b", ["x", "token"]), ("a", ["y", "token"]), ("c", ["token", "client"])] {
        index.register(&Arc::new(key(name)), secrets);
    }
    assert_eq!(names(&index.writers(&key("token"))), ["agent", "c"]);
    assert_eq!(names(&index.readers(&key("token"))), ["a", "b"]);
    assert_eq!(names(&index.readers(&key("client"))), ["agent", "c"]);
    index.unregister(&key("agent"));
    assert_eq!(names(&index.writers(&key("token"))), ["c"]);
    assert_eq!(names(&index.readers(&key("token"))), ["a", "b"]);
}

#[test]
fn credential_that_no_longer_references_a_secret_unblocks_others() {
    let index = index();
    index.register(&Arc::new(key("reader")), ["x", "token"]);
    index.register(&Arc::new(key("neighbor")), ["y", "client"]);
    let rival = ["token", "another-client"];
    index.register(&Arc::new(key("rival")), rival);
    assert!(index.register(&Arc::new(key("rival")), rival).is_empty(), "nothing changed");
    assert_eq!(
        names(&index.blocked_by(&key("agent"))),
        ["rival", "reader"],
        "a credential that only shares a client is not blocked"
    );
    assert_eq!(names(&index.register(&Arc::new(key("reader")), ["x", "z"])), ["agent", "rival"]);
    assert_eq!(names(&index.unregister(&key("rival"))), ["agent"]);
}
