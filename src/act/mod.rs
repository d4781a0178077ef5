//! Carrying out what was decided: asking for a token, writing the Secret. Nothing here decides.

pub mod rollout;
pub mod secret_writer;
pub mod template;
pub mod token_request;
