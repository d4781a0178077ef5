//! The operator against real servers: etcd, an API server and authorization servers. Each test has its own namespace
//! and operator process, and all run in parallel. `make test` starts the testbed.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

mod apiserver;
mod converge;
mod disruption;
mod faults;
mod fixture;
mod tenants;
