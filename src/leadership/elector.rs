//! Which of several replicas acts: the one that holds the Lease.
//!
//! The election is kunobi-ha's (docs/decisions/0005): guarded by resourceVersion, renewed every second, given up when
//! the process ends. It speaks an older kube, so its requests go through our own client here, each with a deadline;
//! and each renewal that is seen on the way prolongs our [`Mandate`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use kunobi_ha::leader::{LeaderElection, LeaderGuard, StepDownReason};
use tokio::time::timeout;
use tower::BoxError;

use super::fence::Mandate;
use crate::{api::MANAGER, metrics::Metrics};

/// A leader that was not heard of for so long is replaced. The contract gives 20 s until the next one has acted, on a
/// busy machine too.
const LEASE: Duration = Duration::from_secs(12);
/// A leader that could not renew for so long gives up.
const RENEW_WITHIN: Duration = Duration::from_secs(8);
/// How often the leader renews and the others look: a leader that gives up is replaced within this.
const PERIOD: Duration = Duration::from_secs(1);
/// The longest time for one request about the Lease.
const DEADLINE: Duration = Duration::from_secs(3);
/// How long one renewal lets the process act: less than the Lease by what the clocks of two nodes may differ.
const VALIDITY: Duration = Duration::from_secs(10);

/// One replica that stands for election.
pub struct Candidate {
    election: LeaderElection,
    mandate: Mandate,
}

/// An elected replica.
pub struct Leader {
    guard: LeaderGuard,
    mandate: Mandate,
}

/// The right to act that an election gives.
#[must_use]
pub fn mandate() -> Mandate {
    Mandate::elected(VALIDITY)
}

impl Candidate {
    /// Stands for election through the Lease of the operator's name in `namespace`.
    #[must_use]
    pub fn new(
        client: kube::Client,
        namespace: &str,
        identity: String,
        mandate: Mandate,
        metrics: Arc<Metrics>,
    ) -> Self {
        let requests = Requests { client, mandate: mandate.clone(), metrics };
        let service = tower::service_fn(move |request| requests.clone().send(request).boxed());
        let client = kube_for_lease::Client::new(service, namespace);
        let election = LeaderElection::builder(client, namespace, MANAGER)
            .identity(kunobi_ha::leader::Identity::Custom(identity))
            .lease_duration(LEASE)
            .renew_deadline(RENEW_WITHIN)
            .retry_period(PERIOD)
            .renew_request_timeout(DEADLINE)
            .build();
        Self { election, mandate }
    }

    /// Waits until this replica is elected, however long that takes.
    ///
    /// # Errors
    /// Text, where the settings contradict each other.
    pub async fn elected(&self) -> Result<Leader, String> {
        loop {
            match self.election.acquire().await {
                Ok(guard) => return Ok(Leader { guard, mandate: self.mandate.clone() }),
                // the API server does not answer: nobody else is elected either
                Err(error @ kunobi_ha::Error::ObserveTimeout(..)) => {
                    tracing::warn!(
                        "the Lease could not be read for long: {}",
                        error.to_string().lines().next().unwrap_or_default()
                    );
                }
                Err(error) => return Err(format!("leader election cannot begin: {error}")),
            }
        }
    }
}

impl Leader {
    /// Waits until this replica leads no more, and says why.
    pub async fn lost(&mut self) -> &'static str {
        let reason = self.guard.lost().await;
        self.mandate.end();
        match reason {
            StepDownReason::HolderChanged => "another replica holds the Lease",
            StepDownReason::RenewDeadlineExceeded => "the Lease could not be renewed in time",
            _ => "the renewal of the Lease ended",
        }
    }

    /// Gives the Lease up, so that another replica acts at once.
    pub async fn step_down(self) {
        self.mandate.end();
        if timeout(DEADLINE, self.guard.step_down()).await.is_err() {
            tracing::warn!("the Lease could not be given up; it runs out by itself");
        }
    }
}

/// A name that no other process has, nor this one had before its last start.
///
/// # Errors
/// Text, where the system gives no random numbers.
pub fn identity() -> Result<String, String> {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| MANAGER.to_owned());
    let mut random = [0_u8; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| "the system gives no random numbers".to_owned())?;
    Ok(format!("{host}_{}", crate::digest::hex(&random)))
}

/// Sends requests about the Lease through our own client.
#[derive(Clone)]
struct Requests {
    client: kube::Client,
    mandate: Mandate,
    metrics: Arc<Metrics>,
}

impl Requests {
    async fn send(self, request: Request<kube_for_lease::client::Body>) -> Result<Response<Body>, BoxError> {
        let (head, body) = request.into_parts();
        let method = head.method.clone();
        let body = body.collect().await?.to_bytes();
        let sent = Instant::now();
        let answer = timeout(DEADLINE, self.client.send(Request::from_parts(head, Body::from(body)))).await;
        let (verb, writes) = match method {
            Method::POST => ("create", true),
            Method::PUT => ("update", true),
            _ => ("get", false),
        };
        let result = match &answer {
            Ok(Ok(answer)) if answer.status().is_success() => "success",
            Ok(Ok(answer)) if answer.status() == http::StatusCode::CONFLICT => "conflict",
            Ok(Ok(answer)) if answer.status() == http::StatusCode::NOT_FOUND => "not_found",
            Ok(Ok(_)) => "unavailable",
            Ok(Err(_)) => "transport",
            Err(_) => "timeout",
        };
        self.metrics.kubernetes_request(verb, "leases", result);
        if writes && result == "success" {
            self.mandate.renew(sent);
        }
        Ok(answer.map_err(|_| format!("no answer about the Lease within {} s", DEADLINE.as_secs()))??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leader_stops_before_another_may_start() {
        // the last renewal may begin just within the limit, and takes its deadline
        assert!(RENEW_WITHIN + PERIOD + DEADLINE <= LEASE);
        assert!(VALIDITY < LEASE && RENEW_WITHIN <= VALIDITY, "what cannot renew ends by itself, what can goes on");
    }

    #[test]
    fn two_starts_of_one_pod_are_two_candidates() {
        assert_ne!(identity(), identity());
    }
}
