//! What `oauth2` needs to carry and to read the exchange as real servers conduct it: its extension points.

use std::{sync::Mutex, time::Duration};

use chrono::TimeDelta;
use futures::future::BoxFuture;
use oauth2::{
    AccessToken, AsyncHttpClient, Client, HttpRequest, HttpResponse, RefreshToken, RequestTokenError, Scope,
    StandardRevocableToken,
    basic::{BasicRevocationErrorResponse, BasicTokenIntrospectionResponse},
    http::{HeaderValue, header::CONTENT_TYPE},
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, IgnoredAny},
};

use super::error::{MalformedResponse, TokenError};
use crate::{
    error_code::ErrorCode,
    json,
    scope::Scopes,
    transport::{BodyUnread, ClientCertificateAsked, RetryAfter, TOO_MANY_REQUESTS, Transport, TransportError},
};

const JSON: &str = "application/json";

/// A client of `oauth2` with the responses of this crate.
pub type OAuthClient = Client<
    ErrorCode,
    WireResponse,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
>;

/// A token response as servers write it: `oauth2`'s own reads no `scope` as an array and no `expires_in` as a text or
/// with a fraction.
#[derive(Debug, Deserialize, Serialize)]
pub struct WireResponse {
    #[serde(skip_serializing)]
    access_token: AccessToken,
    pub(super) token_type: WireTokenType,
    #[serde(skip_serializing)]
    pub(super) expires_in: Option<Seconds>,
    #[serde(skip_serializing)]
    pub(super) scope: Option<Scopes>,
}

impl oauth2::TokenResponse for WireResponse {
    type TokenType = WireTokenType;

    fn access_token(&self) -> &AccessToken {
        &self.access_token
    }

    fn token_type(&self) -> &WireTokenType {
        &self.token_type
    }

    fn expires_in(&self) -> Option<Duration> {
        self.expires_in.map(|Seconds(seconds)| Duration::from_secs(seconds))
    }

    fn refresh_token(&self) -> Option<&RefreshToken> {
        None
    }

    fn scopes(&self) -> Option<&Vec<Scope>> {
        None
    }
}

/// Any type of token; the caller decides which it can use.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct WireTokenType(pub(super) String);

impl oauth2::TokenType for WireTokenType {}

/// The longest text that is read as a number of seconds: the largest number has 20 digits, and may have a fraction.
const SECONDS_MAX: usize = 40;
/// Numbers from here on are larger than any number of seconds: 2^64.
const SECONDS_END: f64 = 18_446_744_073_709_551_616.0;

/// A number of seconds without its fraction. Some servers write a fraction, and some a text.
#[derive(Clone, Copy, Debug)]
pub struct Seconds(u64);

impl From<Seconds> for u64 {
    fn from(Seconds(seconds): Seconds) -> Self {
        seconds
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Fraction(f64),
            Text(String),
        }
        let seconds = match Written::deserialize(deserializer)? {
            Written::Number(seconds) => Some(seconds),
            // rounded down: the token is not used after its end
            Written::Fraction(seconds) => (0.0..SECONDS_END).contains(&seconds).then_some(seconds as u64),
            Written::Text(text) => seconds_in(&text),
        };
        seconds.map(Self).ok_or_else(|| D::Error::custom("no number of seconds"))
    }
}

/// Digits, with or without a fraction, which is not read.
fn seconds_in(text: &str) -> Option<u64> {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    (text.len() <= SECONDS_MAX && is_digits(whole) && is_digits(fraction)).then(|| whole.parse().ok()).flatten()
}

/// Carries a request for `oauth2`, and keeps of the answer what `oauth2` does not give out.
pub struct Carrier<'a, T: ?Sized> {
    transport: &'a T,
    answer: Mutex<CarriedAnswer>,
}

/// What is kept of an answer.
#[derive(Clone, Copy, Default)]
struct CarriedAnswer {
    /// The status; none where there is no answer.
    status: Option<u16>,
    /// The wait that it asks for.
    retry_after: Option<TimeDelta>,
    /// It may be the answer of a server that wants a client certificate.
    is_certificate_asked: bool,
    /// Its body could not be read.
    is_body_unread: bool,
}

/// Why `oauth2` gets no answer to read.
#[derive(Debug, thiserror::Error)]
pub enum CarrierError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("JSON that is nested too deeply")]
    TooDeep,
    #[error("not one JSON text")]
    NotJson,
    #[error("JSON of another content type")]
    ContentType,
    #[error("no error that says more than the status")]
    StatusAlone,
}

impl<'a, T: Transport + ?Sized> Carrier<'a, T> {
    pub fn new(transport: &'a T) -> Self {
        Self { transport, answer: Mutex::default() }
    }

    /// The error of the exchange that this carried. `oauth2`'s own may hold the whole body of the answer, and so a
    /// token: nothing of it is read.
    pub fn error(self, error: RequestTokenError<CarrierError, ErrorCode>) -> TokenError {
        let answer = self.answer.into_inner().unwrap_or_default();
        let CarriedAnswer { status, retry_after, is_certificate_asked, is_body_unread } = answer;
        match (error, status) {
            (RequestTokenError::Request(CarrierError::Transport(error)), _) => error.into(),
            (RequestTokenError::Request(CarrierError::TooDeep), _) => MalformedResponse::TooDeep.into(),
            (RequestTokenError::Request(CarrierError::ContentType), _) => MalformedResponse::ContentType.into(),
            (RequestTokenError::Request(CarrierError::NotJson), _) => MalformedResponse::NotATokenResponse.into(),
            (RequestTokenError::ServerResponse(code), status) => {
                TokenError::Response { code, status: status.unwrap_or_default(), retry_after }
            }
            (_, Some(status)) if !is_success(status) => {
                TokenError::Status { status, is_certificate_asked, is_body_unread, retry_after }
            }
            _ => MalformedResponse::NotATokenResponse.into(),
        }
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, CarrierError> {
        let (mut response, retry_after) = match self.transport.send(request).await {
            Ok(response) => (response, None),
            Err(error) => explained(error)?,
        };
        let status = response.status().as_u16();
        if let Ok(mut answer) = self.answer.lock() {
            let retry_after = retry_after.or(response.extensions().get::<RetryAfter>().map(|RetryAfter(wait)| *wait));
            let is_certificate_asked = response.extensions().get::<ClientCertificateAsked>().is_some();
            let is_body_unread = response.extensions().get::<BodyUnread>().is_some();
            *answer = CarriedAnswer { status: Some(status), retry_after, is_certificate_asked, is_body_unread };
        }
        if !is_success(status) && ErrorCode::with_status(status, response.body()).is_none() {
            return Err(CarrierError::StatusAlone);
        }
        if !json::is_shallow(response.body()) {
            return Err(CarrierError::TooDeep);
        }
        // `oauth2` reads the first value, whatever follows it
        if json::read::<IgnoredAny>(response.body()).is_none() {
            return Err(CarrierError::NotJson);
        }
        if is_success(status) {
            if !is_json(response.headers().get(CONTENT_TYPE)) {
                return Err(CarrierError::ContentType);
            }
            *response.status_mut() = as_oauth2_expects(response.body());
        }
        Ok(response)
    }
}

/// Whether this content type is that of JSON, as `oauth2` wants it; a response without one is taken for JSON.
fn is_json(content_type: Option<&HeaderValue>) -> bool {
    let is_json = |text: &[u8]| text.get(..JSON.len()).is_some_and(|text| text.eq_ignore_ascii_case(JSON.as_bytes()));
    content_type.is_none_or(|value| is_json(value.as_bytes()))
}

/// The answer of a 429 or 5xx, with the wait that it asks for, where its OAuth error says more than the status.
fn explained(error: TransportError) -> Result<(HttpResponse, Option<TimeDelta>), TransportError> {
    let (status, retry_after, body) = match error {
        TransportError::Server(status, retry_after, body) => (status, retry_after, body),
        TransportError::RateLimited(retry_after, body) => (TOO_MANY_REQUESTS, retry_after, body),
        other => return Err(other),
    };
    if ErrorCode::with_status(status, &body).is_some() {
        let mut response = HttpResponse::new(body);
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_GATEWAY);
        Ok((response, retry_after))
    } else if status == TOO_MANY_REQUESTS {
        Err(TransportError::RateLimited(retry_after, body))
    } else {
        Err(TransportError::Server(status, retry_after, body))
    }
}

/// Whether a token response may have this status: RFC 6749 section 5.1 demands 200, some servers send 201 or 202.
fn is_success(status: u16) -> bool {
    http::StatusCode::from_u16(status).is_ok_and(|status| status.is_success())
}

/// `oauth2` reads a token in an answer of status 200, and an error in all others.
fn as_oauth2_expects(body: &[u8]) -> http::StatusCode {
    match ErrorCode::instead_of_a_token(body) {
        Some(_) => http::StatusCode::BAD_REQUEST,
        None => http::StatusCode::OK,
    }
}

impl<'c, T: Transport + ?Sized> AsyncHttpClient<'c> for Carrier<'_, T> {
    type Error = CarrierError;
    type Future = BoxFuture<'c, Result<HttpResponse, CarrierError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}
