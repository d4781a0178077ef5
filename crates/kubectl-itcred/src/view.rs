//! What a credential's status means now: the status may be old, so that times are compared with the clock.

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{
    conditions::{READY, RENEWED, Reason},
    credential::{CredentialStatus, ITwinServiceCredential},
    time,
};
use itwin_core::{
    client_expiry::{ClientExpiry, Expires},
    status::holds as holds_in,
};
use serde::Serialize;

use crate::{
    output::Structured,
    span::{relative, span},
    table::{Cell, Table, Tone},
};

/// A renewal that is late by this much was not attempted: the operator attempts each within seconds.
const OVERDUE: TimeDelta = TimeDelta::minutes(1);

/// How a credential is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum State {
    /// The Secret holds no valid token.
    NoToken,
    /// The token is valid for less than `minimumValidity`, or it cannot satisfy it.
    TooShort,
    /// The credential is being deleted, so that its token is not renewed.
    Deleting,
    /// The renewal is overdue: no operator attempts it.
    Overdue,
    /// The last attempt failed; the token is good meanwhile.
    Failing,
    /// The client's credentials expire within two weeks.
    ClientExpires,
    /// The operator has not handled the spec yet.
    Pending,
    /// Suspended, with a valid token.
    Suspended,
    /// Fine.
    Ok,
}

impl State {
    /// Whether the token is lost, or will be if nothing changes.
    #[must_use]
    pub fn is_danger(self) -> bool {
        !matches!(self, Self::Pending | Self::Suspended | Self::Ok)
    }

    fn name(self) -> &'static str {
        match self {
            Self::NoToken => "NoToken",
            Self::TooShort => "TooShort",
            Self::Deleting => "Deleting",
            Self::Overdue => "Overdue",
            Self::Failing => "Failing",
            Self::ClientExpires => "ClientExpires",
            Self::Pending => "Pending",
            Self::Suspended => "Suspended",
            Self::Ok => "Ok",
        }
    }

    /// How it stands out.
    #[must_use]
    pub fn tone(self) -> Tone {
        match self {
            Self::NoToken | Self::TooShort | Self::Deleting => Tone::Bad,
            Self::Overdue | Self::Failing | Self::ClientExpires => Tone::Warning,
            Self::Pending | Self::Suspended => Tone::Plain,
            Self::Ok => Tone::Good,
        }
    }
}

/// A credential as `status` and `timeline` show it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: State,
    /// The reason of `Renewed` where that is False, and of `Ready` otherwise.
    pub reason: Option<String>,
    /// The message that goes with the reason.
    pub message: Option<String>,
    /// When the token was issued.
    pub issued_at: Option<DateTime<Utc>>,
    /// The next attempt.
    pub renew_at: Option<DateTime<Utc>>,
    /// Until when the token is valid for at least `minimumValidity`.
    pub usable_until: Option<DateTime<Utc>>,
    /// When the token expires.
    pub expires_at: Option<DateTime<Utc>>,
    /// Failed attempts since the last token.
    pub consecutive_failures: i32,
    /// The last failed attempt since the last token.
    pub last_failure: Option<Failed>,
    /// The authority.
    pub authority: String,
    /// The Secret with the token.
    pub secret_name: String,
    /// The granted scopes.
    pub scopes: Vec<String>,
    /// When the client's credentials expire, as far as is known.
    pub client_secret_expires_at: Option<DateTime<Utc>>,
}

/// What `status` shows.
#[derive(Clone, Debug, Serialize)]
pub struct StatusList {
    /// The credentials, the first to be lost first.
    pub items: Vec<View>,
}

impl Structured for StatusList {
    const KIND: &'static str = "StatusList";
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// When.
    pub time: Option<DateTime<Utc>>,
    /// A reason of `Renewed`.
    pub reason: String,
    /// What happened.
    pub message: String,
}

impl View {
    /// The view of a credential at a time.
    #[must_use]
    pub fn new(credential: &ITwinServiceCredential, now: DateTime<Utc>) -> Self {
        let status = credential.status.clone().unwrap_or_default();
        let at = |text: &Option<String>| text.as_deref().and_then(time::from_rfc3339);
        let (reason, message) = match at(&status.expires_at) {
            Some(expires_at) if expires_at <= now && holds(&status, READY) => unreported_expiry(),
            _ => reason(&status),
        };
        Self {
            namespace: credential.metadata.namespace.clone().unwrap_or_default(),
            name: credential.metadata.name.clone().unwrap_or_default(),
            state: state(credential, &status, now),
            reason,
            message,
            issued_at: at(&status.issued_at),
            renew_at: at(&status.renew_at),
            usable_until: at(&status.usable_until),
            expires_at: at(&status.expires_at),
            consecutive_failures: status.consecutive_failures,
            last_failure: status.last_failure.as_ref().map(|failure| Failed {
                time: time::from_rfc3339(&failure.time),
                reason: failure.reason.clone(),
                message: failure.message.clone(),
            }),
            authority: credential.spec.authority_ref.name.clone(),
            secret_name: credential.target_name().to_owned(),
            client_secret_expires_at: at(&status.client_secret_expires_at),
            scopes: status.scopes,
        }
    }

    /// What comes first: what is in danger, by the time when it is lost; then the others, by the time until which an
    /// outage does not affect them.
    fn order(&self) -> (bool, Option<DateTime<Utc>>, &str, &str) {
        let until = if self.state == State::NoToken { None } else { self.usable_until.or(self.expires_at) };
        (!self.state.is_danger(), until, &self.namespace, &self.name)
    }
}

/// The condition of this type.
fn condition<'a>(
    status: &'a CredentialStatus,
    kind: &str,
) -> Option<&'a k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    status.conditions.iter().find(|condition| condition.type_ == kind)
}

fn holds(status: &CredentialStatus, kind: &str) -> bool {
    holds_in(&status.conditions, kind)
}

/// What a status that says otherwise cannot say.
fn unreported_expiry() -> (Option<String>, Option<String>) {
    let message = "the token has expired, and no operator reports it";
    (Some(Reason::TokenExpired.as_str().to_owned()), Some(message.to_owned()))
}

fn reason(status: &CredentialStatus) -> (Option<String>, Option<String>) {
    let failed = condition(status, RENEWED).filter(|condition| condition.status == "False");
    let shown = failed.or_else(|| condition(status, READY));
    (shown.map(|condition| condition.reason.clone()), shown.map(|condition| condition.message.clone()))
}

fn state(credential: &ITwinServiceCredential, status: &CredentialStatus, now: DateTime<Utc>) -> State {
    let at = |text: &Option<String>| text.as_deref().and_then(time::from_rfc3339);
    let is_current = status.observed_generation == credential.metadata.generation;
    let ready = condition(status, READY);
    let is_reason = |reason: Reason| ready.is_some_and(|ready| ready.reason == reason.as_str());
    let has_token = at(&status.expires_at).is_some_and(|expires_at| expires_at > now);
    // a finalizer may hold it until the token ends: the operator renews none meanwhile
    if credential.metadata.deletion_timestamp.is_some() {
        return if has_token { State::Deleting } else { State::NoToken };
    }
    if ready.is_none() || (is_reason(Reason::Pending) && !has_token) || (!is_current && !has_token) {
        // a credential that is not handled for long has no operator
        let created = credential.metadata.creation_timestamp.as_ref().and_then(time::from_kubernetes);
        let is_new = created.is_none_or(|created| now - created < OVERDUE);
        return if is_new { State::Pending } else { State::NoToken };
    }
    if !has_token {
        return State::NoToken;
    }
    if at(&status.usable_until).is_some_and(|until| until <= now) || is_reason(Reason::LifetimeTooShort) {
        return State::TooShort;
    }
    if credential.spec.suspend {
        return State::Suspended;
    }
    if at(&status.renew_at).is_some_and(|renew_at| renew_at + OVERDUE < now) {
        return State::Overdue;
    }
    if status.consecutive_failures > 0 || condition(status, RENEWED).is_some_and(|renewed| renewed.status == "False") {
        return State::Failing;
    }
    let client_expiry = at(&status.client_secret_expires_at);
    if client_expiry.is_some_and(|at| expires_soon(at, now)) {
        return State::ClientExpires;
    }
    if is_current { State::Ok } else { State::Pending }
}

/// Whether the operator says of a client secret that it expires.
fn expires_soon(at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    ClientExpiry { secret: "", key: "", expires: Expires::At(at) }.notice(now).is_some()
}

/// Sorts views: the first to be lost first.
pub fn sort(views: &mut [View]) {
    views.sort_by(|one, other| one.order().cmp(&other.order()));
}

/// The table of `status`.
#[must_use]
pub fn table(views: &[View], now: DateTime<Utc>, has_namespaces: bool, is_wide: bool) -> Table {
    let mut heads = vec!["NAME", "STATE", "TOKEN", "RENEWAL", "FAILURES", "REASON"];
    if has_namespaces {
        heads.insert(0, "NAMESPACE");
    }
    if is_wide {
        heads.extend(["USABLE", "AUTHORITY", "SECRET", "SCOPES", "CLIENT-EXPIRES", "MESSAGE"]);
    }
    Table { heads, rows: views.iter().map(|view| row(view, now, has_namespaces, is_wide)).collect() }
}

fn row(view: &View, now: DateTime<Utc>, has_namespaces: bool, is_wide: bool) -> Vec<Cell> {
    let token = match view.expires_at {
        Some(expires_at) if expires_at <= now => format!("expired {}", relative(expires_at, now)),
        Some(expires_at) => format!("{} left", span(expires_at - now)),
        None => "none".to_owned(),
    };
    let when = |at: Option<DateTime<Utc>>| at.map_or_else(String::new, |at| relative(at, now));
    let mut cells = vec![
        Cell::new(&view.name),
        Cell::toned(view.state.name(), view.state.tone()),
        Cell::new(token),
        Cell::new(when(view.renew_at)),
        Cell::new(view.consecutive_failures.to_string()),
        Cell::new(view.reason.as_deref().unwrap_or_default()),
    ];
    if has_namespaces {
        cells.insert(0, Cell::new(&view.namespace));
    }
    if is_wide {
        cells.extend([
            Cell::new(when(view.usable_until)),
            Cell::new(&view.authority),
            Cell::new(&view.secret_name),
            Cell::new(view.scopes.join(" ")),
            Cell::new(when(view.client_secret_expires_at)),
            Cell::new(view.message.as_deref().unwrap_or_default()),
        ]);
    }
    cells
}

#[cfg(test)]
pub(crate) mod tests;
