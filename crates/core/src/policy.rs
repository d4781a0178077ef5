//! When the spec asks for renewals, and how long it promises a token to be valid.

use std::time::Duration;

use chrono::TimeDelta;
use itwin_api::credential::CredentialSpec;

/// No duration of a policy is longer: it is subtracted from the expiry of a token, and no date is before the calendar's.
const LONGEST_POLICY: TimeDelta = TimeDelta::days(3650);

/// When to renew.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Time before expiry at which a renewal is wished.
    pub renew_before: RenewBefore,
    /// Validity that workloads count on, where the spec sets it; [`crate::schedule::minimum_validity`] has the default.
    pub minimum_validity: Option<TimeDelta>,
}

impl Policy {
    /// The renewal policy of a spec.
    #[must_use]
    pub fn new(spec: &CredentialSpec) -> Self {
        let delta = |duration: Duration| {
            TimeDelta::from_std(duration).map_or(LONGEST_POLICY, |duration| duration.min(LONGEST_POLICY))
        };
        Self {
            renew_before: match (spec.renew_before, spec.renew_before_percentage) {
                (Some(duration), _) => RenewBefore::Fixed(delta(duration.into())),
                (None, Some(percentage)) => RenewBefore::Percentage(percentage),
                (None, None) => RenewBefore::Default,
            },
            minimum_validity: spec.minimum_validity.map(|duration| delta(duration.into())),
        }
    }
}

/// Time before expiry at which a renewal is wished.
#[derive(Clone, Copy, Debug)]
pub enum RenewBefore {
    /// A third of the lifetime.
    Default,
    /// A fixed time.
    Fixed(TimeDelta),
    /// A percentage of the lifetime.
    Percentage(i32),
}
