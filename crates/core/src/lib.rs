//! What the operator decides, as pure functions of the observed state and the time.
//!
//! No Kubernetes client, no runtime, no HTTP, no clock and no randomness: `now` and the seed of the jitter are
//! arguments, so that every row of the fault table is a test without waiting, and a restarted operator decides as the
//! one before it did.

pub mod action;
pub mod authority_status;
pub mod backoff;
pub mod call_failure;
pub mod client_expiry;
pub mod client_keys;
pub mod client_state;
pub mod conflict;
pub mod contenders;
pub mod decide;
pub mod desired_secret;
pub mod election;
pub mod events;
pub mod failure;
pub mod fingerprint;
pub mod kept_tokens;
pub mod last_held;
pub mod lost_annotations;
pub mod messages;
pub mod messages_lifetime;
pub mod messages_oauth;
pub mod messages_permission;
pub mod messages_restart;
pub mod object;
pub mod observed;
pub mod ownership;
pub mod policy;
pub mod quote;
pub mod renewal;
pub mod request_error;
pub mod requests;
pub mod restart;
pub mod retry_key;
pub mod retry_state;
pub mod revisions;
pub mod rivals;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
pub mod schedule;
pub mod secret_patch;
pub mod secret_state;
pub mod status;
pub mod streak;
pub mod suspects;
pub mod template;
pub mod token;
pub mod token_rules;
pub mod validate;
pub mod withheld;
