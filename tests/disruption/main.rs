//! The cluster fails under the operator: etcd and the API server die and come back, CRDs are missing or hold invalid
//! objects. Each test has its own control plane; the authorization servers are those of the testbed.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

#[path = "../cluster/audit.rs"]
#[allow(dead_code, reason = "the other programs use the rest")]
mod audit;
mod cluster;
mod crds;
#[path = "../cluster/environment.rs"]
#[allow(dead_code, reason = "the other programs use the rest")]
mod environment;
#[path = "../cluster/fixture.rs"]
#[allow(dead_code, unused_imports, reason = "the other programs use the rest")]
mod fixture;
mod large;
mod lint;
mod many;
mod memory;
mod outage;
mod plugin;
#[path = "../cluster/plugin_program.rs"]
mod plugin_program;
mod restore;
