//! The process: client, tasks, probes, shutdown.

pub mod admin;
pub mod client;
pub mod election;
pub mod loops;
mod ready;
pub mod run;
