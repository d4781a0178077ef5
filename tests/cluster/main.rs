//! The operator against real servers: etcd, an API server and authorization servers. Each test has its own namespace
//! and operator process, and all run in parallel. `make test` starts the testbed.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

mod account;
mod apiserver;
mod audit;
mod converge;
mod environment;
mod faults;
mod fixture;
mod keycloak;
mod plugin_program;
