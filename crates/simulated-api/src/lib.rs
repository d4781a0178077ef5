//! A Kubernetes API server in memory, for tests that control time, order and faults.
//!
//! It serves real clients (`kube::Client::new(server.client_service("name"), "default")`) on one thread: tokio's clock,
//! which tests pause, decides about delays, and a clock of the test's own about timestamps. Nothing in it depends on
//! anything but the seed and the order of requests, so that two runs are equal ([`ApiServer::requests_hash`]).
//!
//! A differential test plays the same random operations on it and on a real kube-apiserver and compares the answers;
//! a difference is a bug of this crate. What it leaves out on purpose is listed there.

pub mod admission;
pub mod body;
mod cache;
mod changes;
mod complete;
mod delete;
pub mod faults;
mod fields_v1;
mod gc;
mod list;
pub mod log;
mod managed_fields;
mod object;
pub mod patch;
mod path;
mod prepare;
pub mod random;
pub mod request;
pub mod resources;
pub mod schema;
mod selector;
mod server;
mod service;
pub mod state;
pub mod status;
mod store;
mod user;
pub mod validate;
mod validate_kinds;
mod watch;
mod write;

pub use server::{ApiServer, Config};
pub use service::ClientService;
pub use user::User;
