//! What is known of one authority, and what makes it another one.

use std::sync::Arc;

use itwin_api::{
    authority::{AuthoritySpec, AuthorityStatus},
    conditions::Reason,
    digest,
};
use itwin_core::failure::Failure;
use itwin_oauth::discovery::TokenEndpoint;
use tokio::time::Instant;

use crate::oauth::authority::Authority;

/// UID, generation and digest of a spec. A cluster that was restored from a backup gives out a generation a second time.
pub(super) type MadeFrom = (String, i64, String);

/// One authority, and what is known of it.
pub(super) struct Entry {
    /// The spec that `authority` was made from.
    pub(super) made_from: MadeFrom,
    /// The CA certificates that the spec refers to, as a digest.
    pub(super) bundle: Option<String>,
    /// Since when they cannot be read, while those that were read before are in use.
    pub(super) bundle_unread_since: Option<Instant>,
    /// Which server it is: an edit of anything else forgets nothing of what is known of it.
    pub(super) server: String,
    pub(super) authority: Result<Arc<Authority>, Failure>,
    /// Why the last refresh failed, if it failed.
    pub(super) failure: Option<Failure>,
    /// Why no refresh has ever succeeded, as credentials report it.
    pub(super) unanswered: Option<Reason>,
    /// It was asked, whatever came of it.
    pub(super) was_asked: bool,
    pub(super) failures: u32,
    /// When endpoints and keys are requested next; a reconciliation before that, as after each status, requests nothing.
    pub(super) due: Instant,
    /// When it was last noted how asking for them ended.
    pub(super) noted: Option<Instant>,
    /// The token endpoint when it was last asked for successfully.
    pub(super) token_endpoint: Option<TokenEndpoint>,
    /// When endpoints were last asked for early, because a token request showed that the token endpoint may have moved.
    pub(super) asked_early: Option<Instant>,
    /// Moves with everything that may make a new attempt worth while.
    pub(super) revision: u32,
    /// What was written into its status last.
    pub(super) reported: Option<Reported>,
    /// Since when its status is refused because the object has changed, and the resourceVersion that the watch had shown.
    pub(super) conflict: Option<(Instant, Option<String>)>,
    /// What the last event said of its condition Ready.
    pub(super) published: Option<bool>,
}

impl Entry {
    /// An authority that was not asked yet, and is to be asked now.
    pub(super) fn fresh(
        made_from: MadeFrom,
        bundle: Option<String>,
        server: String,
        authority: Result<Arc<Authority>, Failure>,
        revision: u32,
        now: Instant,
    ) -> Self {
        Self {
            made_from,
            bundle,
            bundle_unread_since: None,
            server,
            authority,
            failure: None,
            unanswered: None,
            was_asked: false,
            failures: 0,
            due: now,
            noted: None,
            token_endpoint: None,
            asked_early: None,
            revision,
            reported: None,
            conflict: None,
            published: None,
        }
    }

    /// Whether it was made from this spec and the CA certificates of this digest.
    pub(super) fn is_made_from(&self, made_from: &MadeFrom, bundle: &Result<Option<String>, &Failure>) -> bool {
        let is_same_bundle = || match bundle {
            Ok(digest) => *digest == self.bundle,
            // one that cannot be read as before is no edit
            Err(failure) => {
                self.bundle.is_some() || self.authority.as_ref().is_err_and(|known| known.reads_as(failure))
            }
        };
        self.made_from == *made_from && is_same_bundle()
    }
}

/// A status that was written.
pub(super) struct Reported {
    /// When.
    pub(super) at: Instant,
    /// The resourceVersion that the watch had shown by then.
    pub(super) shown: Option<String>,
    /// The resourceVersion that the object had after that.
    pub(super) written: Option<String>,
    /// The status.
    pub(super) status: AuthorityStatus,
}

/// What says which server an authority is, and how it is trusted, as a digest.
pub(super) fn server(spec: &AuthoritySpec) -> String {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let format = format!("{:?}", spec.access_token_format);
    let reference = format!("{:?}", spec.ca_bundle_ref);
    let (token_endpoint, jwks_uri) = (text(&spec.token_endpoint), text(&spec.jwks_uri));
    let parts = [&spec.issuer, &token_endpoint, &jwks_uri, &text(&spec.ca_bundle), &reference, &format];
    digest::sha256_hex(parts.map(String::as_str))
}
