//! The metrics of each authority: its token requests, their queue, and whether it is Ready.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec, Registry};

use super::families::{DURATIONS, counter_vec, gauge_vec, histogram_vec};

/// Buckets for the time that token requests waited in the queue, in seconds: up to more than the lifetime of a token.
const WAITS: [f64; 11] = [0.01, 0.1, 1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0];

/// The series of all authorities.
pub struct AuthoritySeries {
    requests: IntCounterVec,
    request_duration: HistogramVec,
    queue_seconds: HistogramVec,
    queue_length: IntGaugeVec,
    circuit_open: IntGaugeVec,
    ready: IntGaugeVec,
    refresh: IntGaugeVec,
}

impl AuthoritySeries {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            requests: counter_vec(
                registry,
                "itwin_token_requests_total",
                "Token requests by result.",
                &["authority", "result"],
            )?,
            request_duration: histogram_vec(
                registry,
                "itwin_token_request_duration_seconds",
                "Duration of token requests.",
                &DURATIONS,
            )?,
            queue_seconds: histogram_vec(
                registry,
                "itwin_token_request_queue_seconds",
                "Time that token requests waited in the queue of their authority.",
                &WAITS,
            )?,
            queue_length: gauge_vec(
                registry,
                "itwin_token_request_queue_length",
                "Token requests that wait in the queue of their authority, except for those whose own client fails.",
                "authority",
            )?,
            circuit_open: gauge_vec(
                registry,
                "itwin_authority_circuit_open",
                "1 while the circuit breaker of an authority is open and allows half-open probes only, else 0.",
                "authority",
            )?,
            ready: gauge_vec(
                registry,
                "itwin_authority_ready",
                "1 while the authority is Ready, else 0.",
                "authority",
            )?,
            refresh: gauge_vec(
                registry,
                "itwin_authority_last_refresh_timestamp_seconds",
                "When the endpoints and signing keys of the authority were fetched last.",
                "authority",
            )?,
        })
    }

    /// Records a completed token request. `result` is `success` or the reason of the failure.
    pub fn token_request(&self, authority: &str, result: &str, took: Duration) {
        self.requests.with_label_values(&[authority, result]).inc();
        self.request_duration.with_label_values(&[authority]).observe(took.as_secs_f64());
    }

    /// Records how long an admitted token request waited in the queue.
    pub fn request_waited(&self, authority: &str, waited: Duration) {
        self.queue_seconds.with_label_values(&[authority]).observe(waited.as_secs_f64());
    }

    /// Sets the number of token requests that wait for an authority, and whether its circuit is open.
    pub fn queue(&self, authority: &str, length: usize, is_open: bool) {
        self.queue_length.with_label_values(&[authority]).set(i64::try_from(length).unwrap_or(i64::MAX));
        self.circuit_open.with_label_values(&[authority]).set(is_open.into());
    }

    /// Removes the series of the queue of a deleted authority.
    pub fn forget_queue(&self, authority: &str) {
        // an error means that the series did not exist
        let _ = self.queue_seconds.remove_label_values(&[authority]);
        let _ = self.queue_length.remove_label_values(&[authority]);
        let _ = self.circuit_open.remove_label_values(&[authority]);
    }

    /// Sets whether an authority is Ready, and when its endpoints and keys were fetched last.
    pub fn authority(&self, authority: &str, is_ready: bool, last_refresh: Option<i64>) {
        self.ready.with_label_values(&[authority]).set(is_ready.into());
        match last_refresh {
            Some(at) => self.refresh.with_label_values(&[authority]).set(at),
            // an error means that the series did not exist
            None => drop(self.refresh.remove_label_values(&[authority])),
        }
    }

    /// Removes the series of a deleted authority.
    pub fn forget_authority(&self, authority: &str) {
        // an error means that the series did not exist
        let _ = self.ready.remove_label_values(&[authority]);
        let _ = self.refresh.remove_label_values(&[authority]);
    }
}
