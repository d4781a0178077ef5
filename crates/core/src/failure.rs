//! A failure: the reason of a condition, its message, and a wait that a server asked for.
//!
//! Errors are typed where they happen. They become a failure where a user must read about them.

use chrono::TimeDelta;
use itwin_api::{conditions::Reason, line::line};

/// The length of a message, in bytes. The longest one names 64 scopes of 128 bytes.
const MESSAGE_MAX: usize = 16 << 10;

/// Why the operator cannot proceed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason of the condition.
    pub reason: Reason,
    /// What happened, which object is affected, and what to do.
    pub message: String,
    /// How long the server asked this client to wait.
    pub retry_after: Option<TimeDelta>,
    /// How long it asked all its clients to wait: also those that are corrected or named in place of this one.
    pub server_wait: Option<TimeDelta>,
}

impl Failure {
    /// A failure with this reason and message. No server asked for a wait. The message may quote what others wrote, and is
    /// one line. It is kept for each credential, and is in its status twice: what is longer than any message should be is
    /// cut.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let mut message = line(message.into());
        message.truncate(message.floor_char_boundary(MESSAGE_MAX));
        Self { reason, message, retry_after: None, server_wait: None }
    }

    /// What happened, without what to do: the message up to its first colon outside parentheses and quotation marks.
    #[must_use]
    pub fn summary(&self) -> &str {
        let (mut depth, mut is_quoted) = (0_usize, false);
        for (at, c) in self.message.char_indices() {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                '"' => is_quoted = !is_quoted,
                ':' if depth == 0 && !is_quoted && self.message[at..].starts_with(": ") => return &self.message[..at],
                _ => {}
            }
        }
        &self.message
    }

    /// Whether users read the same about both.
    #[must_use]
    pub fn reads_as(&self, other: &Self) -> bool {
        self.reason == other.reason && self.message == other.message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_bounded() {
        let message = Failure::new(Reason::ServerError, "ü".repeat(MESSAGE_MAX)).message;
        assert!(message.len() <= MESSAGE_MAX && message.ends_with('ü'), "{} bytes", message.len());
    }

    #[test]
    fn message_is_one_line_whatever_it_quotes() {
        let message =
            Failure::new(Reason::ServerError, "it says: a\n2026-01-01 ERROR forged \u{1b}[2J\u{202e}").message;
        assert_eq!(message, "it says: a 2026-01-01 ERROR forged ?[2J?");
    }

    #[test]
    fn summary_is_what_happened() {
        for (message, expected) in [
            ("ITwinAuthority ims answered invalid_client: check a: b", "ITwinAuthority ims answered invalid_client"),
            ("Secret a could not be written (HTTP 403: no): ask", "Secret a could not be written (HTTP 403: no)"),
            ("it names \"a: b\": correct it", "it names \"a: b\""),
            ("https://ims.example.com does not answer", "https://ims.example.com does not answer"),
            ("", ""),
        ] {
            assert_eq!(Failure::new(Reason::ServerError, message).summary(), expected);
        }
    }
}
