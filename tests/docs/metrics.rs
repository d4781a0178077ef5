//! The metrics that the documentation names exist, and it describes all of them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use itwin_credential_operator::metrics::{CredentialGauges, CredentialLabels, Metrics};

use crate::{documents, none, project, read};

/// The names of all series that the operator exposes once everything has happened once, and of their families.
fn exposed() -> BTreeSet<String> {
    let metrics = Arc::new(Metrics::new(true).expect("metrics"));
    let labels = CredentialLabels { namespace: "a", name: "b", uid: "uid", authority: "c" };
    metrics.expect_credential("a", "b", "uid");
    let (expires_at, renew_at) = (Some(1.0), Some(1.0));
    let gauges = CredentialGauges {
        expires_at,
        renew_at,
        client_expires_at: Some(1.0),
        ready: true,
        suspended: false,
        failures: 0,
    };
    metrics.credential(labels, gauges);
    metrics.authority("c", true, Some(1));
    metrics.watch("secrets", 1);
    metrics.token_request("c", "success", Duration::from_secs(1));
    metrics.request_waited("c", Duration::from_secs(1));
    metrics.queue("c", 1, true);
    metrics.reconciled("success", Duration::from_secs(1));
    metrics.kubernetes_request("get", "secrets", "success");
    let text: String = metrics.pages().expect("text").collect();
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next());
    families.chain(samples).map(str::to_owned).collect()
}

#[test]
fn metrics_exist_and_are_all_documented() {
    let exposed = exposed();
    let mut wrong = Vec::new();
    for (file, text) in documents() {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let named = words.filter(|word| word.starts_with("itwin_") || word.starts_with("process_"));
        let unknown = named.filter(|word| !exposed.contains(*word));
        wrong.extend(unknown.map(|name| format!("{}: there is no metric {name}", file.display())));
    }
    none(&wrong);
    let operating = read(project().join("docs/operating.md"));
    let own = exposed.iter().filter(|name| name.starts_with("itwin_"));
    let own = own.filter(|name| !["_bucket", "_sum", "_count"].iter().any(|suffix| name.ends_with(suffix)));
    let missing: Vec<&String> = own.filter(|name| !operating.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "docs/operating.md does not describe {missing:?}");
}
