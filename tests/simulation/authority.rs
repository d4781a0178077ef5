//! The authority: whether it can be asked, what it answers, and the tokens that it issued.

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{conditions::Reason, failure::Failure, time};
use itwin_core::{failure::RequestFailure, observed};
use itwin_oauth::{jwt::VerifiedClaims, sensitive::Sensitive, token::TokenResponse};

use crate::random::Random;

/// Whether the authority can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Ready,
    Forbids,
    /// It never answered this process.
    Unanswered,
    Gone,
}

/// What is wrong with its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    ServerError,
    Timeout,
    InvalidClient,
    /// With the wait that it asks for.
    RateLimited(Option<TimeDelta>),
    Malformed,
    /// Tokens live a tenth of what they should.
    Shorter,
    Expired,
    ReducedScope,
}

impl Fault {
    /// Any of them.
    pub fn any(random: &mut Random) -> Self {
        let waits = [None, Some(TimeDelta::seconds(7)), Some(TimeDelta::days(400))];
        let waits = *random.pick(&waits);
        *random.pick(&[
            Self::ServerError,
            Self::Timeout,
            Self::InvalidClient,
            Self::RateLimited(waits),
            Self::Malformed,
            Self::Shorter,
            Self::Shorter,
            Self::Expired,
            Self::ReducedScope,
        ])
    }
}

/// The authority.
#[derive(Clone)]
pub struct Authority {
    pub presence: Presence,
    pub issuer: String,
    /// Its tokens are JWTs, so that their `exp` is known.
    pub jwt: bool,
    pub lifetime: TimeDelta,
    pub fault: Option<Fault>,
    /// Moves with each change of the object.
    pub revision: u32,
}

/// A token that was issued. Its text is `token-` and its number.
#[derive(Clone)]
pub struct Token {
    pub request: String,
    pub issuer: String,
    /// Content of the client Secret that asked for it.
    pub client: String,
    pub expires_at: DateTime<Utc>,
    /// Worth writing: with all scopes.
    pub is_good: bool,
    /// How far the operator's clock was off when it asked: its idea of the expiry is as far off.
    pub clock_error: TimeDelta,
}

impl Authority {
    /// What a process is told of it.
    pub fn fact(&self) -> observed::Authority {
        let failure = |reason| Failure::new(reason, "because");
        match self.presence {
            Presence::Ready => observed::Authority::Ready { issuer: self.issuer.clone() },
            Presence::Forbids => observed::Authority::Forbids(failure(Reason::ScopeNotAllowed)),
            Presence::Unanswered => observed::Authority::Unavailable(failure(Reason::AuthorityNotReady)),
            Presence::Gone => observed::Authority::Unavailable(failure(Reason::AuthorityNotFound)),
        }
    }

    /// How long the answer takes.
    pub fn takes(&self) -> TimeDelta {
        if self.fault == Some(Fault::Timeout) { TimeDelta::seconds(10) } else { TimeDelta::milliseconds(30) }
    }

    /// Answers a request that was sent at `sent`, when the clock of who asks showed `asked_at`.
    pub fn answer(
        &self,
        number: usize,
        sent: DateTime<Utc>,
        asked_at: DateTime<Utc>,
    ) -> Result<(TokenResponse, Option<VerifiedClaims>), RequestFailure> {
        let failed = |reason| Err(RequestFailure::new(reason, "because"));
        match self.fault {
            Some(Fault::ServerError) => return failed(Reason::ServerError),
            Some(Fault::Timeout) => return failed(Reason::Timeout),
            Some(Fault::InvalidClient) => return failed(Reason::InvalidClient),
            Some(Fault::Malformed) => return failed(Reason::MalformedResponse),
            Some(Fault::RateLimited(retry_after)) => {
                return Err(RequestFailure { retry_after, ..RequestFailure::new(Reason::RateLimited, "because") });
            }
            _ => {}
        }
        let lifetime = self.lifetime_now();
        let response = TokenResponse {
            access_token: Sensitive::new(format!("token-{number}")),
            token_type: "bearer".to_owned(),
            expires_in: u64::try_from(lifetime.num_seconds()).ok(),
            scope: (self.fault == Some(Fault::ReducedScope)).then(Vec::new),
            sent_at: asked_at,
        };
        let claims = VerifiedClaims { exp: (sent + lifetime).timestamp(), nbf: None, scope: None };
        Ok((response, self.jwt.then_some(claims)))
    }

    /// The token that such an answer holds.
    pub fn token(&self, request: &str, client: &str, sent: DateTime<Utc>, clock_error: TimeDelta) -> Token {
        Token {
            request: request.to_owned(),
            issuer: self.issuer.clone(),
            client: client.to_owned(),
            expires_at: time::whole_seconds(sent + self.lifetime_now()),
            is_good: !matches!(self.fault, Some(Fault::ReducedScope | Fault::Expired)),
            clock_error,
        }
    }

    fn lifetime_now(&self) -> TimeDelta {
        match self.fault {
            Some(Fault::Shorter) => self.lifetime / 10,
            Some(Fault::Expired) => TimeDelta::zero(),
            _ => self.lifetime,
        }
    }
}
