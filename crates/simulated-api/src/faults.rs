//! Faults of single calls and of open watches, as tests plan them.

use std::time::Duration;

use crate::{
    request::{Call, Verb},
    status::Failure,
};

/// Which calls a fault concerns; what is not named is any.
#[derive(Clone, Debug, Default)]
pub struct Match {
    verb: Option<Verb>,
    target: Option<String>,
    client: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
}

impl Match {
    /// All calls.
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// Those with this verb.
    #[must_use]
    pub fn verb(mut self, verb: Verb) -> Self {
        self.verb = Some(verb);
        self
    }

    /// Those to this resource and subresource, such as `secrets` or `itwinauthorities/status`.
    #[must_use]
    pub fn target(mut self, target: &str) -> Self {
        self.target = Some(target.to_owned());
        self
    }

    /// Those of this client.
    #[must_use]
    pub fn client(mut self, client: &str) -> Self {
        self.client = Some(client.to_owned());
        self
    }

    /// Those in this namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Those about the object of this name.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Whether a call is concerned.
    #[must_use]
    pub fn matches(&self, call: &Call) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        self.verb.is_none_or(|verb| verb == call.verb)
            && self.target.as_deref().is_none_or(|target| call.is_to(target))
            && is(&self.client, &call.client)
            && is(&self.namespace, call.namespace.as_deref().unwrap_or_default())
            && is(&self.name, &call.name)
    }
}

/// What becomes of a call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection is refused: nothing happens.
    Refuse,
    /// The call is carried out, but its answer never comes: the connection breaks.
    DropAnswer,
    /// It is carried out after this time.
    DelayBefore(Duration),
    /// It is carried out, and answered after this time.
    DelayAfter(Duration),
    /// This is answered instead, and nothing happens. It may be about a quota, a webhook, or overload.
    Answer(Box<Failure>),
    /// Nothing happens and no answer ever comes.
    Hang,
    /// It is carried out, and no answer ever comes.
    HangAfter,
    /// It is carried out, and the connection breaks in the middle of the answer's body.
    ResetBody,
    /// It is carried out, and half of the answer's body is replaced by what is no JSON.
    GarbleBody,
}

/// A fault of some calls.
#[derive(Clone, Debug)]
pub struct Rule {
    matching: Match,
    fault: Fault,
    skip: usize,
    times: usize,
}

impl Rule {
    /// The fault happens to the first call that matches.
    #[must_use]
    pub fn once(matching: Match, fault: Fault) -> Self {
        Self { matching, fault, skip: 0, times: 1 }
    }

    /// It happens to every call that matches.
    #[must_use]
    pub fn always(matching: Match, fault: Fault) -> Self {
        Self { times: usize::MAX, ..Self::once(matching, fault) }
    }

    /// So many calls that match pass before it happens.
    #[must_use]
    pub fn after(mut self, calls: usize) -> Self {
        self.skip = calls;
        self
    }

    /// It happens to so many calls.
    #[must_use]
    pub fn times(mut self, calls: usize) -> Self {
        self.times = calls;
        self
    }
}

/// All faults that are planned.
#[derive(Debug, Default)]
pub struct Plan {
    rules: Vec<Rule>,
    disturbances: Vec<(u64, Match, Disturbance)>,
    installed: u64,
}

impl Plan {
    /// Adds a rule; earlier ones come first.
    pub fn add(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    /// Adds a fault of watches.
    pub fn disturb(&mut self, matching: Match, disturbance: Disturbance) {
        self.installed += 1;
        self.disturbances.push((self.installed, matching, disturbance));
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.rules.clear();
        self.disturbances.clear();
    }

    /// Whether a call may still have a fault.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.rules.iter().any(|rule| rule.times > 0)
    }

    /// The fault of this call, if it has one.
    pub fn take(&mut self, call: &Call) -> Option<Fault> {
        for rule in self.rules.iter_mut().filter(|rule| rule.times > 0 && rule.matching.matches(call)) {
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            rule.times = if rule.times == usize::MAX { usize::MAX } else { rule.times - 1 };
            return Some(rule.fault.clone());
        }
        None
    }

    /// The faults of a watch, each with a number that grows with the time of its installation.
    pub fn of_watch<'a>(&'a self, call: &'a Call) -> impl Iterator<Item = (u64, Disturbance)> + use<'a> {
        let concerned = self.disturbances.iter().filter(|(_, matching, _)| matching.matches(call));
        concerned.map(|(number, _, disturbance)| (*number, *disturbance))
    }

    /// The number of the fault of watches that was installed last.
    #[must_use]
    pub fn installed(&self) -> u64 {
        self.installed
    }
}

/// What becomes of watches. Lasting ones end with [`Plan::clear`]; the others happen once to each watch that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// Lasting: events come so much later.
    Lag(Duration),
    /// Lasting: nothing comes, not even the end.
    Freeze,
    /// The next event is lost.
    DropNext,
    /// The older versions of the objects come again, oldest first.
    Replay,
    /// The watch ends.
    End,
    /// Its connection breaks.
    Reset,
    /// A line comes that is no JSON.
    Garble,
    /// The watch ends with 410.
    Expire,
}
