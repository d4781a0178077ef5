//! The process: client, tasks, probes, shutdown.

pub mod admin;
pub mod client;
pub mod election;
pub mod loops;
pub mod run;
