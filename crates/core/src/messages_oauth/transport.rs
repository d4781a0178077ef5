//! What users read when an authorization server gives no answer that can be read.

use std::time::Duration;

use itwin_api::conditions::Reason;
use itwin_oauth::{
    tls::TrustedRoots,
    transport::{ProxyError, TransportError},
};

use super::tls;
use crate::failure::Failure;

/// A failed exchange. `what` names the resource, such as "token endpoint of ITwinAuthority bentley-ims"; `moved` says what
/// to do where it has another URL.
#[must_use]
pub fn failed(error: &TransportError, what: &str, moved: &str) -> Failure {
    let failure = match error {
        TransportError::Timeout(deadline) => timeout(*deadline, what),
        TransportError::ConnectTimeout(deadline) => connect_timeout(*deadline, what),
        TransportError::Connection(cause) => connection(cause, what),
        TransportError::Proxy(error) => proxy(*error, what),
        TransportError::Tls(error) => Failure::new(Reason::TLSFailed, tls::message(error, what)),
        TransportError::Redirect(status) => redirect(*status, what, moved),
        TransportError::RateLimited(..) => rate_limited(what),
        TransportError::Server(status, ..) => server_error(*status, what),
        TransportError::TooLarge(limit) => too_large(*limit, what),
        TransportError::NotHttp(cause) | TransportError::Malformed(cause) => malformed(cause, what),
    };
    Failure { retry_after: error.retry_after(), server_wait: error.server_wait(), ..failure }
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

/// The proxy is that of the operator's environment.
fn proxy(error: ProxyError, what: &str) -> Failure {
    let message = match error {
        ProxyError::Unauthorized => format!(
            "the proxy on the way to the {what} answered HTTP 407: write the user name and password that it accepts into \
             the URL in HTTPS_PROXY of the operator; it is tried again"
        ),
        ProxyError::NotConnected => format!(
            "the proxy on the way to the {what} refused to connect to it, or could not reach it: have the proxy allow \
             this host and port, check that it reaches them, or name the host in NO_PROXY of the operator; it is tried \
             again"
        ),
        ProxyError::Ipv6Address => format!(
            "the {what} has an IPv6 address in its URL, to which no connection is made through a proxy: write a host \
             name into the URL, or add the address to NO_PROXY of the operator; it is tried again"
        ),
        ProxyError::UntrustedIssuer(roots) => untrusted_proxy(roots, what),
    };
    Failure::new(Reason::ConnectionFailed, message)
}

/// The HTTP client trusts the same CAs for the proxy and for the server.
fn untrusted_proxy(roots: TrustedRoots, what: &str) -> String {
    let checked_with = match roots {
        TrustedRoots::Configured => "spec.caBundle of the ITwinAuthority",
        TrustedRoots::Referenced => "what spec.caBundleRef of the ITwinAuthority names",
        TrustedRoots::System => "the system's roots",
    };
    format!(
        "the proxy on the way to the {what} has a certificate signed by no CA of {checked_with}, which the proxy's \
         certificate is checked with too: write an http:// URL of the proxy into HTTPS_PROXY of the operator, or add its \
         CA there, which is then trusted for the authority too; it is tried again"
    )
}

fn redirect(status: u16, what: &str, moved: &str) -> Failure {
    let message = format!("the {what} answered HTTP {status}, and redirects are never followed: {moved}");
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
    const MOVED: &str = "set tokenEndpoint to the final URL";

    #[test]
    fn every_failure_has_its_reason_and_names_the_resource() {
        for (error, reason) in [
            (TransportError::Timeout(Duration::from_secs(10)), Reason::Timeout),
            (TransportError::ConnectTimeout(Duration::from_secs(5)), Reason::Timeout),
            (TransportError::Connection("refused".into()), Reason::ConnectionFailed),
            (ProxyError::Unauthorized.into(), Reason::ConnectionFailed),
            (ProxyError::NotConnected.into(), Reason::ConnectionFailed),
            (ProxyError::Ipv6Address.into(), Reason::ConnectionFailed),
            (ProxyError::UntrustedIssuer(TrustedRoots::Referenced).into(), Reason::ConnectionFailed),
            (TransportError::Tls(TlsError::NotTls), Reason::TLSFailed),
            (TransportError::Tls(TlsError::ClientCertificateWanted), Reason::TLSFailed),
            (TransportError::Redirect(307), Reason::RedirectRefused),
            (TransportError::RateLimited(None, Vec::new()), Reason::RateLimited),
            (TransportError::Server(500, None, Vec::new()), Reason::ServerError),
            (TransportError::TooLarge(1), Reason::MalformedResponse),
            (TransportError::NotHttp("invalid HTTP version parsed".into()), Reason::MalformedResponse),
            (TransportError::Malformed("HTTP 404".into()), Reason::MalformedResponse),
        ] {
            let failed = failed(&error, WHAT, MOVED);
            assert_eq!(failed.reason, reason, "{error:?}");
            assert!(failed.message.contains(WHAT), "{}", failed.message);
            assert_eq!(failed.message.contains(MOVED), reason == Reason::RedirectRefused, "{}", failed.message);
        }
    }

    #[test]
    fn wait_is_the_one_that_the_server_asks_for() {
        let wait = Some(TimeDelta::seconds(7));
        for error in [TransportError::Server(500, wait, Vec::new()), TransportError::RateLimited(wait, Vec::new())] {
            assert_eq!(failed(&error, WHAT, MOVED).retry_after, wait, "{error:?}");
        }
        assert_eq!(failed(&TransportError::TooLarge(1), WHAT, MOVED).retry_after, None);
    }

    #[test]
    fn ca_of_a_proxy_is_advised_only_after_a_url_that_needs_none_and_with_what_it_costs() {
        for roots in [TrustedRoots::Configured, TrustedRoots::Referenced, TrustedRoots::System] {
            let message = failed(&ProxyError::UntrustedIssuer(roots).into(), WHAT, MOVED).message;
            let [url, ca, cost] = ["an http:// URL", "add its CA", "trusted for the authority too"]
                .map(|advice| message.find(advice).unwrap_or_else(|| unreachable!("{advice} is not in: {message}")));
            assert!(url < ca && ca < cost, "{message}");
        }
    }

    #[test]
    fn body_of_a_failed_server_is_not_repeated() {
        let error = TransportError::Server(500, None, b"ATTACKER".to_vec());
        assert!(!failed(&error, WHAT, MOVED).message.contains("ATTACKER"));
    }

    #[test]
    fn proxy_without_a_connection_may_refuse_or_be_unable_to_reach_the_server() {
        let message = failed(&ProxyError::NotConnected.into(), WHAT, MOVED).message;
        assert!(message.contains("refused to connect to it, or could not reach it"), "{message}");
        assert!(message.contains("NO_PROXY"), "{message}");
    }
}
