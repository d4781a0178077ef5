//! One authority as we use it: its HTTP client, endpoints and keys.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use itwin_api::{conditions::Reason, failure::Failure};
use itwin_oauth::{
    answer::Answer,
    discovery::{self, Endpoints},
    failure::{ExchangeStage, RequestFailure},
    jwt::{KeySet, Untrusted},
    token::{self, TokenAnswer, TokenRequest},
    transport::{self, Transport},
};
use tokio::time::Instant;

use crate::{clock::Clock, config::authority::AuthorityConfig, metrics::Metrics};

/// Keys are fetched again for an unknown `kid` at most this often: a forged token must not become a way to make us
/// call the authority.
const KEY_REFETCH_INTERVAL: Duration = Duration::from_secs(60);

/// Makes what carries requests to an authorization server. [`super::http::Http::connect`] is the one that sends them.
pub type Connect = Arc<dyn Fn(&AuthorityConfig) -> Result<Arc<dyn Transport + Send>, String> + Send + Sync>;

/// One authority as we use it.
pub struct Authority {
    /// Name of the ITwinAuthority.
    pub name: String,
    /// Its configuration.
    pub config: AuthorityConfig,
    transport: Arc<dyn Transport + Send>,
    /// The clocks.
    pub clock: Clock,
    metrics: Arc<Metrics>,
    metadata: RwLock<Option<Arc<Metadata>>>,
    key_refetch: tokio::sync::Mutex<Option<Instant>>,
}

/// What an authority told of itself.
pub struct Metadata {
    /// Its issuer identifier as it writes it itself, with or without a trailing slash.
    pub issuer: String,
    /// Where it is asked.
    pub endpoints: Endpoints,
    /// Its signing keys; none where tokens are opaque.
    pub keys: Option<KeySet>,
}

impl Authority {
    /// An authority that has not been asked anything yet.
    ///
    /// # Errors
    /// Text that names the field of the ITwinAuthority and says what to do.
    pub fn new(
        name: String,
        config: AuthorityConfig,
        metrics: Arc<Metrics>,
        clock: Clock,
        connect: &Connect,
    ) -> Result<Self, String> {
        Ok(Self {
            transport: connect(&config)?,
            clock,
            metadata: RwLock::new(None),
            key_refetch: tokio::sync::Mutex::new(None),
            metrics,
            name,
            config,
        })
    }

    /// Takes over what is known of the same server, from before its spec was edited.
    #[must_use]
    pub fn knowing(self, metadata: Option<Arc<Metadata>>) -> Self {
        Self { metadata: RwLock::new(metadata), ..self }
    }

    /// What the authority told of itself, the last time that it could be asked.
    #[must_use]
    pub fn metadata(&self) -> Option<Arc<Metadata>> {
        self.metadata.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for endpoints and keys. What was known before stays known if that fails.
    ///
    /// # Errors
    /// [`RequestFailure`] of the transport, or [`Reason::MalformedResponse`] with what is wrong in a document.
    pub async fn refresh(&self) -> Result<Arc<Metadata>, RequestFailure> {
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

    async fn discover(&self) -> Result<(String, Endpoints), RequestFailure> {
        let config = &self.config;
        if let Some(token) = &config.token_endpoint
            && (config.jwks_uri.is_some() || !config.verify)
        {
            return Ok((config.issuer.clone(), Endpoints { token: token.clone(), jwks: config.jwks_uri.clone() }));
        }
        let what = format!("discovery document of ITwinAuthority {}", self.name);
        let body = transport::get(&*self.transport, &discovery::document_url(&config.issuer))
            .await
            .map_err(|error| error.into_failure(&what))?;
        discovery::endpoints(&body, &config.issuer, config.token_endpoint.as_ref(), config.jwks_uri.as_ref())
            .map_err(|error| self.unusable("discovery document", &error))
    }

    async fn fetch_keys(&self, url: &str) -> Result<KeySet, RequestFailure> {
        let what = format!("key set of ITwinAuthority {}", self.name);
        let body = transport::get(&*self.transport, url).await.map_err(|error| error.into_failure(&what))?;
        KeySet::parse(&body).map_err(|error| self.unusable("key set", &error))
    }

    fn store(&self, metadata: Metadata) -> Arc<Metadata> {
        let metadata = Arc::new(metadata);
        *self.metadata.write().unwrap_or_else(PoisonError::into_inner) = Some(metadata.clone());
        metadata
    }

    fn unusable(&self, what: &str, why: &str) -> RequestFailure {
        RequestFailure::new(
            Reason::MalformedResponse,
            format!("the {what} of ITwinAuthority {} cannot be used: {why}", self.name),
        )
    }

    /// Requests a token and verifies it. Its turn has come: limits and circuit breakers are the queue's
    /// (`decide::requests`).
    ///
    /// # Errors
    /// [`RequestFailure`], with how far the exchange came.
    pub async fn request_token(&self, request: &TokenRequest) -> Result<Answer, RequestFailure> {
        let metadata = self.metadata().ok_or_else(|| {
            let message = format!("ITwinAuthority {} is not ready: look at its condition Ready", self.name);
            RequestFailure::new(Reason::AuthorityNotReady, message).at(ExchangeStage::NotSent)
        })?;
        let started = self.clock.monotonic();
        let result =
            match token::ask(&*self.transport, &metadata.endpoints.token, &metadata.issuer, request, self.clock.now())
                .await
            {
                Ok(answer) => self.verify(answer).await,
                Err(failure) => Err(failure),
            };
        if result.as_ref().err().is_none_or(|failure| failure.stage != ExchangeStage::NotSent) {
            let reason = result.as_ref().err().map_or("success", |failure| failure.failure.reason.as_str());
            self.metrics.token_request(&self.name, reason, started.elapsed());
        }
        result
    }

    async fn verify(&self, answer: TokenAnswer) -> Result<Answer, RequestFailure> {
        let claims = if self.config.verify { Some(self.verified_claims(&answer).await?) } else { None };
        let TokenAnswer { token, token_type, expires_in, scope, asked_at } = answer;
        Ok(Answer { token, token_type, expires_in, scope, claims, asked_at })
    }

    async fn verified_claims(&self, answer: &TokenAnswer) -> Result<itwin_oauth::answer::Claims, RequestFailure> {
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
            Failure::new(
                Reason::TokenRejected,
                format!("the token that ITwinAuthority {} issued is not to be trusted: {why}; check issuer, jwksUri and audiences of the ITwinAuthority", self.name),
            )
            .into()
        })
    }

    /// The keys once more, since they may have been rotated; `None` if that was done too short a time ago.
    async fn refetch_keys(&self) -> Result<Option<Arc<Metadata>>, RequestFailure> {
        let mut last = self.key_refetch.lock().await;
        if last.is_some_and(|last| last.elapsed() < KEY_REFETCH_INTERVAL) {
            // another request may just have fetched them
            return Ok(self.metadata());
        }
        *last = Some(self.clock.monotonic());
        self.refresh().await.map(Some)
    }
}
