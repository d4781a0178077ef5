//! What people configure, checked once and turned into values that need no second check.

pub mod args;
pub mod authority;
