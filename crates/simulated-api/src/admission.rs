//! Admission: hooks that rewrite or deny writes, as webhooks, policies and quotas do.

use std::{fmt, sync::Arc};

use serde_json::Value;

use crate::{faults::Match, request::Call, status::Failure};

/// Rewrites the object that is written, or denies the write. It gets the call, the object (null in a DELETE) and the
/// stored object, if there is one.
pub type Hook = Arc<dyn Fn(&Call, &mut Value, Option<&Value>) -> Result<(), Failure> + Send + Sync>;

/// The hooks that are installed, in their order.
#[derive(Clone, Default)]
pub struct Admission(Vec<(Match, Hook)>);

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} admission hooks", self.0.len())
    }
}

impl Admission {
    /// Adds a hook for the writes that match.
    pub fn add(&mut self, matching: Match, hook: Hook) {
        self.0.push((matching, hook));
    }

    /// Removes all hooks.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Runs the hooks that a write concerns.
    ///
    /// # Errors
    /// The first denial.
    pub fn run(&self, call: &Call, object: &mut Value, old: Option<&Value>) -> Result<(), Failure> {
        let mut concerned = self.0.iter().filter(|(matching, _)| matching.matches(call));
        concerned.try_for_each(|(_, hook)| hook(call, object, old))
    }
}

/// The denial of an admission webhook, with its status code (400 to 599) and message.
#[must_use]
pub fn denied(code: u16, webhook: &str, message: &str) -> Failure {
    let reason = if code == 403 { "Forbidden" } else { "" };
    Failure::new(code, reason, format!("admission webhook \"{webhook}\" denied the request: {message}"))
}
