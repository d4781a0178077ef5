//! A Kubernetes operator that keeps OAuth 2.0 access tokens of the iTwin Platform valid in Secrets.
//!
//! Data flows in one direction, and each module uses only those above it (`docs/architecture.md`; `tests/tidy.rs`
//! checks it):
//!
//! ```text
//! api      the custom resources                config   flags and authorities, validated once
//! decide   observed state + now -> action      oauth    the client of authorities, bounded
//! observe  the cluster -> observed state       cluster  calls to the Kubernetes API, each with a deadline
//! journal  the crash journal
//! act      action -> token -> Secret           report   status, events, logs
//! controller   watches and work queues; observe, decide, act, report
//! runtime      the process: tasks, probes, shutdown
//! ```

pub mod clock;
pub mod liveness;
pub mod restores;
pub mod workers;

pub mod config;

pub mod oauth;

pub mod metrics;

pub mod leadership;

pub mod cluster;
pub mod observe;

pub mod journal;

pub mod act;
pub mod report;

pub mod controller;
pub mod runtime;
