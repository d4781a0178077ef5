//! Untrustworthy servers: the part "Token endpoint" of the fault table, row by row, over real TLS. One
//! operator serves all rows of a test; each row has its own ITwinAuthority, credential and client.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

#[path = "../apiserver/fixture.rs"]
#[allow(dead_code, reason = "the other test binary uses the rest")]
mod fixture;
mod lifetimes;
mod load;
mod row;
mod rows;
mod tls;
