//! The process: Kubernetes client, tasks, probes and shutdown.

pub mod admin;
mod bodies;
pub mod client;
mod jumps;
pub mod kubeconfig;
pub mod loops;
mod pages;
pub mod process;
mod ready;
pub mod run;
