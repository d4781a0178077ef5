//! The process: Kubernetes client, tasks, probes and shutdown.

pub mod admin;
mod beginning;
mod bodies;
pub mod client;
mod connections;
mod jumps;
pub mod kubeconfig;
mod later;
pub mod loops;
mod pages;
mod parts;
pub mod process;
mod ready;
pub mod run;
