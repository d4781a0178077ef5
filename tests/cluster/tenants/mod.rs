//! A tenant does not affect another one: a neighbour with tokens of 30 s keeps them under each kind of load that a
//! tenant or an authorization server can cause, and waiting credentials cost nothing. Each test has two namespaces and
//! its own operator. The tests are about rates, so they take as long as they observe.

mod fixture;
mod neighbour;
mod noise;
mod waiting;
