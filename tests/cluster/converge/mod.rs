//! The part "Kubernetes API" of the fault table: every fault at every call of the operator, and a crash of the operator
//! at each of them. Each must end in the same state as without a fault, and a valid token is never lost on the way.

mod cell;
mod columns;
mod crashes;
mod fixture;
mod follower;
mod frozen;
mod lists;
mod matrix;
mod no_fault;
mod others;
mod reported;
mod rivals;
mod watches;
