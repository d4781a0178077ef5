//! What users read when an authorization server gives no answer that can be read.

use std::time::Duration;

use itwin_api::conditions::Reason;
use itwin_oauth::transport::TransportError;

use super::tls;
use crate::failure::Failure;

/// A failed exchange. `what` names the resource, such as "token endpoint of ITwinAuthority bentley-ims".
#[must_use]
pub fn failed(error: &TransportError, what: &str) -> Failure {
    let failure = match error {
        TransportError::Timeout(deadline) => timeout(*deadline, what),
        TransportError::ConnectTimeout(deadline) => connect_timeout(*deadline, what),
        TransportError::Connection(cause) => connection(cause, what),
        TransportError::Tls(error) => Failure::new(Reason::TLSFailed, tls::message(error, what)),
        TransportError::Redirect(status) => redirect(*status, what),
        TransportError::RateLimited(..) => rate_limited(what),
        TransportError::Server(status, ..) => server_error(*status, what),
        TransportError::TooLarge(limit) => too_large(*limit, what),
        TransportError::Malformed(cause) => malformed(cause, what),
    };
    Failure { retry_after: error.retry_after(), ..failure }
}

fn timeout(deadline: Duration, what: &str) -> Failure {
    let message = format!(
        "the {what} gave no complete answer within {deadline:?} (requestTimeout): check the network, or raise \
         requestTimeout; it is tried again"
    );
    Failure::new(Reason::Timeout, message)
}

fn connect_timeout(deadline: Duration, what: &str) -> Failure {
    let message = format!(
        "no connection to the {what} within {deadline:?} (connectTimeout): check network policies and proxies, or raise \
         connectTimeout; it is tried again"
    );
    Failure::new(Reason::Timeout, message)
}

fn connection(cause: &str, what: &str) -> Failure {
    let message = format!(
        "no connection to the {what} ({cause}): check name resolution, network policies and proxies; it is tried again"
    );
    Failure::new(Reason::ConnectionFailed, message)
}

fn redirect(status: u16, what: &str) -> Failure {
    let message = format!(
        "the {what} answered HTTP {status}, and redirects are never followed: have the administrator name the final \
         URL in the ITwinAuthority"
    );
    Failure::new(Reason::RedirectRefused, message)
}

fn rate_limited(what: &str) -> Failure {
    let message =
        format!("the {what} answered HTTP 429: lower requestsPerMinute of the ITwinAuthority; it is tried again");
    Failure::new(Reason::RateLimited, message)
}

fn server_error(status: u16, what: &str) -> Failure {
    let message = format!(
        "the {what} answered HTTP {status}: contact the operators of the authorization server; it is tried again"
    );
    Failure::new(Reason::ServerError, message)
}

fn too_large(limit: usize, what: &str) -> Failure {
    let message = format!(
        "the {what} answered with more than {limit} bytes: check that the URL is the right one; it is tried again"
    );
    Failure::new(Reason::MalformedResponse, message)
}

/// An answer that is not the expected one; `cause` says what it is instead.
pub(super) fn malformed(cause: &str, what: &str) -> Failure {
    let message = format!(
        "the {what} gave an answer that is not valid ({cause}): check that the URL is the right one; it is tried again"
    );
    Failure::new(Reason::MalformedResponse, message)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use itwin_oauth::tls::TlsError;

    use super::*;

    const WHAT: &str = "token endpoint of ITwinAuthority ims";

    #[test]
    fn every_failure_has_its_reason_and_names_the_resource() {
        for (error, reason) in [
            (TransportError::Timeout(Duration::from_secs(10)), Reason::Timeout),
            (TransportError::ConnectTimeout(Duration::from_secs(5)), Reason::Timeout),
            (TransportError::Connection("refused".into()), Reason::ConnectionFailed),
            (TransportError::Tls(TlsError::NotTls), Reason::TLSFailed),
            (TransportError::Tls(TlsError::ClientCertificateWanted), Reason::TLSFailed),
            (TransportError::Redirect(307), Reason::RedirectRefused),
            (TransportError::RateLimited(None, Vec::new()), Reason::RateLimited),
            (TransportError::Server(500, None, Vec::new()), Reason::ServerError),
            (TransportError::TooLarge(1), Reason::MalformedResponse),
            (TransportError::Malformed("HTTP 404".into()), Reason::MalformedResponse),
        ] {
            let failed = failed(&error, WHAT);
            assert_eq!(failed.reason, reason, "{error:?}");
            assert!(failed.message.contains(WHAT), "{}", failed.message);
        }
    }

    #[test]
    fn wait_is_the_one_that_the_server_asks_for() {
        let wait = Some(TimeDelta::seconds(7));
        for error in [TransportError::Server(500, wait, Vec::new()), TransportError::RateLimited(wait, Vec::new())] {
            assert_eq!(failed(&error, WHAT).retry_after, wait, "{error:?}");
        }
        assert_eq!(failed(&TransportError::TooLarge(1), WHAT).retry_after, None);
    }

    #[test]
    fn body_of_a_failed_server_is_not_repeated() {
        let error = TransportError::Server(500, None, b"ATTACKER".to_vec());
        assert!(!failed(&error, WHAT).message.contains("ATTACKER"));
    }
}
