//! Reading the cluster into facts. Nothing here writes, and nothing decides.

pub mod client_secret;
pub mod index;
pub(crate) mod intern;
pub mod metadata;
mod reduced;
pub mod target;
