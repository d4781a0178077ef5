//! Carrying out what was decided: requesting a token, writing the Secret. Nothing here decides.

pub mod rollout;
pub mod secret_writer;
pub mod token_request;
