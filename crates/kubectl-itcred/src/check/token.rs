//! The Secret with the token, and the token: whose it is, its signature, its times and scopes.

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{conditions::Reason, secret_keys};
use itwin_core::{
    failure::Failure,
    messages, messages_lifetime,
    messages_oauth::verdict,
    ownership::{Owner, Writer},
    policy::Policy,
    schedule,
    validate::{Expected, validate},
};
use itwin_credential_operator::{config::authority::AuthorityConfig, observe::target};
use itwin_oauth::{jwt, sensitive::Sensitive, shown::REDACTED, token::TokenResponse};
use k8s_openapi::api::core::v1::Secret;

use super::{Observed, Section, Seen};
use crate::{
    owner,
    span::{relative, span},
};

pub(super) fn section(observed: &Observed) -> Section {
    let mut section = Section::new("Secret and token");
    let secret_ref = format!("{}/{}", observed.namespace(), observed.credential.target_name());
    let secret = match &observed.target {
        Seen::Known(Some(secret)) => secret,
        Seen::Known(None) => {
            section
                .problem(format!("Secret {secret_ref} does not exist: no token was written yet, see the other parts"));
            return section;
        }
        Seen::Unknown(why) => {
            section.unknown(format!("Secret {secret_ref} is not checked: {why}"));
            return section;
        }
    };
    if !is_ours(&mut section, observed, secret, &secret_ref) {
        return section;
    }
    form(&mut section, secret, &secret_ref);
    let Some(token) = target::token(secret) else {
        section.problem(format!("Secret {secret_ref} has no usable key access_token: the operator writes it again"));
        return section;
    };
    if !target::is_what_we_wrote(secret) && !target::is_ours_except_for_extra_keys(secret, template(observed)) {
        section.problem(format!(
            "Secret {secret_ref} does not hold what the operator wrote: someone edited it (see \
             metadata.managedFields); the operator reverts it, or requests a new token"
        ));
    }
    times(&mut section, observed, secret);
    match observed.config() {
        Some(config) if config.verify => verified(&mut section, observed, &config, secret, &token),
        Some(_) => section.note("tokens of this authority are opaque: there is no signature to check"),
        None => section.unknown("the signature is not checked without the authority"),
    }
    section
}

fn template(observed: &Observed) -> Option<&itwin_api::credential::SecretTemplate> {
    observed.credential.spec.secret_template.as_ref()
}

fn is_ours(section: &mut Section, observed: &Observed, secret: &Secret, secret_ref: &str) -> bool {
    let metadata = target::SecretMetadata::new(&secret.metadata);
    let uid = observed.credential.metadata.uid.as_deref().unwrap_or_default();
    let writer = Writer { namespace: observed.namespace(), name: observed.name(), uid };
    match owner::of(&metadata.ownership, secret_ref, &writer, &observed.other_owner) {
        Owner::Us => section.ok(format!("Secret {secret_ref} belongs to this credential")),
        Owner::Adoptable => {
            section.note(format!("Secret {secret_ref} is offered to this credential, and not adopted yet"))
        }
        Owner::Other(failure) => {
            section.failure(&failure);
            return false;
        }
    }
    true
}

/// Whether the Secret can be written.
fn form(section: &mut Section, secret: &Secret, secret_ref: &str) {
    if secret.immutable == Some(true) {
        section.failure(&messages::secret_immutable(secret_ref));
    }
    match secret.type_.as_deref() {
        None | Some("" | "Opaque") => {}
        Some(other) => section.failure(&messages::secret_type_mismatch(secret_ref, other)),
    }
}

/// Whether the token lasts, by what the operator wrote about it.
fn times(section: &mut Section, observed: &Observed, secret: &Secret) {
    let Some(token) = target::SecretMetadata::new(&secret.metadata).token_metadata else {
        section.problem("the Secret has no annotations that describe the token: the operator requests a new one");
        return;
    };
    let now = observed.now;
    let left = token.expires_at - now;
    let (policy, lifetime) = (Policy::new(&observed.credential.spec), token.lifetime());
    let minimum = schedule::minimum_validity(&policy, lifetime);
    let failed = |reason: Reason, message: String| Failure::new(reason, message);
    if left <= TimeDelta::zero() {
        section.failure(&failed(
            Reason::TokenExpired,
            format!("the token expired {}: see why no other was issued", relative(token.expires_at, now)),
        ));
    } else if schedule::is_too_short(&policy, lifetime) {
        let longest = schedule::longest_minimum_validity(lifetime);
        let message = messages_lifetime::lifetime_too_short(observed.authority_name(), lifetime, minimum, longest);
        section.failure(&failed(Reason::LifetimeTooShort, message));
    } else if left < minimum {
        section.failure(&failed(
            Reason::BelowMinimumValidity,
            format!(
                "the token is valid for {}, less than minimumValidity ({}): see why no other was issued",
                span(left),
                span(minimum)
            ),
        ));
    } else {
        section.ok(format!("the token is valid for {} of {}", span(left), span(lifetime)));
    }
}

/// Signature, claims, scopes and clocks.
fn verified(section: &mut Section, observed: &Observed, config: &AuthorityConfig, secret: &Secret, token: &Sensitive) {
    let keys = match &observed.server {
        Seen::Known(Ok(server)) => server.keys.as_ref(),
        _ => None,
    };
    let Some(keys) = keys else {
        let text = "the signature is not checked: the keys of the authority could not be fetched from this machine";
        section.unknown_unless(observed.is_offline, text);
        return;
    };
    let name = observed.authority_name();
    let claims = match keys.verify(token, &config.issuer, &config.audiences) {
        Ok(claims) => claims,
        Err(error) => {
            // what it presents instead may repeat a secret that is not known here
            section.failure(&verdict::not_trusted(error, None, name));
            return;
        }
    };
    section.ok("signature, issuer and audience are right");
    let issued = target::SecretMetadata::new(&secret.metadata).token_metadata;
    let sent_at = issued.as_ref().map_or(observed.now, |issued| issued.issued_at);
    let text = |key: &str| {
        let value = secret.data.as_ref().and_then(|data| data.get(key))?;
        std::str::from_utf8(&value.0).ok().map(str::to_owned)
    };
    let response = TokenResponse {
        access_token: token.clone(),
        token_type: text(secret_keys::TOKEN_TYPE).unwrap_or_default(),
        expires_in: None,
        scope: text(secret_keys::SCOPE).map(|scope| named_scopes(&scope)),
        sent_at,
    };
    let expected = Expected {
        scopes: &observed.credential.spec.scopes,
        scope_check: config.scope_check,
        allowed_scopes: config.allowed_scopes.as_deref(),
        default_lifetime: config.default_token_lifetime,
        held: None,
        last_held: None,
        skew: config.clock_skew,
        now: observed.now,
    };
    section.result(
        validate(response, Some(&claims), expected)
            .map(|_| "type, times and scopes are right")
            .map_err(|error| verdict::not_valid(&error, name)),
    );
    clocks(section, config, issued_at_claim(token), sent_at, issued.is_some());
}

/// The scopes that the Secret names: in the place of some it does not say which were granted.
fn named_scopes(scope: &str) -> Vec<String> {
    scope.split_ascii_whitespace().filter(|scope| *scope != REDACTED).map(str::to_owned).collect()
}

/// The clock of the authority when it issued the token, against that of the operator when it asked.
fn clocks(
    section: &mut Section,
    config: &AuthorityConfig,
    claimed: Option<DateTime<Utc>>,
    sent_at: DateTime<Utc>,
    is_known: bool,
) {
    let Some(claimed) = claimed.filter(|_| is_known) else { return };
    let difference = claimed - sent_at;
    // the request itself takes time
    if difference > config.clock_skew + TimeDelta::from_std(config.request_timeout).unwrap_or_default()
        || difference < -config.clock_skew
    {
        section.problem(format!(
            "the authority issued the token {} {} the operator asked for it: set the clocks of both right, or raise \
             clockSkew of ITwinAuthority",
            span(difference),
            if difference < TimeDelta::zero() { "before" } else { "after" }
        ));
    } else {
        section.ok(format!("the clocks of authority and operator differed by {} at most", span(difference)));
    }
}

/// `iat` of a token.
fn issued_at_claim(token: &Sensitive) -> Option<DateTime<Utc>> {
    let claims = jwt::read(token)?.claims;
    let number = claims.get("iat")?;
    DateTime::from_timestamp(number.as_i64().or_else(|| number.as_f64().map(|number| number as i64))?, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_that_is_not_shown_is_not_compared() {
        assert_eq!(named_scopes("a [redacted] b"), ["a", "b"]);
        assert!(named_scopes("[redacted]").is_empty());
    }
}
