//! `kubectl itcred`: what people who run credentials ask for every day, with their own permissions and no others.
//!
//! What is shown and found is decided by pure functions of what was read and of the time ([`view`], [`timeline`],
//! [`check`], [`lint`]); [`session`] makes the calls, each with a deadline, and [`commands`] joins both. The rules are
//! those of the operator: `itwin-core` and `itwin-oauth` decide, this crate asks.

pub mod args;
pub mod check;
pub mod claims;
pub mod commands;
pub mod completion;
pub mod connection;
pub mod deletion;
#[cfg(test)]
mod fake;
pub mod hint;
pub mod lint;
pub mod output;
pub mod owner;
#[cfg(test)]
mod pinned;
pub mod plain;
pub mod problem;
pub mod renewal;
pub mod rotation;
pub mod secret_input;
pub mod session;
pub mod span;
pub mod table;
pub mod timeline;
pub mod view;
pub mod workloads;
