//! The observed state of the cluster. This module reads; it neither decides nor writes.

pub mod client_secret;
pub mod index;
pub(crate) mod intern;
pub mod metadata;
mod names;
mod reduced;
pub mod target;
pub mod watch;
