//! The process: client, tasks, probes, shutdown.

pub mod admin;
pub mod client;
pub mod run;
