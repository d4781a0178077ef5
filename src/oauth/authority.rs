//! One authority as we use it: its HTTP client, endpoints, keys and limits.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use futures::{
    FutureExt,
    future::{BoxFuture, WeakShared},
};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter, clock::Clock};
use tokio::sync::Semaphore;

use super::{
    discovery::{self, Endpoints},
    failure::Failure,
    http::Http,
    jwt::{KeySet, Untrusted},
    token::{self, Proof, TokenAnswer, TokenRequest},
};
use crate::{
    api::conditions::Reason,
    clock,
    config::authority::AuthorityConfig,
    decide::{
        breaker::{Admission, Breaker},
        facts::Refusal,
        grant::Answer,
    },
    digest,
    metrics::Metrics,
};

/// Keys are fetched again for an unknown `kid` at most this often: a forged token must not become a way to make us
/// call the authority.
const KEY_REFETCH_INTERVAL: Duration = Duration::from_secs(60);

/// One authority as we use it.
pub struct Authority {
    /// Name of the ITwinAuthority.
    pub name: String,
    /// Its configuration.
    pub config: AuthorityConfig,
    http: Http,
    metrics: Arc<Metrics>,
    metadata: RwLock<Option<Arc<Metadata>>>,
    permits: Semaphore,
    limiter: DefaultDirectRateLimiter,
    key_refetch: tokio::sync::Mutex<Option<Instant>>,
    breaker: Mutex<Breaker>,
    recoveries: AtomicU32,
    news: AtomicBool,
    /// Requests in flight, by the digest of what is asked; at most one for each credential.
    flights: Mutex<HashMap<String, WeakFlight>>,
}

type WeakFlight = WeakShared<BoxFuture<'static, Result<Answer, NoToken>>>;

/// What an authority told of itself.
pub struct Metadata {
    /// Its issuer identifier as it writes it itself, with or without a trailing slash.
    pub issuer: String,
    /// Where it is asked.
    pub endpoints: Endpoints,
    /// Its signing keys; none where tokens are opaque.
    pub keys: Option<KeySet>,
}

/// Why there is no token.
#[derive(Clone)]
pub enum NoToken {
    /// The request failed.
    Failed(Failure),
    /// Nothing was sent: the rate limit asks to wait so long.
    NotYet(TimeDelta),
}

impl From<Failure> for NoToken {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Authority {
    /// An authority that has not been asked anything yet.
    ///
    /// # Errors
    /// Text that names the field of the ITwinAuthority and says what to do.
    pub fn new(name: String, config: AuthorityConfig, metrics: Arc<Metrics>) -> Result<Self, String> {
        let http = Http::new(config.roots.clone(), config.request_timeout)
            .map_err(|error| format!("caBundle: no TLS client can be made with it ({error})"))?;
        let per_minute = NonZeroU32::new(config.requests_per_minute).ok_or("requestsPerMinute: must be at least 1")?;
        Ok(Self {
            http,
            metadata: RwLock::new(None),
            permits: Semaphore::new(config.max_concurrent_requests.into()),
            limiter: RateLimiter::direct(Quota::per_minute(per_minute)),
            key_refetch: tokio::sync::Mutex::new(None),
            breaker: Mutex::default(),
            recoveries: AtomicU32::new(0),
            news: AtomicBool::new(false),
            flights: Mutex::default(),
            metrics,
            name,
            config,
        })
    }

    /// What the authority told of itself, the last time that it could be asked.
    #[must_use]
    pub fn metadata(&self) -> Option<Arc<Metadata>> {
        self.metadata.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for endpoints and keys. What was known before stays known if that fails.
    ///
    /// # Errors
    /// [`Failure`] of the transport, or [`Reason::MalformedResponse`] with what is wrong in a document.
    pub async fn refresh(&self) -> Result<Arc<Metadata>, Failure> {
        let (issuer, endpoints) = self.discover().await?;
        let keys = if self.config.verify {
            let url = endpoints.jwks.as_ref().ok_or_else(|| {
                self.unusable(
                    "discovery document",
                    "it names no jwks_uri: set spec.jwksUri, or spec.accessTokenFormat to opaque",
                )
            })?;
            Some(self.fetch_keys(url.as_str()).await?)
        } else {
            None
        };
        Ok(self.store(Metadata { issuer, endpoints, keys }))
    }

    async fn discover(&self) -> Result<(String, Endpoints), Failure> {
        let config = &self.config;
        if let Some(token) = &config.token_endpoint
            && (config.jwks_uri.is_some() || !config.verify)
        {
            return Ok((config.issuer.clone(), Endpoints { token: token.clone(), jwks: config.jwks_uri.clone() }));
        }
        let what = format!("discovery document of ITwinAuthority {}", self.name);
        let body =
            self.http.get(&discovery::document_url(&config.issuer)).await.map_err(|error| error.into_failure(&what))?;
        discovery::endpoints(&body, &config.issuer, config.token_endpoint.as_ref(), config.jwks_uri.as_ref())
            .map_err(|error| self.unusable("discovery document", &error))
    }

    async fn fetch_keys(&self, url: &str) -> Result<KeySet, Failure> {
        let what = format!("key set of ITwinAuthority {}", self.name);
        let body = self.http.get(url).await.map_err(|error| error.into_failure(&what))?;
        KeySet::parse(&body).map_err(|error| self.unusable("key set", &error))
    }

    fn store(&self, metadata: Metadata) -> Arc<Metadata> {
        let metadata = Arc::new(metadata);
        *self.metadata.write().unwrap_or_else(PoisonError::into_inner) = Some(metadata.clone());
        metadata
    }

    fn unusable(&self, what: &str, why: &str) -> Failure {
        Failure::new(
            Reason::MalformedResponse,
            format!("the {what} of ITwinAuthority {} cannot be used: {why}", self.name),
        )
    }

    /// Asks for a token and verifies it, within the authority's limits. Equal requests of one namespace that meet in
    /// flight share one: same client, secret, scopes and resources.
    ///
    /// # Errors
    /// [`NoToken`].
    pub async fn ask(self: &Arc<Self>, namespace: &str, request: TokenRequest) -> Result<Answer, NoToken> {
        let key = identity(namespace, &request);
        let (flight, is_ours) = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            match flights.get(&key).and_then(WeakShared::upgrade) {
                Some(flight) => (flight, false),
                None => {
                    let authority = self.clone();
                    let flight = async move { authority.ask_alone(request).await }.boxed().shared();
                    if let Some(weak) = flight.downgrade() {
                        flights.insert(key.clone(), weak);
                    }
                    (flight, true)
                }
            }
        };
        let result = flight.await;
        if is_ours {
            self.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        }
        result
    }

    async fn ask_alone(&self, request: TokenRequest) -> Result<Answer, NoToken> {
        let shutting_down = |_| Failure::new(Reason::AuthorityNotReady, "the operator is shutting down");
        let _permit = self.permits.acquire().await.map_err(shutting_down)?;
        let metadata = self.metadata().ok_or_else(|| {
            let message = format!("ITwinAuthority {} is not ready: look at its condition Ready", self.name);
            Failure::new(Reason::AuthorityNotReady, message)
        })?;
        if let Err(not_until) = self.limiter.check() {
            let wait = not_until.wait_time_from(governor::clock::DefaultClock::default().now());
            return Err(NoToken::NotYet(TimeDelta::from_std(wait).unwrap_or(TimeDelta::minutes(1))));
        }
        if let Admission::Paused(reason) = self.breaker().admit(clock::now()) {
            let message = format!(
                "ITwinAuthority {} fails again and again; it is asked by single probes until it answers: ask its operators",
                self.name
            );
            return Err(Failure::new(reason, message).into());
        }
        let started = Instant::now();
        let result = match token::ask(&self.http, &metadata.endpoints.token, &metadata.issuer, &request).await {
            Ok(answer) => self.verify(answer).await,
            Err(failure) => Err(failure),
        };
        let failure = result.as_ref().err().map(|failure| failure.refusal.reason);
        self.metrics.token_request(&self.name, failure.map_or("success", Reason::as_str), started.elapsed());
        if self.breaker().note(failure, clock::now()) {
            self.recoveries.fetch_add(1, Ordering::Relaxed);
            self.news.store(true, Ordering::Relaxed);
        }
        Ok(result?)
    }

    /// The instant before which no token request is sent, since it fails again and again.
    #[must_use]
    pub fn paused_until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.breaker().paused_until(now)
    }

    /// How often it came back after an outage: moves when all may try again.
    #[must_use]
    pub fn recoveries(&self) -> u32 {
        self.recoveries.load(Ordering::Relaxed)
    }

    /// Whether it came back since this was asked last: whoever hears it wakes the others.
    #[must_use]
    pub fn take_news(&self) -> bool {
        self.news.swap(false, Ordering::Relaxed)
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn verify(&self, answer: TokenAnswer) -> Result<Answer, Failure> {
        let claims = if self.config.verify { Some(self.verified_claims(&answer).await?) } else { None };
        let TokenAnswer { token, token_type, expires_in, scope, asked_at } = answer;
        Ok(Answer { token, token_type, expires_in, scope, claims, asked_at })
    }

    async fn verified_claims(&self, answer: &TokenAnswer) -> Result<crate::decide::grant::Claims, Failure> {
        let check = |metadata: &Metadata| match &metadata.keys {
            Some(keys) => keys.verify(&answer.token, &self.config.issuer, &self.config.audiences),
            None => Err(Untrusted::UnknownKey),
        };
        let mut verdict = match self.metadata() {
            Some(metadata) => check(&metadata),
            None => Err(Untrusted::UnknownKey),
        };
        if verdict == Err(Untrusted::UnknownKey)
            && let Some(metadata) = self.refetch_keys().await?
        {
            verdict = check(&metadata);
        }
        verdict.map_err(|untrusted| {
            let why = match untrusted {
                Untrusted::UnknownKey => "it is signed by a key that is not in the authority's key set".to_owned(),
                Untrusted::Rejected(why) => why,
            };
            Refusal::new(
                Reason::TokenRejected,
                format!("the token that ITwinAuthority {} issued is not to be trusted: {why}; check issuer, jwksUri and audiences of the ITwinAuthority", self.name),
            )
            .into()
        })
    }

    /// The keys once more, since they may have been rotated; `None` if that was done too short a time ago.
    async fn refetch_keys(&self) -> Result<Option<Arc<Metadata>>, Failure> {
        let mut last = self.key_refetch.lock().await;
        if last.is_some_and(|last| last.elapsed() < KEY_REFETCH_INTERVAL) {
            // another request may just have fetched them
            return Ok(self.metadata());
        }
        *last = Some(Instant::now());
        self.refresh().await.map(Some)
    }
}

/// What makes two requests equal, as a digest: it holds the client's secret.
fn identity(namespace: &str, request: &TokenRequest) -> String {
    let client = &request.client;
    let proof = match &client.proof {
        Proof::SecretInBody(secret) | Proof::SecretInHeader(secret) | Proof::PrivateKey(secret) => secret.expose(),
    };
    let user = client.user.as_ref();
    let user = user.map_or(["", ""], |user| [user.name.expose(), user.password.expose()]);
    let scopes = request.scopes.iter().map(String::as_str);
    let resources = request.resources.iter().map(String::as_str);
    let who = [namespace, &client.id, proof].into_iter().chain(user).chain(["scopes"]);
    digest::sha256_hex(who.chain(scopes).chain(["resources"]).chain(resources))
}
