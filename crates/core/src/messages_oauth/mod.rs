//! The sentences that users read about authorization servers and tokens, from the typed errors of the protocol: the
//! reason of a condition, and what happened to which object and what to do.

pub mod authority;
mod tls;
pub mod token;
pub mod transport;
pub mod verdict;
