//! A tenant does not affect another one: a neighbour with tokens of 30 s keeps them under each kind of load that a
//! tenant or an authorization server can cause, and waiting credentials cost nothing. Each test has two namespaces and
//! its own operator. The tests are about rates, so they take as long as they observe.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

#[path = "../cluster/audit.rs"]
#[allow(dead_code, reason = "the other programs use the rest")]
mod audit;
#[path = "../cluster/environment.rs"]
#[allow(dead_code, reason = "the other programs use the rest")]
mod environment;
#[path = "../cluster/fixture.rs"]
#[allow(dead_code, unused_imports, reason = "the other programs use the rest")]
mod fixture;
mod neighbour;
mod noise;
mod tenants;
mod waiting;
mod webhook;
