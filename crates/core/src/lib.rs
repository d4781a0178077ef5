//! What the operator decides, as pure functions of the observed state and the time.
//!
//! No Kubernetes client, no runtime, no HTTP, no clock and no randomness: `now` and the seed of the jitter are
//! arguments, so that every row of the fault table is a test without waiting, and a restarted operator decides as the
//! one before it did.

pub mod action;
pub mod backoff;
pub mod conflict;
pub mod contenders;
pub mod decide;
pub mod events;
pub mod failure;
pub mod fingerprint;
pub mod messages_oauth;
pub mod observed;
pub mod ownership;
pub mod requests;
pub mod schedule;
pub mod status;
pub mod suspects;
pub mod template;
pub mod validate;
