//! Why a command cannot do what it was asked for, in one line. The process then ends with exit code 2.

use std::fmt;

use crate::plain::plain;

/// One line that names what is wrong and says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(String);

impl Problem {
    /// A problem; the text may hold what others wrote.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self(plain(text.as_ref()))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

/// What a command found, if it could do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to do: exit code 0.
    Fine,
    /// Something to do: exit code 1.
    Findings,
    /// Something could not be checked or done, as the output says: exit code 2.
    Incomplete,
}

impl Outcome {
    /// The outcome where there are findings, or none.
    #[must_use]
    pub const fn found(any: bool) -> Self {
        if any { Self::Findings } else { Self::Fine }
    }

    /// The same if not everything may have been checked: without findings, it is not known whether all is well.
    #[must_use]
    pub const fn checked(any: bool, is_complete: bool) -> Self {
        match Self::found(any) {
            Self::Fine if !is_complete => Self::Incomplete,
            outcome => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_checked_is_not_fine_and_findings_count_first() {
        assert_eq!(Outcome::checked(false, true), Outcome::Fine);
        assert_eq!(Outcome::checked(false, false), Outcome::Incomplete);
        assert_eq!(Outcome::checked(true, false), Outcome::Findings);
    }
}
