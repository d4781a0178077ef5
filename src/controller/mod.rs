//! The loop: what wakes a credential, and observe, decide, act, report in a row for it.

mod attempt;
pub mod authorities;
pub mod gather;
pub mod memory;
mod mend;
pub mod reading;
pub mod reconcile;
pub mod scopes;
mod tell;
pub mod unreadable;
pub mod watches;
