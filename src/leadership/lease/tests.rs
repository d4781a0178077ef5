//! The record of the Lease, and which one of a watch is the latest.

use kube::client::Body;

use super::*;

#[test]
fn renewal_changes_the_record_where_the_wall_clock_does_not_advance() {
    let now = Clock::system().now();
    let first = renew_time(now, None);
    let second = renew_time(now, Some(&first));
    let third = renew_time(now, Some(&second));
    assert!(first != second && second != third);
}

#[test]
fn times_have_the_six_digits_that_the_api_server_wants() {
    let time = renew_time(DateTime::UNIX_EPOCH, None);
    assert_eq!(time, "1970-01-01T00:00:00.000000Z");
}

#[tokio::test]
async fn older_lease_of_a_watch_is_not_taken_for_the_latest() {
    let unreachable = |_: http::Request<Body>| ready(Err::<http::Response<Body>, _>("no connection"));
    let client = Client::new(tower::service_fn(unreachable), "operator");
    let mut api = LeaseApi::of(client, Arc::new(Metrics::new(false).expect("metrics")));
    let lease = |version: &str| -> DynamicObject {
        let object = json!({"metadata": {"name": MANAGER, "resourceVersion": version}});
        serde_json::from_value(object).expect("a Lease")
    };
    assert!(api.watch().is_none(), "there is no version to begin with");
    for (version, is_news) in [("7", true), ("6", false), ("10", true), ("none", false)] {
        assert_eq!(api.shown(lease(version)).is_some(), is_news, "{version}");
    }
    assert_eq!(api.version().as_deref(), Some("10"));
}

#[tokio::test]
async fn renewal_of_an_earlier_time_that_is_shown_is_not_taken_for_the_latest() {
    let unreachable = |_: http::Request<Body>| ready(Err::<http::Response<Body>, _>("no connection"));
    let client = Client::new(tower::service_fn(unreachable), "operator");
    let mut api = LeaseApi::of(client, Arc::new(Metrics::new(false).expect("metrics")));
    let mut shown = |version: &str, second: u8| {
        let object = json!({
            "metadata": {"name": MANAGER, "uid": "uid", "resourceVersion": version},
            "spec": {"holderIdentity": "a", "renewTime": format!("2026-01-01T00:00:0{second}.000000Z")},
        });
        api.shown(serde_json::from_value(object).expect("a Lease")).is_some()
    };
    assert!(shown("7", 5));
    assert!(!shown("8", 4), "only a read explains it");
    assert!(shown("9", 6));
}

#[test]
fn garbage_in_the_spec_is_a_record_like_any_other() -> serde_json::Result<()> {
    let object = json!({
        "metadata": {"name": MANAGER, "resourceVersion": "7"},
        "spec": {"holderIdentity": 5, "leaseDurationSeconds": "long", "renewTime": "9999-12-31T23:59:59.999999Z"},
    });
    let lease = observed(&serde_json::from_value(object)?);
    assert_eq!(lease.version, "7");
    let renew_time = Some("9999-12-31T23:59:59.999999Z".to_owned());
    assert_eq!(lease.record, Record { renew_time, ..Record::default() });
    let empty = observed(&serde_json::from_value(json!({"metadata": {}}))?);
    assert_eq!(empty.record, Record::default());
    Ok(())
}
