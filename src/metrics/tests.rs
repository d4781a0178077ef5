//! Series appear and disappear with their objects.

use super::*;

const LABELS: CredentialLabels<'_> =
    CredentialLabels { namespace: "team-a", name: "agent", uid: "uid", authority: "ims" };
const GAUGES: CredentialGauges = CredentialGauges {
    expires_at: Some(100.0),
    renew_at: Some(60.0),
    client_expires_at: None,
    ready: true,
    suspended: false,
    failures: 0,
};

fn metrics(per_credential: bool) -> Metrics {
    let metrics = Metrics::new(per_credential).expect("metrics");
    metrics.expect_credential(LABELS.namespace, LABELS.name, LABELS.uid);
    metrics
}

fn text(metrics: Metrics) -> String {
    Arc::new(metrics).pages().expect("text").collect()
}

#[test]
fn credential_that_is_deleted_or_names_another_authority_leaves_no_series() {
    let metrics = metrics(true);
    metrics.credential(LABELS, GAUGES);
    metrics.credential(CredentialLabels { authority: "other", ..LABELS }, GAUGES);
    let metrics = Arc::new(metrics);
    assert!(!metrics.pages().expect("text").any(|page| page.contains("ims")));
    metrics.forget_credential(LABELS.namespace, LABELS.name, LABELS.uid);
    assert!(!metrics.pages().expect("text").any(|page| page.contains("agent")));
}

#[test]
fn reconcile_that_ends_after_the_deletion_adds_no_series() {
    let metrics = Arc::new(metrics(true));
    let shown = || metrics.pages().expect("text").any(|page| page.contains("agent"));
    metrics.credential(LABELS, GAUGES);
    assert!(shown());
    metrics.forget_credential(LABELS.namespace, LABELS.name, LABELS.uid);
    metrics.credential(LABELS, GAUGES);
    assert!(!shown());
    // nor does it touch those of another one with its name
    metrics.expect_credential(LABELS.namespace, LABELS.name, "other");
    metrics.credential(LABELS, GAUGES);
    assert!(!shown());
    metrics.credential(CredentialLabels { uid: "other", ..LABELS }, GAUGES);
    metrics.forget_credential(LABELS.namespace, LABELS.name, LABELS.uid);
    assert!(shown());
}

#[test]
fn credential_that_seems_to_be_absent_has_no_series_until_its_gauges_are_set_again() {
    let metrics = Arc::new(metrics(true));
    let shown = || metrics.pages().expect("text").any(|page| page.contains("agent"));
    metrics.credential(LABELS, GAUGES);
    metrics.hide_credential(CredentialLabels { uid: "other", ..LABELS });
    assert!(shown(), "that is another one of its name");
    metrics.hide_credential(LABELS);
    assert!(!shown());
    metrics.credential(LABELS, GAUGES);
    assert!(shown());
}

#[test]
fn series_of_credentials_can_be_disabled() {
    for (per_credential, shown) in [(true, true), (false, false)] {
        let metrics = metrics(per_credential);
        metrics.credential(LABELS, GAUGES);
        let line = r#"itwin_credential_ready{authority="ims",name="agent",namespace="team-a"} 1"#;
        assert_eq!(text(metrics).contains(line), shown);
    }
}

#[test]
fn process_and_build_are_reported() {
    let text = text(Metrics::new(true).expect("metrics"));
    assert!(text.contains("process_resident_memory_bytes") && text.contains("itwin_build_info{version="));
}
