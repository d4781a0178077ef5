//! Servers that cannot be trusted: the part "Token endpoint" of the fault table, row by row, over real TLS. One
//! operator serves all rows of a test; each row has an ITwinAuthority, a credential and a client of its own.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

mod load;
mod row;
mod rows;
