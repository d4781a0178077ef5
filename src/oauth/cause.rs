//! The causes of a failed exchange, out of the chain of errors that the HTTP client gives.

use std::{error::Error, io};

use itwin_oauth::transport::ProxyError;

/// The longest cause of a failure that is repeated, in characters: parts of it can come from the server.
const CAUSE_MAX: usize = 200;

/// The causes of an error, outermost first. An `io::Error` leaves the error that it wraps out of `source`; here it is in.
pub fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |cause| {
        let cause: &(dyn Error + 'static) = *cause;
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| cause.source())
    })
}

/// The outermost cause of this type.
pub fn find<E: Error + 'static>(error: &reqwest::Error) -> Option<&E> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// The kind of the system's error, if there is one.
pub fn io_error_kind(error: &reqwest::Error) -> Option<io::ErrorKind> {
    find::<io::Error>(error).map(io::Error::kind)
}

/// What the proxy answered in place of making a connection. The error of the library has no type that could be named; a
/// test with a real proxy knows its texts.
pub fn proxy_error(error: &reqwest::Error) -> Option<ProxyError> {
    causes(error).find_map(|cause| match cause.to_string().as_str() {
        "tunnel error: proxy authorization required" => Some(ProxyError::Unauthorized),
        "tunnel error: unsuccessful" => Some(ProxyError::NotConnected),
        _ => None,
    })
}

/// Whether the other side answered something that is not HTTP, or a message head that breaks its rules.
pub fn is_not_http(error: &reqwest::Error) -> bool {
    find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse)
}

/// Whether the other side ended the connection.
pub fn is_closed(error: &reqwest::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let incomplete = find::<hyper::Error>(error).is_some_and(hyper::Error::is_incomplete_message);
    let ended = |kind| matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof);
    incomplete || io_error_kind(error).is_some_and(ended)
}

/// The innermost error: the outer ones say "error sending request" and repeat the URL, whose path may be one that a server
/// named after it was sent client secrets.
pub fn root_cause(error: &reqwest::Error) -> String {
    let without_url = || error.to_string().split(" for url").next().unwrap_or_default().to_owned();
    bounded(&causes(error).last().map_or_else(without_url, ToString::to_string))
}

/// A cause as a message may repeat it.
pub fn bounded(cause: &str) -> String {
    let mut characters = cause.chars().filter(|c| !c.is_control());
    let mut text: String = characters.by_ref().take(CAUSE_MAX).collect();
    if characters.next().is_some() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use reqwest::{ResponseBuilderExt, Url};

    use super::*;

    #[test]
    fn error_without_a_cause_is_shown_without_its_url() {
        let url = Url::parse("https://ims.example.com/hunter2").expect("a URL");
        let response = http::Response::builder().status(500).url(url).body("").expect("a response");
        let error = reqwest::Response::from(response).error_for_status().expect_err("an error");
        assert!(error.to_string().contains("hunter2") && error.source().is_none(), "{error}");
        let cause = root_cause(&error);
        assert!(cause.contains("500") && !cause.contains("hunter2"), "{cause}");
    }

    #[test]
    fn cause_is_cut_and_has_no_control_characters() {
        assert_eq!(bounded("certificate\r\nexpired\u{1b}[31m"), "certificateexpired[31m");
        assert_eq!(bounded(&"ä".repeat(CAUSE_MAX)).chars().count(), CAUSE_MAX);
        assert_eq!(bounded(&"ä".repeat(10_000)).chars().count(), CAUSE_MAX + 1);
    }
}
