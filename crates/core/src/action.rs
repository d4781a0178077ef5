//! What can be decided.

use chrono::{DateTime, Utc};

use crate::failure::Failure;

/// One step. After it the state is observed again and the next one is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The decision needs more: read it and decide again.
    Fetch(Fetch),
    /// Request a token, verify it and write it.
    RequestToken(IssueReason),
    /// Write the token that was issued before and could not be written.
    WriteIssuedToken(IssueReason),
    /// The token is good, but the Secret's labels, annotations or owner are not: write those.
    PatchMetadata,
    /// The token is good, but workloads that read it once may not have this one yet: restart those.
    Restart {
        /// When the token was issued.
        issued_at: DateTime<Utc>,
    },
    /// All workloads were restarted for this token: have the Secret record it.
    RecordRestarts {
        /// When the token was issued.
        issued_at: DateTime<Utc>,
    },
    /// An attempt is due and cannot be made: report it, try again later.
    Fail(Failure),
    /// An attempt is due but must wait for the end of the backoff.
    AwaitBackoff {
        /// When it ends.
        until: DateTime<Utc>,
    },
    /// The token is good, and a renewal that is due or asked for must wait: the last one gave no better token.
    AwaitBetterToken {
        /// When it is attempted.
        until: DateTime<Utc>,
    },
    /// A token request is due but follows the last one too soon.
    AwaitInterval {
        /// When it may be sent.
        until: DateTime<Utc>,
    },
    /// An attempt is due but the authority has not been reconciled yet, as right after a start.
    AwaitAuthority,
    /// A token request is due: it waits in the queue of its authority until it is admitted.
    AwaitAdmission,
    /// All is as it should be.
    UpToDate {
        /// When the next renewal is due; `None` while nothing is to be renewed.
        renew_at: Option<DateTime<Utc>>,
    },
}

/// What to read before deciding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// The metadata of the Secret to write.
    Target,
    /// The data of the Secret to write.
    TargetData,
    /// The data of the client Secret.
    Client,
}

/// Why a token is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssueReason {
    /// There is no Secret, or no token of ours in it.
    Missing,
    /// The Secret was changed by someone else.
    Tampered,
    /// The spec asks for another token than the one held.
    SpecChanged,
    /// The client's credentials changed.
    ClientChanged,
    /// A user asks through the annotation.
    Requested,
    /// Its time has come.
    Due,
}
