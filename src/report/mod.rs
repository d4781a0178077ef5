//! Reports for people: status, events, logs. Nothing here decides, and its own failures never replace the cause.

pub mod backlog;
pub mod log;
pub mod publisher;
