//! A Kubernetes operator that keeps OAuth 2.0 access tokens of the iTwin Platform valid in Secrets.
//!
//! Data flows one way; each module uses those above it (`docs/architecture.md`, checked by `tests/tidy.rs`):
//!
//! ```text
//! api      what users write and read           config   what people configure, checked once
//! decide   facts + now -> plan, pure           oauth    the authority's protocol, bounded
//! observe  the cluster -> facts                cluster  every call to the API: named, with a deadline
//! journal  what was under way when the last process ended
//! act      plan -> token -> Secret             report   status, events, logs
//! controller   what wakes a credential; observe, decide, act, report in a row
//! runtime      the process: tasks, probes, shutdown
//! ```

pub mod clock;
pub mod liveness;

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
