//! One look at the credential, step by step as `controller::reconcile` does it, with calls that fail in each way.

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{conditions::Reason, failure::Failure};
use itwin_core::{
    action::{Action, Fetch},
    backoff,
    contenders::Contender,
    failure::RequestFailure,
    observed::ObservedState,
    ownership::Named,
    requests::{Blocked, Outcome},
};
use itwin_credential_operator::{
    cluster::CallError,
    controller::{
        authorities::Authorities,
        fetched::FetchedSecrets,
        observation::{self, Caches, References},
        others::Others,
        retry_state::RetryState,
    },
    observe::index::Key,
};

use crate::{act::IssueResult, faults::Faults, judge::Judge, process::Process, rules::Rules, world::World};

/// As in `controller::reconcile`.
pub const STEPS_MAX: usize = 12;
pub const AWAIT_AUTHORITY: TimeDelta = TimeDelta::seconds(5);
const REQUEUE_FLOOR: TimeDelta = TimeDelta::milliseconds(10);
const API_RETRY_CEILING: TimeDelta = TimeDelta::seconds(30);

/// Why a look ended early.
pub enum Halt {
    Error(CallError),
    /// The process was killed.
    Killed,
}

/// One credential alone: who else would have the Secret is for the tests against an API server.
struct Alone;

impl Others for Alone {
    fn writers(&self, _: &Key) -> Vec<Contender> {
        Vec::new()
    }

    fn readers(&self, _: &Key) -> Vec<Contender> {
        Vec::new()
    }

    fn living(&self, _: &str) -> Option<Named> {
        None
    }
}

/// One look.
pub struct Reconcile<'a> {
    pub world: &'a mut World,
    pub process: &'a mut Process,
    pub judge: &'a mut Judge,
    pub faults: &'a mut Faults,
    pub rules: &'a Rules,
    /// An empty list: what a process knows of the authority is [`Process::authority`].
    pub authorities: &'a Authorities,
    pub references: References<'a>,
    pub retry_state: RetryState,
    pub fetched: FetchedSecrets,
    /// The queue admitted a token request.
    pub admitted: bool,
    /// One waits.
    pub waits: bool,
    /// Tell every step.
    pub aloud: bool,
    /// What the client Secret held when it was read.
    pub client_content: String,
}

/// Has the process look at its credential. Returns whether it survived.
pub fn reconcile(
    world: &mut World,
    process: &mut Process,
    judge: &mut Judge,
    faults: &mut Faults,
    (rules, authorities, aloud): (&Rules, &Authorities, bool),
) -> bool {
    let by_timer = !process.enqueued;
    process.enqueued = false;
    let credential = process.credential.clone();
    let retry_state = process.retry_state.take().unwrap_or_else(|| RetryState::recall(&credential, world.clock()));
    let references = References::new(&credential);
    let (began, faults_before) = (world.now, faults.count);
    let mut reconcile = Reconcile {
        world,
        process,
        judge,
        faults,
        rules,
        authorities,
        references,
        retry_state,
        fetched: FetchedSecrets::default(),
        client_content: String::new(),
        admitted: false,
        waits: false,
        aloud,
    };
    let wait = match reconcile.run() {
        Ok(wait) => {
            reconcile.retry_state.api_failures = 0;
            wait
        }
        Err(Halt::Error(_)) => reconcile.after_error(),
        Err(Halt::Killed) => return false,
    };
    reconcile.leave_queue();
    let Reconcile { retry_state, .. } = reconcile;
    let undisturbed = faults.count == faults_before;
    judge.looked(world, process, &retry_state, (began, by_timer, undisturbed), wait);
    process.retry_state = Some(retry_state);
    process.sleep(world.now, wait);
    true
}

impl Reconcile<'_> {
    fn run(&mut self) -> Result<TimeDelta, Halt> {
        if !self.process.watches_secrets {
            self.process.index.invalidate(&self.references.target);
            self.process.index.invalidate(&self.references.client);
            self.read_metadata(true)?;
            self.read_metadata(false)?;
        }
        let disturbed = self.faults.count;
        for _ in 0..STEPS_MAX {
            let known = self.process.known_target();
            let (observed, inputs) = self.observe();
            let action = (self.rules.decide)(&observed, self.world.clock());
            if self.aloud {
                eprintln!("        {} {action:?}", self.world.now.format("%T%.3f"));
            }
            match action {
                Action::Fetch(what) => {
                    if let Err(failure) = self.fetch(what, &observed)? {
                        self.failed(&observed, inputs, failure.into());
                        return self.report(None, None);
                    }
                }
                Action::RequestToken(_) => match self.issue(&observed, &known)? {
                    IssueResult::Written => {}
                    IssueResult::Again => self.forget_target(),
                    IssueResult::NotYet(wait) => return self.report(None, Some(wait)),
                    IssueResult::NotAdmitted => {}
                    IssueResult::Failed(failure) => self.failed(&observed, inputs, failure),
                },
                Action::PatchMetadata => self.patch_metadata(&known)?,
                // the simulated credential names no workloads
                Action::Restart { .. } => unreachable!("nothing to restart"),
                Action::Fail(failure) => self.failed(&observed, inputs, failure.into()),
                Action::UpToDate { renew_at } => {
                    if renew_at.is_some() {
                        self.retry_state.unwritten = None;
                        self.retry_state.unfulfilled_request = None;
                        if let Some(request) = self.references.renew_annotation() {
                            self.retry_state.attempts.renew_request = Some(request.clone());
                        }
                        self.nothing_is_wrong();
                    }
                    return self.report(renew_at, None);
                }
                Action::BackOff { until } => return self.report(Some(until), None),
                Action::AwaitAdmission => match self.await_admission(&observed, inputs) {
                    Ok(None) => self.admitted = true,
                    Ok(Some(wait)) => {
                        self.waits = true;
                        return self.report(None, Some(wait));
                    }
                    Err(failure) => {
                        let reported = self.judge.paused.take();
                        self.failed(&observed, inputs, failure.into());
                        self.judge.paused = reported;
                        self.retry_state.failed_by_others = true;
                    }
                },
                Action::AwaitAuthority => return self.report(None, Some(AWAIT_AUTHORITY)),
            }
        }
        if self.faults.count == disturbed {
            self.judge.blame("(6) a look that nobody disturbed does not end");
        }
        let (observed, inputs) = self.observe();
        self.failed(&observed, inputs, Failure::new(Reason::SecretConflict, "again and again").into());
        self.report(self.retry_state.not_before, None)
    }

    fn after_error(&mut self) -> TimeDelta {
        self.retry_state.api_failures += 1;
        let failures = self.retry_state.api_failures;
        let wait = backoff::delay(failures, TimeDelta::zero(), Reason::ServerError, None, &self.references.uid);
        wait.min(API_RETRY_CEILING).max(REQUEUE_FLOOR)
    }

    /// The facts as `observation` makes them, with what this process knows of the authority put in: it moves the inputs of
    /// an attempt too, so that a back-off ends when the authority changed.
    pub fn observe(&self) -> (ObservedState, u32) {
        let process = &self.process;
        let now = self.world.clock();
        let caches =
            Caches { index: &process.index, others: &Alone, authorities: self.authorities, is_admitted: self.admitted };
        let (mut observed, inputs) =
            observation::observe(&self.references, &self.retry_state, &self.fetched, &caches, now);
        observed.authority = process.authority.clone();
        let is_another = process.failed_revision.is_some_and(|revision| revision != process.revision);
        if is_another {
            observed.history.not_before = None;
        }
        (observed, inputs)
    }

    /// Has the request wait, as `controller::turn` does. `None` where it is admitted at once, else when to look again.
    fn await_admission(&mut self, observed: &ObservedState, inputs: u32) -> Result<Option<TimeDelta>, Failure> {
        if self.faults.limited() {
            return Ok(Some(TimeDelta::seconds(3)));
        }
        let request = observation::request(&self.references, &self.retry_state, observed, &self.process.index);
        let (requester, now) = (request.requester.clone(), self.process.time(self.world));
        self.process.queue.enqueue((), request, now);
        if let Some(blocked) = self.process.queue.blocked(&requester, now.monotonic) {
            let failure = match blocked {
                Blocked::Client(failure) => failure,
                Blocked::Server(reason) | Blocked::ServerWait(reason) => Failure::new(reason, "it waits"),
            };
            let unchanged = self.retry_state.inputs.is_none_or(|before| before == inputs);
            if self.retry_state.attempts.last_failure.is_none() || !unchanged {
                let situation = (self.process.number, self.references.uid.clone(), inputs, self.process.revision);
                self.judge.was_paused(situation, observed.is_asked_for(now.wall));
                return Err(failure);
            }
        }
        let admissions = self.process.queue.admit(now);
        if !admissions.admitted.is_empty() {
            assert!(self.process.queue.take_up(&(), &requester), "it was just admitted");
            return Ok(None);
        }
        let until = admissions.again.map(|again| again.saturating_duration_since(now.monotonic));
        let until = until.and_then(|until| TimeDelta::from_std(until).ok()).unwrap_or(TimeDelta::seconds(60));
        Ok(Some(until + TimeDelta::milliseconds(1)))
    }

    /// What does not wait needs nothing now.
    fn leave_queue(&mut self) {
        let now = self.process.time(self.world);
        if std::mem::take(&mut self.admitted) {
            self.process.queue.settle(&(), None, &Outcome::NotSent, now);
        }
        if !self.waits {
            self.process.queue.leave(&());
        }
    }

    pub fn forget_target(&mut self) {
        self.process.index.invalidate(&self.references.target);
        self.fetched = FetchedSecrets::default();
    }

    fn fetch(&mut self, what: Fetch, observed: &ObservedState) -> Result<Result<(), Failure>, Halt> {
        let (result, reason) = match what {
            Fetch::Target => (self.read_metadata(true), Reason::SecretWriteFailed),
            Fetch::TargetData => (self.read_target(), Reason::SecretWriteFailed),
            Fetch::Client => (self.read_client(observed), Reason::ClientCredentialsNotFound),
        };
        match result {
            Err(Halt::Error(CallError::Forbidden(_))) => Ok(Err(Failure::new(reason, "may not be read"))),
            other => other.map(Ok),
        }
    }

    pub fn nothing_is_wrong(&mut self) {
        self.retry_state.attempts.failures = 0;
        self.retry_state.attempts.last_failure = None;
        self.retry_state.not_before = None;
        self.retry_state.inputs = None;
        self.process.failed_revision = None;
    }

    fn failed(&mut self, observed: &ObservedState, inputs: u32, failure: RequestFailure) {
        let now = self.world.clock();
        let RequestFailure { failure, retry_after, .. } = failure;
        let attempts = &mut self.retry_state.attempts;
        attempts.failures = attempts.failures.saturating_add(1);
        let wait = backoff::delay(attempts.failures, observed.left(now), failure.reason, retry_after, &observed.uid);
        if observed.is_asked_for(now) {
            self.retry_state.unfulfilled_request = self.references.renew_annotation().cloned();
            attempts.renew_request.clone_from(&self.retry_state.unfulfilled_request);
        }
        attempts.last_failure = Some((now, failure));
        self.retry_state.not_before = Some(now + (self.rules.wait)(wait));
        self.retry_state.inputs = Some(inputs);
        self.retry_state.failed_by_others = false;
        self.process.failed_revision = Some(self.process.revision);
        self.judge.failed(self.world.now, retry_after);
    }

    pub fn requeue(
        &self,
        now: DateTime<Utc>,
        observed: &ObservedState,
        next: Option<DateTime<Utc>>,
        wait: Option<TimeDelta>,
    ) -> TimeDelta {
        let again = if self.process.watches_secrets { TimeDelta::minutes(10) } else { TimeDelta::seconds(290) };
        let until_attempt = next.map(|at| at - now);
        let until_change = observation::next_change(observed, now).map(|at| at - now);
        let wait = [Some(again), wait, until_attempt, until_change].into_iter().flatten().min().unwrap_or(again);
        wait.max(REQUEUE_FLOOR)
    }
}
