//! What to do, as pure functions of observed facts and the time.
//!
//! No kube, no tokio, no HTTP, no clock and no randomness: `now` and the jitter's seed are arguments, so that every
//! row of the fault table is a test without waiting, and a restarted operator decides as the one before it did.

pub mod backoff;
pub mod conflict;
pub mod contenders;
pub mod election;
pub mod facts;
pub mod fingerprint;
pub mod grant;
pub mod next;
pub mod ownership;
pub mod plan;
pub mod requests;
pub mod schedule;
pub mod suspects;
