//! The cluster fails under the operator: etcd and the API server die and come back, kinds are missing or hold what
//! nobody understands. Each test has a control plane of its own; the authorization servers are the stage's.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

mod cluster;
mod fat;
#[path = "../apiserver/fixture.rs"]
#[allow(dead_code, reason = "the other test binary uses the rest")]
mod fixture;
mod kinds;
mod many;
mod memory;
mod outage;
