//! The process: Kubernetes client, tasks, probes and shutdown.

pub mod admin;
mod bodies;
pub mod client;
pub mod election;
pub mod loops;
mod pages;
mod ready;
pub mod run;
