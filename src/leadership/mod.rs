//! Which of several replicas leads, and the fence without which it writes nothing.

pub mod elector;
pub mod fence;
pub mod lease;
mod lease_watch;
#[cfg(test)]
mod tests;
