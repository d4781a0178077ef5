//! One look at the credential, step by step as `controller::reconcile` does it, with calls that fail in each way.

use chrono::{DateTime, TimeDelta, Utc};
use itwin_credential_operator::{
    api::conditions::Reason,
    cluster::CallError,
    controller::{
        authorities::Authorities,
        gather::{self, Sources, Subject},
        memory::Memory,
        others::Others,
        reading::Reading,
    },
    decide::{
        backoff,
        contenders::Claim,
        facts::{Facts, Refusal},
        ownership::Named,
        plan::{Inspect, Plan},
        requests::{Blocked, Outcome},
    },
    oauth::failure::Failure,
    observe::index::Key,
};

use crate::{act::Minted, faults::Faults, judge::Judge, process::Process, rules::Rules, world::World};

/// As in `controller::reconcile`.
pub const STEPS_MAX: usize = 12;
pub const AWAIT_AUTHORITY: TimeDelta = TimeDelta::seconds(5);
const LOOK_AGAIN_FLOOR: TimeDelta = TimeDelta::milliseconds(10);
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
    fn writers(&self, _: &Key) -> Vec<Claim> {
        Vec::new()
    }

    fn readers(&self, _: &Key) -> Vec<Claim> {
        Vec::new()
    }

    fn living(&self, _: &str) -> Option<Named> {
        None
    }
}

/// One look.
pub struct Look<'a> {
    pub world: &'a mut World,
    pub process: &'a mut Process,
    pub judge: &'a mut Judge,
    pub faults: &'a mut Faults,
    pub rules: &'a Rules,
    /// An empty list: what a process knows of the authority is [`Process::authority`].
    pub authorities: &'a Authorities,
    pub subject: Subject<'a>,
    pub memory: Memory,
    pub reading: Reading,
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
pub fn look(
    world: &mut World,
    process: &mut Process,
    judge: &mut Judge,
    faults: &mut Faults,
    (rules, authorities, aloud): (&Rules, &Authorities, bool),
) -> bool {
    let by_timer = !process.woken;
    process.woken = false;
    let credential = process.credential.clone();
    let memory = process.memory.take().unwrap_or_else(|| Memory::recall(&credential, world.clock()));
    let subject = Subject::new(&credential);
    let (began, faults_before) = (world.now, faults.count);
    let mut look = Look {
        world,
        process,
        judge,
        faults,
        rules,
        authorities,
        subject,
        memory,
        reading: Reading::default(),
        client_content: String::new(),
        admitted: false,
        waits: false,
        aloud,
    };
    let wait = match look.run() {
        Ok(wait) => {
            look.memory.api_failures = 0;
            wait
        }
        Err(Halt::Error(_)) => look.after_error(),
        Err(Halt::Killed) => return false,
    };
    look.leave_queue();
    let Look { memory, .. } = look;
    let undisturbed = faults.count == faults_before;
    judge.looked(world, process, &memory, (began, by_timer, undisturbed), wait);
    process.memory = Some(memory);
    process.sleep(world.now, wait);
    true
}

impl Look<'_> {
    fn run(&mut self) -> Result<TimeDelta, Halt> {
        if !self.process.watches_secrets {
            self.process.index.doubt(&self.subject.target);
            self.process.index.doubt(&self.subject.client);
            self.read_metadata(true)?;
            self.read_metadata(false)?;
        }
        let disturbed = self.faults.count;
        for _ in 0..STEPS_MAX {
            let known = self.process.known_target();
            let (facts, inputs) = self.facts();
            let plan = (self.rules.next)(&facts, self.world.clock());
            if self.aloud {
                eprintln!("        {} {plan:?}", self.world.now.format("%T%.3f"));
            }
            match plan {
                Plan::Inspect(what) => {
                    if let Err(refusal) = self.inspect(what, &facts)? {
                        self.failed(&facts, inputs, refusal.into());
                        return self.report(None, None);
                    }
                }
                Plan::Mint(_) => match self.mint(&facts, &known)? {
                    Minted::Written => {}
                    Minted::Again => self.forget_target(),
                    Minted::NotYet(wait) => return self.report(None, Some(wait)),
                    Minted::NotAdmitted => {}
                    Minted::Failed(failure) => self.failed(&facts, inputs, failure),
                },
                Plan::Repair => self.repair(&known)?,
                // the simulated credential names no workloads
                Plan::Restart { .. } => unreachable!("nothing to restart"),
                Plan::Refuse(refusal) => self.failed(&facts, inputs, refusal.into()),
                Plan::Keep { renew_at } => {
                    if renew_at.is_some() {
                        self.memory.unwritten = None;
                        self.memory.unfulfilled_request = None;
                        if let Some(request) = self.subject.renew_annotation() {
                            self.memory.attempts.renew_request = Some(request.clone());
                        }
                        self.nothing_is_wrong();
                    }
                    return self.report(renew_at, None);
                }
                Plan::BackOff { until } => return self.report(Some(until), None),
                Plan::AwaitAdmission => match self.await_admission(&facts, inputs) {
                    Ok(None) => self.admitted = true,
                    Ok(Some(wait)) => {
                        self.waits = true;
                        return self.report(None, Some(wait));
                    }
                    Err(refusal) => {
                        let reported = self.judge.paused.take();
                        self.failed(&facts, inputs, refusal.into());
                        self.judge.paused = reported;
                        self.memory.failed_by_others = true;
                    }
                },
                Plan::AwaitAuthority => return self.report(None, Some(AWAIT_AUTHORITY)),
            }
        }
        if self.faults.count == disturbed {
            self.judge.blame("(6) a look that nobody disturbed does not end");
        }
        let (facts, inputs) = self.facts();
        self.failed(&facts, inputs, Refusal::new(Reason::SecretConflict, "again and again").into());
        self.report(self.memory.not_before, None)
    }

    fn after_error(&mut self) -> TimeDelta {
        self.memory.api_failures += 1;
        let failures = self.memory.api_failures;
        let wait = backoff::delay(failures, TimeDelta::zero(), Reason::ServerError, None, &self.subject.uid);
        wait.min(API_RETRY_CEILING).max(LOOK_AGAIN_FLOOR)
    }

    /// The facts as `gather` makes them, with what this process knows of the authority put in: it moves the inputs of
    /// an attempt too, so that a back-off ends when the authority changed.
    pub fn facts(&self) -> (Facts, u32) {
        let process = &self.process;
        let now = self.world.clock();
        let sources = Sources {
            index: &process.index,
            others: &Alone,
            authorities: self.authorities,
            is_admitted: self.admitted,
        };
        let (mut facts, inputs) = gather::facts(&self.subject, &self.memory, &self.reading, &sources, now);
        facts.authority = process.authority.clone();
        let is_another = process.failed_epoch.is_some_and(|epoch| epoch != process.epoch);
        if is_another {
            facts.history.not_before = None;
        }
        (facts, inputs)
    }

    /// Has the request wait, as `controller::turn` does. `None` where it is admitted at once, else when to look again.
    fn await_admission(&mut self, facts: &Facts, inputs: u32) -> Result<Option<TimeDelta>, Refusal> {
        if self.faults.limited() {
            return Ok(Some(TimeDelta::seconds(3)));
        }
        let request = gather::request(&self.subject, &self.memory, facts, &self.process.index);
        let (requester, now) = (request.requester.clone(), self.process.time(self.world));
        self.process.queue.enqueue((), request, now);
        if let Some(blocked) = self.process.queue.blocked(&requester, now.monotonic) {
            let refusal = match blocked {
                Blocked::Client(refusal) => refusal,
                Blocked::Server(reason) | Blocked::Paused(reason) => Refusal::new(reason, "it waits"),
            };
            let unchanged = self.memory.inputs.is_none_or(|before| before == inputs);
            if self.memory.attempts.last_failure.is_none() || !unchanged {
                let situation = (self.process.number, self.subject.uid.clone(), inputs, self.process.epoch);
                self.judge.was_paused(situation, facts.is_asked_for(now.wall));
                return Err(refusal);
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
        self.process.index.doubt(&self.subject.target);
        self.reading = Reading::default();
    }

    fn inspect(&mut self, what: Inspect, facts: &Facts) -> Result<Result<(), Refusal>, Halt> {
        let (result, reason) = match what {
            Inspect::Target => (self.read_metadata(true), Reason::SecretWriteFailed),
            Inspect::TargetData => (self.read_target(), Reason::SecretWriteFailed),
            Inspect::Client => (self.read_client(facts), Reason::ClientCredentialsNotFound),
        };
        match result {
            Err(Halt::Error(CallError::Forbidden(_))) => Ok(Err(Refusal::new(reason, "may not be read"))),
            other => other.map(Ok),
        }
    }

    pub fn nothing_is_wrong(&mut self) {
        self.memory.attempts.failures = 0;
        self.memory.attempts.last_failure = None;
        self.memory.not_before = None;
        self.memory.inputs = None;
        self.process.failed_epoch = None;
    }

    fn failed(&mut self, facts: &Facts, inputs: u32, failure: Failure) {
        let now = self.world.clock();
        let Failure { refusal, retry_after, .. } = failure;
        let attempts = &mut self.memory.attempts;
        attempts.failures = attempts.failures.saturating_add(1);
        let wait = backoff::delay(attempts.failures, facts.left(now), refusal.reason, retry_after, &facts.uid);
        if facts.is_asked_for(now) {
            self.memory.unfulfilled_request = self.subject.renew_annotation().cloned();
            attempts.renew_request.clone_from(&self.memory.unfulfilled_request);
        }
        attempts.last_failure = Some((now, refusal));
        self.memory.not_before = Some(now + (self.rules.wait)(wait));
        self.memory.inputs = Some(inputs);
        self.memory.failed_by_others = false;
        self.process.failed_epoch = Some(self.process.epoch);
        self.judge.failed(self.world.now, retry_after);
    }

    pub fn requeue(
        &self,
        now: DateTime<Utc>,
        facts: &Facts,
        next: Option<DateTime<Utc>>,
        wait: Option<TimeDelta>,
    ) -> TimeDelta {
        let again = if self.process.watches_secrets { TimeDelta::minutes(10) } else { TimeDelta::seconds(290) };
        let until_attempt = next.map(|at| at - now);
        let until_change = gather::next_change(facts, now).map(|at| at - now);
        let wait = [Some(again), wait, until_attempt, until_change].into_iter().flatten().min().unwrap_or(again);
        wait.max(LOOK_AGAIN_FLOOR)
    }
}
