//! The loop: what wakes a credential, and observe, decide, act, report in a row for it.

pub mod authorities;
pub mod gather;
pub mod memory;
pub mod reconcile;
pub mod scopes;
pub mod watches;
