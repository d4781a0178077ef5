//! The loop: what wakes a credential, and observe, decide, act, report in a row for it.

mod attempt;
pub mod authorities;
pub mod gather;
pub mod guarded;
pub mod memory;
mod mend;
pub mod others;
pub mod reading;
pub mod reconcile;
pub mod registry;
pub mod requests;
pub mod scopes;
mod tell;
mod turn;
pub mod unreadable;
pub mod watches;

/// When to look at an object again, beside when something changes: after this, or only then.
pub type RequeueAfter = Option<std::time::Duration>;
