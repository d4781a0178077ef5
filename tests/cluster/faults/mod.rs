//! Untrustworthy servers: the part "Token endpoint" of the fault table, row by row, over real TLS. One
//! operator serves all rows of a test; each row has its own ITwinAuthority, credential and client.

mod assertions;
mod in_flight;
mod lifetimes;
mod load;
mod moved;
mod names;
mod not_http;
mod proxies;
mod row;
mod rows;
mod same_token;
mod tls;
mod waits;
