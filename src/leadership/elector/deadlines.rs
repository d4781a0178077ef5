//! How long a call about the Lease may take: longer where the API server answers late, as the calls before showed.

use std::time::Duration;

use crate::leadership::lease::{DEADLINE, LeaseError, SLOW_DEADLINE};

/// What the calls before showed. Writes alone may be slow, and reads alone: a read that is fast says nothing of the next
/// write.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// The last read took as long as one may, or longer.
    is_read_slow: bool,
    /// The last write did.
    is_write_slow: bool,
}

impl Deadlines {
    /// How long a read may take. That of a leader is cut early even after slow ones: it has lost a renewal, and must be
    /// able to try again before it has to step down.
    pub(super) fn of_read(&self, leads: bool) -> Duration {
        if self.is_read_slow && !leads { SLOW_DEADLINE } else { DEADLINE }
    }

    /// How long a write may take. A leader reads only where a renewal fails, so its last read may be long ago and says
    /// nothing; a standby's last write may be.
    pub(super) fn of_write(&self, leads: bool) -> Duration {
        if self.is_write_slow || (self.is_read_slow && !leads) { SLOW_DEADLINE } else { DEADLINE }
    }

    /// A read ended after this time.
    pub(super) fn read_ended(&mut self, took: Duration, error: Option<&LeaseError>) {
        self.is_read_slow = is_slow(took, error).unwrap_or(self.is_read_slow);
    }

    /// A write ended after this time.
    pub(super) fn write_ended(&mut self, took: Duration, error: Option<&LeaseError>) {
        self.is_write_slow = is_slow(took, error).unwrap_or(self.is_write_slow);
    }
}

/// Whether a call was slow; `None` where it was cut before it could show that.
fn is_slow(took: Duration, error: Option<&LeaseError>) -> Option<bool> {
    let is_cut = matches!(error, Some(LeaseError::Timeout));
    (took >= DEADLINE || !is_cut).then_some(took >= DEADLINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(100);

    #[test]
    fn read_says_nothing_of_the_next_write_where_only_writes_are_slow() {
        let mut deadlines = Deadlines::default();
        deadlines.write_ended(DEADLINE, Some(&LeaseError::Timeout));
        deadlines.read_ended(FAST, None);
        assert_eq!((deadlines.of_write(false), deadlines.of_write(true)), (SLOW_DEADLINE, SLOW_DEADLINE));
        assert_eq!(deadlines.of_read(false), DEADLINE);
        deadlines.write_ended(FAST, None);
        assert_eq!(deadlines.of_write(false), DEADLINE);
    }

    #[test]
    fn slow_read_gives_more_time_to_the_calls_of_a_standby_and_not_to_those_of_a_leader() {
        let mut deadlines = Deadlines::default();
        deadlines.read_ended(DEADLINE, None);
        deadlines.write_ended(FAST, None);
        assert_eq!((deadlines.of_read(false), deadlines.of_write(false)), (SLOW_DEADLINE, SLOW_DEADLINE));
        assert_eq!((deadlines.of_read(true), deadlines.of_write(true)), (DEADLINE, DEADLINE));
    }

    #[test]
    fn call_that_is_cut_early_leaves_the_deadlines_as_they_are() {
        let mut deadlines = Deadlines::default();
        deadlines.read_ended(FAST, Some(&LeaseError::Timeout));
        assert_eq!(deadlines.of_read(false), DEADLINE);
        deadlines.read_ended(DEADLINE, Some(&LeaseError::Timeout));
        deadlines.read_ended(FAST, Some(&LeaseError::Timeout));
        assert_eq!(deadlines.of_read(false), SLOW_DEADLINE, "one that has little time left shows nothing");
        deadlines.read_ended(FAST, Some(&LeaseError::Conflict));
        assert_eq!(deadlines.of_read(false), DEADLINE, "a failure that comes soon is an answer");
    }
}
