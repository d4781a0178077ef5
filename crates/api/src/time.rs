//! Times as stored in Kubernetes objects, and conversions between the two time crates.
//!
//! kube and k8s-openapi use jiff; this project calculates with chrono. The API server stores whole seconds, so instants
//! are truncated to seconds before they are written. Otherwise the written value would never equal the value that is
//! read back, and the operator would write the same status repeatedly.

use chrono::{DateTime, SubsecRound, Utc};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
    jiff::Timestamp,
};

/// An instant truncated to whole seconds, as an object's field stores it.
#[must_use]
pub fn whole_seconds(at: DateTime<Utc>) -> DateTime<Utc> {
    at.trunc_subsecs(0)
}

/// An instant as a Kubernetes `Time`, in whole seconds.
#[must_use]
pub fn to_kubernetes(at: DateTime<Utc>) -> Time {
    Time(Timestamp::from_second(at.timestamp()).unwrap_or(Timestamp::MAX))
}

/// An instant as a Kubernetes `MicroTime`.
#[must_use]
pub fn to_micro_time(at: DateTime<Utc>) -> MicroTime {
    MicroTime(Timestamp::from_microsecond(at.timestamp_micros()).unwrap_or(Timestamp::MAX))
}

/// A Kubernetes `Time` as an instant; `None` for years that chrono does not support.
#[must_use]
pub fn from_kubernetes(time: &Time) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.0.as_second(), 0)
}

/// RFC 3339 in UTC with whole seconds, as written to Secrets, annotations and statuses.
#[must_use]
pub fn to_rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// Parses RFC 3339; `None` if it is invalid, which callers treat as unknown.
#[must_use]
pub fn from_rfc3339(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|at| at.with_timezone(&Utc))
}
