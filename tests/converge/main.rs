//! The part "Kubernetes API" of the fault table: every fault at every call that the operator makes, and the operator
//! ended at each of them. Each must end as if there had been none, a good token never lost on the way.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

mod cell;
mod columns;
mod crashes;
mod follower;
mod frozen;
mod listings;
mod matrix;
mod no_fault;
mod others;
mod rivals;
mod watches;
mod world;
