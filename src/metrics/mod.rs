//! The metrics of the process. The operator itself never reads them.
//!
//! Every label value is from a fixed set or the name of an object, so that the number of series is bounded by the
//! number of objects. The series of a credential are removed when it is deleted.

mod authorities;
mod credentials;
mod families;

use std::{sync::Arc, time::Duration};

use prometheus::{
    Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    process_collector::ProcessCollector,
};

pub use self::credentials::{CredentialGauges, CredentialLabels};
use self::{
    authorities::AuthoritySeries,
    credentials::{CredentialSeries, Cursor},
    families::{DURATIONS, counter, counter_vec, gauge, gauge_vec, histogram},
};

/// Buckets for the lateness of renewals, in seconds: from a short queue to an outage.
const LATENESS: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0];
/// Buckets for the remaining validity of replaced tokens, in seconds; 0 means that workloads had an expired token.
const VALIDITY: [f64; 10] = [0.0, 15.0, 60.0, 180.0, 300.0, 600.0, 900.0, 1200.0, 1800.0, 3600.0];

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    /// `None` if metrics for each credential are disabled.
    credentials: Option<CredentialSeries>,
    lateness: Histogram,
    validity: Histogram,
    /// Those of each authority.
    pub authorities: AuthoritySeries,
    watches: IntGaugeVec,
    reconciles: IntCounterVec,
    reconcile_duration: Histogram,
    kubernetes_requests: IntCounterVec,
    leader: IntGauge,
    invalid_objects: IntGauge,
    held_back: IntGauge,
    events_dropped: IntCounter,
}

impl Metrics {
    /// Registers all metrics. `per_credential` enables metrics for each credential.
    ///
    /// # Errors
    /// Never for the names used here; the library returns a `Result`.
    pub fn new(per_credential: bool) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let metrics = Self {
            credentials: per_credential.then(CredentialSeries::default),
            lateness: histogram(
                &registry,
                "itwin_credential_renewal_lateness_seconds",
                "Time from when a renewal was due until the token was written.",
                &LATENESS,
            )?,
            validity: histogram(
                &registry,
                "itwin_credential_validity_at_replacement_seconds",
                "Remaining validity of a token when it was replaced.",
                &VALIDITY,
            )?,
            authorities: AuthoritySeries::new(&registry)?,
            watches: gauge_vec(
                &registry,
                "itwin_watch_last_event_timestamp_seconds",
                "When a watch of this resource last worked: it received an event or a bookmark, or was open for 15 s.",
                "resource",
            )?,
            reconciles: counter_vec(&registry, "itwin_reconciles_total", "Reconciliations by result.", &["result"])?,
            reconcile_duration: histogram(
                &registry,
                "itwin_reconcile_duration_seconds",
                "Duration of reconciliations.",
                &DURATIONS,
            )?,
            kubernetes_requests: counter_vec(
                &registry,
                "itwin_kubernetes_requests_total",
                "Requests to the Kubernetes API; of lists and watches of all objects, those that failed.",
                &["verb", "resource", "result"],
            )?,
            invalid_objects: gauge(
                &registry,
                "itwin_invalid_objects",
                "Objects that this version cannot decode and ignores.",
            )?,
            held_back: gauge(
                &registry,
                "itwin_held_back_credentials",
                "Credentials that are held back because the previous process ended while it was reconciling them.",
            )?,
            events_dropped: counter(
                &registry,
                "itwin_events_dropped_total",
                "Events that were not published because too many waited.",
            )?,
            leader: gauge(&registry, "itwin_leader", "1 while this process leads, 0 while it is a standby.")?,
            registry: registry.clone(),
        };
        let build = Gauge::with_opts(
            Opts::new("itwin_build_info", "Always 1; the label is the version of the operator.")
                .const_label("version", env!("CARGO_PKG_VERSION")),
        )?;
        build.set(1.0);
        registry.register(Box::new(build))?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    /// The text that Prometheus scrapes, page by page, so that memory never holds all of it.
    ///
    /// # Errors
    /// If a metric cannot be encoded.
    pub fn pages(self: &Arc<Self>) -> prometheus::Result<impl Iterator<Item = String> + use<>> {
        let first = TextEncoder::new().encode_to_string(&self.registry.gather())?;
        let (metrics, mut cursor) = (self.clone(), Cursor::default());
        let rest = std::iter::from_fn(move || metrics.credentials.as_ref()?.page(&mut cursor));
        Ok(std::iter::once(first).chain(rest))
    }

    /// Sets the gauges of a credential that exists.
    pub fn credential(&self, labels: CredentialLabels<'_>, gauges: CredentialGauges) {
        if let Some(credentials) = &self.credentials {
            credentials.set(labels, gauges);
        }
    }

    /// A credential exists. Its series appear when its gauges are set.
    pub fn expect_credential(&self, namespace: &str, name: &str, uid: &str) {
        if let Some(credentials) = &self.credentials {
            credentials.expect(namespace, name, uid);
        }
    }

    /// Removes the series of a credential of which the API server says that it is absent, until its gauges are set again: a
    /// watch may not show that it is gone.
    pub fn hide_credential(&self, labels: CredentialLabels<'_>) {
        if let Some(credentials) = &self.credentials {
            credentials.hide(labels);
        }
    }

    /// Removes the series of a credential that is gone.
    pub fn forget_credential(&self, namespace: &str, name: &str, uid: &str) {
        if let Some(credentials) = &self.credentials {
            credentials.forget(namespace, name, uid);
        }
    }

    /// Records a renewal that was written this many seconds after it was due.
    pub fn renewed_late(&self, seconds: f64) {
        self.lateness.observe(seconds.max(0.0));
    }

    /// Records that a token was replaced that was still valid for this many seconds.
    pub fn replaced_with_left(&self, seconds: f64) {
        self.validity.observe(seconds.max(0.0));
    }

    /// Sets the Unix time of the last sign of life of the watches of a resource.
    pub fn watch(&self, resource: &'static str, last_sign: i64) {
        self.watches.with_label_values(&[resource]).set(last_sign);
    }

    /// Records a reconciliation. `result` is from a fixed set.
    pub fn reconciled(&self, result: &'static str, took: Duration) {
        self.reconciles.with_label_values(&[result]).inc();
        self.reconcile_duration.observe(took.as_secs_f64());
    }

    /// Records a completed request to the Kubernetes API. All labels are from fixed sets.
    pub fn kubernetes_request(&self, verb: &'static str, resource: &'static str, result: &'static str) {
        self.kubernetes_requests.with_label_values(&[verb, resource, result]).inc();
    }

    /// Counts an event that is not published because too many wait.
    pub fn event_dropped(&self) {
        self.events_dropped.inc();
    }

    /// Sets the number of credentials that are held back after a crash.
    pub fn held_back(&self, count: usize) {
        self.held_back.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets the number of invalid objects.
    pub fn invalid_objects(&self, count: usize) {
        self.invalid_objects.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets whether this process leads.
    pub fn leading(&self, leads: bool) {
        self.leader.set(leads.into());
    }
}

#[cfg(test)]
mod tests;
