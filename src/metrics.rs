//! Counters and gauges. They are written everywhere and read by nobody in here.
//!
//! Every label value is from a fixed set or an object's name, so that the number of series is bounded by the number
//! of credentials; those of a credential go when it goes.

use std::time::Duration;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
    process_collector::ProcessCollector,
};

/// Buckets for how late a renewal was written, in seconds: from a busy moment to an outage.
const LATENESS: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0];
/// Buckets for what a replaced token still had, in seconds; 0 means that workloads saw an expired token.
const VALIDITY: [f64; 10] = [0.0, 15.0, 60.0, 180.0, 300.0, 600.0, 900.0, 1200.0, 1800.0, 3600.0];
/// Buckets for the length of token requests and reconciles, in seconds.
const DURATIONS: [f64; 11] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    per_credential: bool,
    expiration: GaugeVec,
    renewal: GaugeVec,
    ready: GaugeVec,
    failures: GaugeVec,
    lateness: Histogram,
    validity: Histogram,
    token_requests: IntCounterVec,
    token_request_duration: HistogramVec,
    reconciles: IntCounterVec,
    reconcile_duration: Histogram,
    kubernetes_requests: IntCounterVec,
    leader: IntGauge,
    unreadable: IntGauge,
}

/// The labels of one credential's series.
#[derive(Clone, Copy)]
pub struct CredentialLabels<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// The authority that it names.
    pub authority: &'a str,
}

impl CredentialLabels<'_> {
    const NAMES: [&'static str; 3] = ["namespace", "name", "authority"];

    fn values(&self) -> [&str; 3] {
        [self.namespace, self.name, self.authority]
    }
}

/// What is told about one credential. Times are seconds since the epoch; absent where there is no token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CredentialGauges {
    /// When the token expires.
    pub expires_at: Option<f64>,
    /// When the next attempt is due.
    pub renew_at: Option<f64>,
    /// Whether it is Ready.
    pub ready: bool,
    /// Failed attempts in a row.
    pub failures: u32,
}

impl Metrics {
    /// Registers everything. `per_credential` turns the series with a credential's name on.
    ///
    /// # Errors
    /// Never for the names used here; the type comes from the library.
    pub fn new(per_credential: bool) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let credential_gauge = |name, help| gauge_vec(&registry, name, help, &CredentialLabels::NAMES);
        let metrics = Self {
            expiration: credential_gauge(
                "itwin_credential_expiration_timestamp_seconds",
                "When the token in the Secret expires.",
            )?,
            renewal: credential_gauge(
                "itwin_credential_renewal_timestamp_seconds",
                "When the next attempt to get a token is due.",
            )?,
            ready: credential_gauge("itwin_credential_ready", "1 while the credential is Ready, else 0.")?,
            failures: credential_gauge(
                "itwin_credential_consecutive_failures",
                "Failed attempts since the last token.",
            )?,
            lateness: histogram(
                &registry,
                "itwin_credential_renewal_lateness_seconds",
                "Time from when a renewal was due until it was written.",
                &LATENESS,
            )?,
            validity: histogram(
                &registry,
                "itwin_credential_validity_at_replacement_seconds",
                "Validity that a token still had when it was replaced.",
                &VALIDITY,
            )?,
            token_requests: counter_vec(
                &registry,
                "itwin_token_requests_total",
                "Token requests by result.",
                &["authority", "result"],
            )?,
            token_request_duration: {
                let options = HistogramOpts::new("itwin_token_request_duration_seconds", "Length of token requests.")
                    .buckets(DURATIONS.to_vec());
                let histogram = HistogramVec::new(options, &["authority"])?;
                registry.register(Box::new(histogram.clone()))?;
                histogram
            },
            reconciles: counter_vec(&registry, "itwin_reconciles_total", "Reconciles by result.", &["result"])?,
            reconcile_duration: histogram(
                &registry,
                "itwin_reconcile_duration_seconds",
                "Length of reconciles.",
                &DURATIONS,
            )?,
            kubernetes_requests: counter_vec(
                &registry,
                "itwin_kubernetes_requests_total",
                "Requests to the Kubernetes API, watches apart.",
                &["verb", "resource", "result"],
            )?,
            unreadable: {
                let help = "Objects that this version cannot understand and leaves alone.";
                let gauge = IntGauge::new("itwin_unreadable_objects", help)?;
                registry.register(Box::new(gauge.clone()))?;
                gauge
            },
            leader: {
                let gauge = IntGauge::new("itwin_leader", "1 while this process acts, 0 while it stands by.")?;
                registry.register(Box::new(gauge.clone()))?;
                gauge
            },
            per_credential,
            registry: registry.clone(),
        };
        let build = Gauge::with_opts(
            Opts::new("itwin_build_info", "1; the version stands in the label.")
                .const_label("version", env!("CARGO_PKG_VERSION")),
        )?;
        build.set(1.0);
        registry.register(Box::new(build))?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    /// The text that a Prometheus server scrapes.
    ///
    /// # Errors
    /// Where a metric cannot be encoded.
    pub fn render(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Tells how a credential stands.
    pub fn credential(&self, labels: CredentialLabels<'_>, gauges: CredentialGauges) {
        if !self.per_credential {
            return;
        }
        let set = |family: &GaugeVec, value: Option<f64>| match value {
            Some(value) => family.with_label_values(&labels.values()).set(value),
            None => drop(family.remove_label_values(&labels.values())),
        };
        set(&self.expiration, gauges.expires_at);
        set(&self.renewal, gauges.renew_at);
        set(&self.ready, Some(f64::from(u8::from(gauges.ready))));
        set(&self.failures, Some(f64::from(gauges.failures)));
    }

    /// Forgets a credential that is gone, or that names another authority now.
    pub fn forget_credential(&self, labels: CredentialLabels<'_>) {
        for family in [&self.expiration, &self.renewal, &self.ready, &self.failures] {
            // an error only says that there was no such series
            let _ = family.remove_label_values(&labels.values());
        }
    }

    /// A renewal was written, so long after it was due.
    pub fn renewed_late(&self, seconds: f64) {
        self.lateness.observe(seconds.max(0.0));
    }

    /// A token was replaced that was still valid for so long.
    pub fn replaced_with_left(&self, seconds: f64) {
        self.validity.observe(seconds.max(0.0));
    }

    /// A token request ended. `result` is `success` or a reason of the contract.
    pub fn token_request(&self, authority: &str, result: &str, took: Duration) {
        self.token_requests.with_label_values(&[authority, result]).inc();
        self.token_request_duration.with_label_values(&[authority]).observe(took.as_secs_f64());
    }

    /// A reconcile ended. `result` is from a fixed set.
    pub fn reconciled(&self, result: &'static str, took: Duration) {
        self.reconciles.with_label_values(&[result]).inc();
        self.reconcile_duration.observe(took.as_secs_f64());
    }

    /// A request to the Kubernetes API ended. All three are from fixed sets.
    pub fn kubernetes_request(&self, verb: &'static str, resource: &'static str, result: &'static str) {
        self.kubernetes_requests.with_label_values(&[verb, resource, result]).inc();
    }

    /// How many objects cannot be understood.
    pub fn unreadable(&self, count: usize) {
        self.unreadable.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Whether this process acts.
    pub fn leading(&self, leads: bool) {
        self.leader.set(leads.into());
    }
}

fn gauge_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
    let family = GaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

fn counter_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    let family = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
    let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: CredentialLabels<'_> = CredentialLabels { namespace: "team-a", name: "agent", authority: "ims" };
    const GAUGES: CredentialGauges =
        CredentialGauges { expires_at: Some(100.0), renew_at: Some(60.0), ready: true, failures: 0 };

    #[test]
    fn credential_that_is_gone_leaves_no_series() {
        let metrics = Metrics::new(true).expect("metrics");
        metrics.credential(LABELS, GAUGES);
        assert!(
            metrics
                .render()
                .expect("text")
                .contains(r#"itwin_credential_ready{authority="ims",name="agent",namespace="team-a"} 1"#)
        );
        metrics.forget_credential(LABELS);
        assert!(!metrics.render().expect("text").contains("agent"));
    }

    #[test]
    fn series_of_credentials_can_be_turned_off() {
        let metrics = Metrics::new(false).expect("metrics");
        metrics.credential(LABELS, GAUGES);
        assert!(!metrics.render().expect("text").contains("agent"));
    }

    #[test]
    fn process_and_build_are_told() {
        let text = Metrics::new(true).expect("metrics").render().expect("text");
        assert!(text.contains("process_resident_memory_bytes") && text.contains("itwin_build_info{version="));
    }
}
