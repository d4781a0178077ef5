//! One authorization server as the operator uses it: its HTTP client, endpoints and keys.

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use chrono::{DateTime, Utc};
use itwin_core::{
    messages_oauth::{
        self, authority as messages,
        token::{self as token_messages, Names},
    },
    request_error::{Document, MetadataError, RequestError},
};
use itwin_oauth::{
    assertion::{AssertionId, ID_BYTES},
    discovery::{self, DiscoveryError, Endpoint, Endpoints},
    jwt::{self, VerificationError, VerifiedClaims},
    key_set::KeySet,
    sensitive::Sensitive,
    token::{self, Server, TokenRequest, TokenResponse},
    transport::{self, Transport},
};
use tokio::time::Instant;
use url::Url;

use super::key_refetch::{Decision, KeyRefetch};
use crate::{clock::Clock, config::authority::AuthorityConfig, metrics::Metrics};

/// The deadline of each step of fetching keys for a token that was just issued.
const KEY_REFETCH_LIMIT: Duration = Duration::from_secs(15);

/// A longer wait that the authority asks for before its discovery document is requested again is not obeyed.
const DISCOVERY_WAIT_CEILING: Duration = Duration::from_secs(60 * 60);

/// Makes what carries requests to an authorization server. [`super::http::Http::connect`] is the one that sends them.
pub type Connect = Arc<dyn Fn(&AuthorityConfig) -> Result<Arc<dyn Transport + Send>, String> + Send + Sync>;

/// One authorization server as the operator uses it.
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
    key_refetch: tokio::sync::Mutex<KeyRefetch>,
    /// Until when the authority asked not to be asked for its discovery document.
    discovery_waits_until: Mutex<Option<Instant>>,
}

/// The metadata and the keys that an authority publishes.
pub struct Metadata {
    /// Its endpoints.
    pub endpoints: Endpoints,
    /// Its signing keys; none where tokens are opaque.
    pub keys: Option<KeySet>,
    /// When they were fetched.
    pub refreshed_at: DateTime<Utc>,
    /// The same on the monotonic clock.
    pub refreshed: Instant,
}

impl Authority {
    /// An authority of which nothing is known yet.
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
            key_refetch: tokio::sync::Mutex::default(),
            discovery_waits_until: Mutex::new(None),
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

    /// The metadata and keys of the last successful refresh.
    #[must_use]
    pub fn metadata(&self) -> Option<Arc<Metadata>> {
        self.metadata.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fetches endpoints and keys. What was known before stays known if that fails.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn refresh(&self) -> Result<Arc<Metadata>, MetadataError> {
        let endpoints = self.discover().await?;
        let keys = if self.config.verify { Some(self.fetch_keys(endpoints.jwks.as_ref()).await?) } else { None };
        let (refreshed_at, refreshed) = (self.clock.now(), self.clock.monotonic());
        Ok(self.store(Metadata { endpoints, keys, refreshed_at, refreshed }))
    }

    async fn discover(&self) -> Result<Endpoints, MetadataError> {
        let config = &self.config;
        if let Some(token) = &config.token_endpoint
            && (config.jwks_uri.is_some() || !config.verify)
        {
            return Ok(Endpoints { token: token.clone(), jwks: config.jwks_uri.clone() });
        }
        let url = discovery::document_url(&config.issuer);
        let body = self.get(&url, Document::Discovery).await;
        self.note_discovery(body.as_ref().err());
        let body = body?;
        let (token, jwks) = (config.token_endpoint.as_ref(), config.jwks_uri.as_ref());
        Ok(discovery::endpoints(&body, &config.issuer, token, jwks, config.verify)?)
    }

    /// Notes a wait that the authority asked for when it was asked for its discovery document, if it did.
    fn note_discovery(&self, error: Option<&MetadataError>) {
        let wait = error.and_then(MetadataError::server_wait).and_then(|wait| wait.to_std().ok());
        let until = wait.map(|wait| self.clock.monotonic() + wait.min(DISCOVERY_WAIT_CEILING));
        *self.discovery_waits_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    fn discovery_waits(&self) -> bool {
        let until = *self.discovery_waits_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| self.clock.monotonic() < until)
    }

    async fn fetch_keys(&self, url: Option<&Url>) -> Result<KeySet, MetadataError> {
        let url = url.ok_or(DiscoveryError::Missing(Endpoint::Jwks))?;
        let body = self.get(url.as_str(), Document::KeySet).await?;
        Ok(KeySet::parse(&body)?)
    }

    async fn get(&self, url: &str, document: Document) -> Result<Vec<u8>, MetadataError> {
        transport::get(&*self.transport, url).await.map_err(|error| MetadataError::Transport(document, error))
    }

    fn store(&self, metadata: Metadata) -> Arc<Metadata> {
        let metadata = Arc::new(metadata);
        *self.metadata.write().unwrap_or_else(PoisonError::into_inner) = Some(metadata.clone());
        metadata
    }

    /// Requests a token, and verifies it where tokens of this authority are JWTs; then its claims are returned too.
    /// The caller has admitted the request: rate limits and circuit breakers are those of the queue
    /// (`itwin_core::requests`).
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn request_token(
        &self,
        request: &TokenRequest,
        names: &Names,
    ) -> Result<(TokenResponse, Option<VerifiedClaims>), RequestError> {
        let metadata = self.metadata().ok_or_else(|| RequestError::NotSent(messages::not_ready(&self.name)))?;
        let started = self.clock.monotonic();
        let result = self.exchange(&metadata, request, names).await;
        let error = result.as_ref().err();
        if error.is_none_or(RequestError::was_sent) {
            let reason = error.map_or("success", |error| messages_oauth::request_failed(error, names).reason.as_str());
            self.metrics.authorities.token_request(&self.name, reason, started.elapsed());
        }
        result
    }

    async fn exchange(
        &self,
        metadata: &Metadata,
        request: &TokenRequest,
        names: &Names,
    ) -> Result<(TokenResponse, Option<VerifiedClaims>), RequestError> {
        let id = assertion_id().ok_or_else(|| RequestError::NotSent(token_messages::no_randomness(names)))?;
        let server = Server {
            token_endpoint: &metadata.endpoints.token.url,
            written_token_endpoint: &metadata.endpoints.token.written,
            issuer: &self.config.written_issuer,
            assertion: &self.config.assertion,
        };
        let response = token::request(&*self.transport, server, request, self.clock.now(), &id).await?;
        if !self.config.verify {
            return Ok((response, None));
        }
        let claims = self.verify(&response.access_token, request, &names.client_secret).await?;
        Ok((response, Some(claims)))
    }

    async fn verify(
        &self,
        token: &Sensitive,
        request: &TokenRequest,
        client: &str,
    ) -> Result<VerifiedClaims, RequestError> {
        let check = |metadata: Option<Arc<Metadata>>| match metadata.as_ref().and_then(|known| known.keys.as_ref()) {
            Some(keys) => keys.verify(token, &self.config.issuer, &self.config.audiences),
            None => Err(VerificationError::UnknownKey),
        };
        let mut verified = check(self.metadata());
        if matches!(verified, Err(error) if may_be_rotation(error)) {
            verified = check(self.refetch_keys(client).await?);
        }
        let AuthorityConfig { issuer, audiences, .. } = &self.config;
        verified.map_err(|error| match jwt::presented(token, error, request, issuer, audiences) {
            Some(presented) => RequestError::OtherClaim(error, presented),
            None => error.into(),
        })
    }

    /// The keys once more for a token of this client, since they may have been rotated; `None` if nothing is known of the
    /// authority.
    async fn refetch_keys(&self, client: &str) -> Result<Option<Arc<Metadata>>, MetadataError> {
        let received = self.clock.monotonic();
        // those that wait here share what is fetched
        let mut refetch = self.key_refetch.lock().await;
        refetch.refreshed(self.metadata().map(|metadata| metadata.refreshed));
        match refetch.decide(client, received, self.clock.monotonic()) {
            Decision::UseKnown => return Ok(self.metadata()),
            Decision::Failed(error) => return Err(error),
            Decision::Fetch => {}
        }
        let fetched = self.fetch_rotated().await;
        refetch.note(client, fetched.as_ref().err().cloned(), self.clock.monotonic());
        fetched.map(Some)
    }

    async fn fetch_rotated(&self) -> Result<Arc<Metadata>, MetadataError> {
        use MetadataError::{Discovery, Late, Transport};
        if let Some(known) = self.metadata().filter(|_| self.discovery_waits()) {
            return self.fetch_known_keys(known).await;
        }
        match (within_limit(Document::Discovery, self.refresh()).await, self.metadata()) {
            // rotated keys are found where they were, although the discovery document is of no use
            (Err(Transport(Document::Discovery, _) | Late(Document::Discovery, _) | Discovery(_)), Some(known)) => {
                self.fetch_known_keys(known).await
            }
            (refreshed, _) => refreshed,
        }
    }

    /// Fetches the keys from where they were.
    async fn fetch_known_keys(&self, known: Arc<Metadata>) -> Result<Arc<Metadata>, MetadataError> {
        let keys = within_limit(Document::KeySet, self.fetch_keys(known.endpoints.jwks.as_ref())).await?;
        Ok(self.with_keys(known, keys))
    }

    /// Stores other keys, unless a whole refresh has ended meanwhile.
    fn with_keys(&self, known: Arc<Metadata>, keys: KeySet) -> Arc<Metadata> {
        match self.metadata() {
            Some(newer) if newer.refreshed > known.refreshed => newer,
            _ => {
                let Metadata { refreshed_at, refreshed, .. } = *known;
                self.store(Metadata { endpoints: known.endpoints.clone(), keys: Some(keys), refreshed_at, refreshed })
            }
        }
    }
}

/// The token was issued already, and a reconcile does not last indefinitely.
async fn within_limit<T>(
    document: Document,
    fetched: impl Future<Output = Result<T, MetadataError>>,
) -> Result<T, MetadataError> {
    let late = |_| MetadataError::Late(document, KEY_REFETCH_LIMIT);
    tokio::time::timeout(KEY_REFETCH_LIMIT, fetched).await.map_err(late)?
}

/// Whether other keys may verify the token: some servers publish a new key under the identifier of the old one, or
/// without any.
fn may_be_rotation(error: VerificationError) -> bool {
    use VerificationError::{AlgorithmMismatch, Signature, UnknownKey, UnusableKey};
    matches!(error, UnknownKey | UnusableKey | Signature | AlgorithmMismatch)
}

/// A fresh identifier for a client assertion; `None` where the system gives no random numbers, without which there is
/// no TLS either.
fn assertion_id() -> Option<AssertionId> {
    let mut bytes = [0; ID_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).ok().map(|()| AssertionId::from_random(bytes))
}

#[cfg(test)]
mod tests;
