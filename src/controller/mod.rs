//! The loop: what wakes a credential, and observe, decide, act, report in a row for it.

mod admission;
mod attempt;
pub mod authorities;
pub mod fetched;
pub mod guarded;
pub mod invalid_objects;
pub mod namespaces;
pub mod observation;
pub mod others;
pub mod reconcile;
pub mod registry;
mod report;
pub mod requests;
pub mod retry_state;
mod revert;
pub mod watches;

/// When to look at an object again, beside when something changes: after this, or only then.
pub type RequeueAfter = Option<std::time::Duration>;
