//! Configuration, validated once and converted into types that need no further validation.

pub mod args;
pub mod authority;
pub mod proxy;
