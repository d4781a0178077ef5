//! Answers of a token endpoint that are not HTTP, or whose head breaks its rules: another service listens there.

use anyhow::Result;
use serde_json::{Value, json};

use crate::faults::{row::Row, rows::play};

/// The head of an answer whose length is no number.
const LENGTH_OF_LETTERS: &str = "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n";

/// The head of an answer with more headers than are read.
fn many_headers() -> String {
    let headers: Vec<String> = (0..200).map(|number| format!("X-{number}: ATTACKER\r\n")).collect();
    format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\n{{}}", headers.concat())
}

fn raw(text: &str) -> Value {
    json!({"name": "raw", "value": text})
}

#[tokio::test]
async fn answer_that_is_not_http_is_malformed() -> Result<()> {
    let malformed = |name, text: &str| Row::new(name, raw(text), "MalformedResponse");
    play(
        "not-http",
        vec![
            malformed("ssh-banner", "SSH-2.0-OpenSSH_9.9\r\n").with_text("invalid HTTP version"),
            malformed("many-headers", &many_headers()).with_text("message head is too large"),
            malformed("length-of-letters", LENGTH_OF_LETTERS).with_text("invalid content-length"),
        ],
    )
    .await
}
