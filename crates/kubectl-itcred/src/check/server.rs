//! The authority, and what it allows.

use itwin_api::{conditions::READY, credential::GrantType};
use itwin_core::{failure::Failure, messages};
use itwin_credential_operator::config::authority::AuthorityConfig;

use super::{Observed, Section, Seen, observed::configured};
use crate::span::span;

pub(super) fn section(observed: &Observed) -> Section {
    let mut section = Section::new("Authority");
    let name = observed.authority_name();
    let authority = match &observed.authority {
        Seen::Known(Some(authority)) => authority,
        Seen::Known(None) => {
            section.failure(&messages::authority_not_found(name));
            return section;
        }
        Seen::Unknown(why) => {
            section.unknown(format!("ITwinAuthority {name} is not checked: {why}"));
            return section;
        }
    };
    let config = match configured(authority, observed.ca_bundle.known()) {
        Ok(config) => config,
        Err(message) => {
            let invalid = Failure::new(itwin_api::conditions::Reason::ConfigurationInvalid, message);
            section.failure(&messages::authority_not_ready(name, &invalid));
            return section;
        }
    };
    ready(&mut section, observed, authority.status.as_ref());
    allowed(&mut section, observed, &config);
    published(&mut section, observed, &config);
    section
}

fn ready(section: &mut Section, observed: &Observed, status: Option<&itwin_api::authority::AuthorityStatus>) {
    let name = observed.authority_name();
    let ready = status.and_then(|status| status.conditions.iter().find(|condition| condition.type_ == READY));
    match ready {
        Some(ready) if ready.status == "True" => section.ok(format!("ITwinAuthority {name} is Ready")),
        Some(ready) => {
            section.push(
                super::Level::Problem,
                Some("AuthorityNotReady"),
                format!("ITwinAuthority {name} is not Ready ({}): {}", ready.reason, ready.message),
            );
        }
        None => section.push(
            super::Level::Problem,
            Some("AuthorityNotReady"),
            format!("ITwinAuthority {name} has no condition Ready: no operator has handled it, see above"),
        ),
    }
    if let Seen::Unknown(why) = &observed.ca_bundle {
        section.unknown(format!("the CA certificates of ITwinAuthority {name} are not checked: {why}"));
    }
}

/// What the authority allows.
fn allowed(section: &mut Section, observed: &Observed, config: &AuthorityConfig) {
    let (name, spec) = (observed.authority_name(), &observed.credential.spec);
    if config.restricts_namespaces() {
        match &observed.namespace_labels {
            Seen::Known(labels) => section.result(
                config
                    .permits_namespace(name, observed.namespace(), labels)
                    .map(|()| format!("namespace {} is allowed", observed.namespace())),
            ),
            Seen::Unknown(why) => {
                section.unknown(format!("whether namespace {} is allowed is not checked: {why}", observed.namespace()));
            }
        }
    }
    let grant = match spec.grant_type {
        GrantType::ClientCredentials => "client_credentials",
        GrantType::Password => "password",
    };
    section.result(config.permits(name, spec).map(|()| format!("grant type {grant}, scopes and audience are allowed")));
}

/// What the authorization server publishes, and its clock.
fn published(section: &mut Section, observed: &Observed, config: &AuthorityConfig) {
    let server = match &observed.server {
        Seen::Known(Ok(server)) => server,
        Seen::Known(Err(failure)) => {
            // from here the network may be another one than from the operator
            section.unknown(format!("from this machine: {}", failure.message));
            return;
        }
        Seen::Unknown(why) => {
            let text = format!("the authorization server is not asked from this machine: {why}");
            section.unknown_unless(observed.is_offline, text);
            return;
        }
    };
    if let Some(keys) = &server.keys {
        let plural = if keys.len() == 1 { "" } else { "s" };
        section.ok(format!("it publishes {} signing key{plural}", keys.len()));
    }
    if let Some((theirs, ours)) = server.date {
        let difference = theirs - ours;
        if difference.abs() > config.clock_skew {
            section.note(format!(
                "the clocks of the authorization server and of this machine differ by {}: if the operator's does too, \
                 tokens are rejected",
                span(difference)
            ));
        } else {
            section.ok(format!("its clock and that of this machine differ by {}", span(difference)));
        }
    }
}
