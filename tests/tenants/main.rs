//! One tenant's trouble is never another's: a neighbour with tokens of 30 s keeps them beside each kind of noise that a
//! tenant or an authorization server can make, and what waits costs nothing. Each test has two namespaces and an
//! operator of its own; how the noise is paced is the subject, so that the tests take as long as they watch.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

mod neighbour;
mod noise;
mod waiting;
mod world;
