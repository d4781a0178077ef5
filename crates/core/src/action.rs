//! What can be decided.

use chrono::{DateTime, Utc};
use itwin_api::failure::Failure;

/// One step; after reading or acting, the facts are taken anew and the next one is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A fact is missing that the decision needs: read it and decide again.
    Fetch(Fetch),
    /// Ask for a token, verify it and write it.
    RequestToken(IssueReason),
    /// The token is good, but the Secret's labels, annotations or owner are not: write those.
    PatchMetadata,
    /// The token is good, but workloads that read it once may not have this one yet: restart those.
    Restart {
        /// When the token was issued.
        issued_at: DateTime<Utc>,
    },
    /// An attempt is due and cannot be made: say so, try again later.
    Fail(Failure),
    /// An attempt is due but must wait for the end of the back-off.
    BackOff {
        /// When it ends.
        until: DateTime<Utc>,
    },
    /// An attempt is due but the authority has not been looked at yet, as right after a start.
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

/// Why a token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssueReason {
    /// There is no Secret, or no token of ours in it.
    Missing,
    /// The Secret was changed by somebody else.
    Tampered,
    /// The spec asks for another token than the one held.
    SpecChanged,
    /// The client's credentials changed.
    ClientChanged,
    /// A user asked through the annotation.
    Requested,
    /// Its time has come.
    Due,
}
