//! Rules: which calls get which fault, how often, and whether it happened.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::call::Call;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed; the call is not forwarded.
    KilledBefore,
    /// The call is forwarded, and the connection is closed without a byte of the response.
    AnswerLost,
    /// The response has this HTTP status, in the form of the API server; the call is not forwarded.
    Refused(u16),
    /// The response is the 429 of an API server that has more requests than it allows at a time: in plain text, and with
    /// `Retry-After`; the call is not forwarded.
    Overloaded,
    /// The response has status 200 and this body, whatever was requested; the call is not forwarded.
    Answered(&'static str),
    /// The call is not forwarded; after this long without a response, the connection is closed.
    BlackHole(Duration),
    /// The call is forwarded, and the connection is closed after half of the response's bytes.
    ResetMidBody,
    /// The call is forwarded after this long.
    Delay(Duration),
    /// The call, a list, gets the first response that it ever got.
    FirstAnswerAgain,
    /// The call is forwarded as if there were no proxy; for callbacks.
    Nothing,
}

impl Fault {
    /// The response has status 200 and is a `Status`, which decodes as an object without metadata.
    pub const NO_OBJECT: Self =
        Self::Answered(r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","code":200}"#);
}

/// How long a rule applies.
#[derive(Clone, Copy, Debug)]
enum Lasting {
    Times(u32),
    Until(Instant),
}

/// A callback that the call waits for.
pub(super) type Callback = Arc<dyn Fn() + Send + Sync>;

/// Which calls get which fault.
#[derive(Clone)]
pub struct Rule {
    kind: String,
    namespace: Option<String>,
    object: Option<String>,
    lasting: Lasting,
    pub(super) fault: Fault,
    pub(super) before: Option<Callback>,
    pub(super) after: Option<Callback>,
    played: Arc<Counter>,
}

/// How often a rule was applied, and when it was for the first time.
#[derive(Debug, Default)]
pub(super) struct Counter {
    times: AtomicU32,
    first: OnceLock<Instant>,
}

impl Counter {
    pub(super) fn count(&self) {
        self.first.get_or_init(Instant::now);
        self.times.fetch_add(1, Ordering::SeqCst);
    }
}

/// Counts how often a rule was applied.
#[derive(Clone, Debug)]
pub struct Played(pub(super) Arc<Counter>);

impl Played {
    /// How often it was applied up to now.
    #[must_use]
    pub fn times(&self) -> u32 {
        self.0.times.load(Ordering::SeqCst)
    }

    /// When it was applied for the first time.
    #[must_use]
    pub fn first(&self) -> Option<Instant> {
        self.0.first.get().copied()
    }
}

impl Rule {
    /// Applies this fault to the next call of this kind.
    #[must_use]
    pub fn new(kind: &str, fault: Fault) -> Self {
        Self {
            kind: kind.to_owned(),
            namespace: None,
            object: None,
            lasting: Lasting::Times(1),
            fault,
            before: None,
            after: None,
            played: Arc::default(),
        }
    }

    /// Limits the rule to the object of this name.
    #[must_use]
    pub fn of(mut self, object: &str) -> Self {
        self.object = Some(object.to_owned());
        self
    }

    /// Limits the rule to this namespace.
    #[must_use]
    pub fn within(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Applies the rule to this many calls.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.lasting = Lasting::Times(times);
        self
    }

    /// Applies the rule to all calls for this long from now.
    #[must_use]
    pub fn lasting(mut self, duration: Duration) -> Self {
        self.lasting = Lasting::Until(Instant::now() + duration);
        self
    }

    /// Runs this when the call comes, before it is forwarded.
    #[must_use]
    pub fn calling_before(mut self, callback: impl Fn() + Send + Sync + 'static) -> Self {
        self.before = Some(Arc::new(callback));
        self
    }

    /// Runs this between the API server's response and the fault; never if the call is not forwarded.
    #[must_use]
    pub fn calling_after(mut self, callback: impl Fn() + Send + Sync + 'static) -> Self {
        self.after = Some(Arc::new(callback));
        self
    }

    /// The counter of the rule.
    #[must_use]
    pub fn played(&self) -> Played {
        Played(self.played.clone())
    }

    /// Whether the rule applies to this call; if so, the call counts.
    pub(super) fn takes(&mut self, call: &Call) -> bool {
        let is_other = |wanted: &Option<String>, name: &String| wanted.as_ref().is_some_and(|wanted| wanted != name);
        if self.kind != call.kind || is_other(&self.object, &call.object) || is_other(&self.namespace, &call.namespace)
        {
            return false;
        }
        match &mut self.lasting {
            Lasting::Times(0) => return false,
            Lasting::Times(left) => *left -= 1,
            Lasting::Until(end) if Instant::now() >= *end => return false,
            Lasting::Until(_) => {}
        }
        self.played.count();
        true
    }
}

/// What an API server that has too many requests answers (`tooManyRequests` of kube-apiserver).
pub(super) const OVERLOADED: &str = "Too many requests, please try again later.\n";

/// The body of an error response, as the API server writes it.
pub(super) fn status_body(code: u16, call: &Call) -> Value {
    let (resource, name) = (call.resource(), &call.object);
    let (reason, message) = match code {
        400 => ("BadRequest", "the request is malformed".to_owned()),
        403 => ("Forbidden", format!("{resource} \"{name}\" is forbidden: User cannot do that")),
        404 => ("NotFound", format!("{resource} \"{name}\" not found")),
        409 if call.kind.starts_with("create") => ("AlreadyExists", format!("{resource} \"{name}\" already exists")),
        409 => (
            "Conflict",
            format!(
                "Operation cannot be fulfilled on {resource} \"{name}\": the object has been modified; please apply your changes to the latest version and try again"
            ),
        ),
        410 => ("Expired", "The resourceVersion for the provided watch is too old.".to_owned()),
        422 => ("Invalid", format!("{resource} \"{name}\" is invalid: spec: Invalid value: \"null\"")),
        429 => (
            "TooManyRequests",
            "The server has received too many requests and has asked us to try again later".to_owned(),
        ),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request".to_owned()),
        _ => ("InternalError", "Internal error occurred: the storage is on fire".to_owned()),
    };
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "details": {"name": name, "kind": resource},
        "code": code,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(kind: &str, object: &str) -> Call {
        Call { kind: kind.to_owned(), namespace: String::new(), object: object.to_owned() }
    }

    #[test]
    fn rule_takes_so_many_calls_of_its_kind_and_object() {
        let mut rule = Rule::new("get secrets", Fault::KilledBefore).of("agent").times(2);
        let played = rule.played();
        assert!(!rule.takes(&call("patch secrets", "agent")) && !rule.takes(&call("get secrets", "other")));
        assert!(rule.takes(&call("get secrets", "agent")) && rule.takes(&call("get secrets", "agent")));
        assert!(!rule.takes(&call("get secrets", "agent")));
        assert_eq!(played.times(), 2);
    }

    #[test]
    fn rule_with_a_duration_ends_with_it() {
        let mut over = Rule::new("get secrets", Fault::KilledBefore).lasting(Duration::ZERO);
        assert!(!over.takes(&call("get secrets", "agent")));
        let mut long = Rule::new("get secrets", Fault::KilledBefore).lasting(Duration::from_secs(60));
        assert!((0..3).all(|_| long.takes(&call("get secrets", "agent"))));
    }

    #[test]
    fn conflicts_have_the_reason_of_their_verb() {
        assert_eq!(status_body(409, &call("create secrets", "a"))["reason"], "AlreadyExists");
        assert_eq!(status_body(409, &call("patch secrets", "a"))["reason"], "Conflict");
    }
}
