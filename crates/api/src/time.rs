//! Times as Kubernetes objects hold them, and conversions between the two time crates.
//!
//! kube and k8s-openapi use jiff, this project's own arithmetic uses chrono. The API server keeps whole seconds only,
//! so instants that go into an object are cut to seconds first: otherwise what was written never equals what is read
//! back, and a status is written again and again.

use chrono::{DateTime, SubsecRound, Utc};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
    jiff::Timestamp,
};

/// An instant as an object's field holds it: whole seconds, rounded down.
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

/// A Kubernetes `Time` as an instant; `None` for years that chrono does not know.
#[must_use]
pub fn from_kubernetes(time: &Time) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.0.as_second(), 0)
}

/// RFC 3339 text in UTC with whole seconds, as it stands in Secrets, annotations and statuses.
#[must_use]
pub fn to_rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// Reads RFC 3339 text; `None` where it is not one, which callers treat as "unknown".
#[must_use]
pub fn from_rfc3339(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|at| at.with_timezone(&Utc))
}
