//! The operator against a real API server and a real authorization server. Each test has its own namespace,
//! ITwinAuthority and operator process, and all run in parallel. `make test` starts the testbed.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

mod account;
mod admission;
mod audit;
mod authority;
mod client_secrets;
mod command_line;
mod conflict;
mod contention;
mod control;
mod crash;
mod drift;
mod failover;
mod failures;
mod fights;
mod fixture;
mod issue;
mod ownership;
mod permissions;
mod regressions;
mod renewal;
mod sources;
mod surroundings;
mod template;
mod truth;
mod writes;
