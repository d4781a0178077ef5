//! Telling people: status, events, logs. Nothing here decides, and its own failures never replace the cause.

pub mod events;
pub mod log;
pub mod publisher;
pub mod status;
