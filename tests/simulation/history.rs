//! One history: what happens, one thing after another, and how it ends once the faults have stopped.

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{conditions::RENEWED, secret_keys};
use itwin_core::{observed::Policy, status};
use itwin_credential_operator::{controller::authorities::Authorities, observe::target::SecretMetadata};
use kube::ResourceExt;

use crate::{
    authority::{Authority, Fault, Presence},
    events::{Edit, LIFETIMES, Trouble},
    faults::Faults,
    judge::{Judge, belongs_to, earliest_renewal},
    process::Process,
    random::Random,
    reconcile::reconcile,
    rules::Rules,
    world::World,
};

/// Looks that one wait may need; more is a hot loop.
const RECONCILES_MAX: usize = 20_000;
/// After the faults stop: one back-off ceiling, what the looks themselves take, and the step of a clock by which a token
/// may seem to live longer than the next one.
const MENDED_WITHIN: TimeDelta = TimeDelta::minutes(6 + 5 + 10);
/// The same where the server had asked to wait absurdly long: an hour is obeyed.
const MENDED_AFTER_ABSURD_WAIT: TimeDelta = TimeDelta::minutes(60 + 6);

/// How a history is played.
#[derive(Clone, Copy)]
pub struct Manner<'a> {
    pub rules: &'a Rules,
    pub authorities: &'a Authorities,
    pub events: usize,
    pub faults: bool,
    /// Tell every event.
    pub aloud: bool,
}

/// What can be seen of a history's end.
#[derive(Debug, PartialEq, Eq)]
pub struct End {
    pub is_foreign: bool,
    pub is_suspended: bool,
    pub has_token: bool,
    pub request_served: Option<String>,
}

/// One history under way.
pub struct History<'a> {
    pub world: World,
    pub processes: Vec<Process>,
    pub judge: Judge,
    pub edits: Random,
    pub faults: Faults,
    pub lags: bool,
    /// Outages that lasted from before a renewal was due until the token's end.
    pub outages: usize,
    manner: Manner<'a>,
    started: usize,
    watches_secrets: bool,
}

impl<'a> History<'a> {
    pub fn new(seed: u64, manner: Manner<'a>) -> Self {
        let mut edits = Random::new(seed);
        let authority = Authority {
            presence: Presence::Ready,
            issuer: "https://ims-0".to_owned(),
            jwt: edits.chance(70),
            lifetime: TimeDelta::seconds(*edits.pick(&LIFETIMES)),
            fault: None,
            revision: 0,
        };
        let faults = Faults::new(Random::new(edits.next()));
        let watches_secrets = edits.chance(90);
        let mut history = Self {
            world: World::new(authority),
            processes: Vec::new(),
            judge: Judge::default(),
            edits,
            faults,
            lags: false,
            outages: 0,
            manner,
            started: 0,
            watches_secrets,
        };
        history.start();
        history
    }

    /// Plays all of it. The judge of `self` knows what went wrong.
    pub fn play(&mut self) -> Option<End> {
        for number in 0..self.manner.events {
            let edit = Edit::any(&mut self.edits);
            self.report(number, &edit);
            self.edit(edit);
            if self.manner.faults && self.faults.random.chance(30) {
                let trouble = Trouble::any(&mut self.faults.random);
                self.report(number, &trouble);
                self.trouble(trouble);
            }
            self.pass(TimeDelta::milliseconds(1));
            if self.judge.violation.is_some() {
                return None;
            }
        }
        self.end()
    }

    fn report(&self, number: usize, event: &dyn std::fmt::Debug) {
        if self.manner.aloud {
            let held = self.world.valid_token().map(|token| token.expires_at.timestamp());
            eprintln!("{number} {} {event:?} valid until {held:?}", self.world.now.format("%d %T%.3f"));
        }
    }

    fn start(&mut self) {
        self.started += 1;
        self.processes.push(Process::start(self.started, self.watches_secrets, &self.world));
    }

    /// All processes end, and one begins some seconds later.
    pub fn restart(&mut self) {
        self.processes.clear();
        self.world.now += TimeDelta::milliseconds(self.faults.random.between(1000, 20_000));
        self.start();
    }

    /// The process loses its lease, and another one begins while it still believes that it leads.
    pub fn depose(&mut self) {
        self.processes.truncate(1);
        self.processes[0].deposed = true;
        self.start();
    }

    pub fn pass_to_next_reconcile(&mut self) {
        let next = self.next_reconcile();
        self.pass(next - self.world.now);
    }

    fn next_reconcile(&self) -> DateTime<Utc> {
        let reconciles = self.processes.iter().map(|process| process.next_reconcile(self.world.now));
        reconciles.min().unwrap_or(self.world.now)
    }

    /// Time passes, and every process looks when it wants to.
    pub fn pass(&mut self, time: TimeDelta) {
        let until = self.world.now + time;
        for _ in 0..RECONCILES_MAX {
            self.hear();
            let next = self.next_reconcile();
            if next > until.max(self.world.now) || self.judge.violation.is_some() {
                break;
            }
            let first = self.processes.iter().position(|process| process.next_reconcile(self.world.now) == next);
            self.world.now = next;
            self.reconcile(first.unwrap_or_default());
        }
        self.world.now = self.world.now.max(until);
    }

    fn hear(&mut self) {
        let lags = self.lags && !self.faults.random.chance(10);
        for process in self.processes.iter_mut().filter(|_| !lags) {
            process.hear_all(&self.world);
        }
    }

    fn reconcile(&mut self, number: usize) {
        let shared = (self.manner.rules, self.manner.authorities, self.manner.aloud);
        let process = &mut self.processes[number];
        let was_deposed = process.deposed;
        let survived = reconcile(&mut self.world, process, &mut self.judge, &mut self.faults, shared);
        if self.manner.aloud {
            let process = &self.processes[number];
            eprintln!(
                "    process {} looked until {}, next at {}, asked {:?}, failing {:?}",
                process.number,
                self.world.now.format("%d %T%.3f"),
                process.wake_at.format("%d %T%.3f"),
                self.judge.requests,
                process.retry_state.as_ref().and_then(|retry_state| retry_state.last_failure()).map(|why| why.reason)
            );
        }
        // it notices that its lease is gone once it has acted
        if was_deposed && (!survived || self.faults.random.chance(50)) {
            self.processes.remove(number);
        } else if !survived {
            self.restart();
        }
    }

    /// The authority fails from before the renewal is due until the token's end: three tries at least come before it.
    pub fn outage(&mut self) {
        let Some((due, end)) = self.undisturbed_token() else { return };
        if self.world.clock() >= due {
            return;
        }
        let faults =
            [Fault::ServerError, Fault::Timeout, Fault::InvalidClient, Fault::RateLimited(Some(TimeDelta::days(9)))];
        let fault = *self.faults.random.pick(&faults);
        // three timeouts of 10 s, or a restart, do not fit into less
        let is_long = end - due >= TimeDelta::minutes(1);
        if fault == Fault::Timeout && !is_long {
            return;
        }
        self.world.authority.fault = Some(fault);
        let before = self.judge.request_count();
        // one process may end and another begin on the way
        let restart_at = (is_long && self.faults.random.chance(30)).then(|| due + (end - due) / 4);
        self.pass(restart_at.unwrap_or(end) - self.world.clock());
        if restart_at.is_some() {
            self.restart();
            self.pass(end - self.world.clock());
        }
        let tries = self.judge.request_count() - before;
        self.outages += 1;
        if tries < 3 {
            self.judge.blame(format!("(5) only {tries} tries before the token expired"));
        }
    }

    /// When the token in the Secret is due and when it ends, where nothing else is going on.
    fn undisturbed_token(&mut self) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        self.lags = false;
        self.faults.end();
        self.processes.retain(|process| !process.deposed);
        self.pass(TimeDelta::seconds(1));
        let world = &self.world;
        let quiet = !world.credential.spec.suspend
            && world.authority.presence == Presence::Ready
            && self.processes.iter().all(|process| !process.lags_behind_spec(world) && is_content(process))
            && world.client_content().is_some_and(|content| !content.is_empty());
        let token = world.valid_token().filter(|_| quiet)?;
        let same_client = Some(&token.client) == world.client_content().as_ref();
        let token_metadata = SecretMetadata::new(&world.target.as_ref()?.metadata).token_metadata?;
        let long_enough = same_client && token_metadata.lifetime() >= TimeDelta::seconds(60);
        long_enough.then(|| {
            (earliest_renewal(&token_metadata, &Policy::new(&world.credential.spec)), token_metadata.expires_at)
        })
    }

    /// The faults stop; after a bounded time everything is as it should be.
    fn end(&mut self) -> Option<End> {
        self.faults.end();
        self.lags = false;
        self.world.clock_error = TimeDelta::zero();
        self.world.authority.fault = None;
        // a token of the authority's shorter ones would have to wait for the end of a longer one
        self.world.authority.lifetime = TimeDelta::seconds(LIFETIMES[LIFETIMES.len() - 1]);
        self.world.edit_authority(|authority| authority.presence = Presence::Ready);
        self.world.set_client(Some("final"));
        self.processes.retain(|process| !process.deposed);
        let paused = self.judge.asked_to_wait_until.map(|until| until - self.world.now);
        let absurd = self.judge.retry_after.max(paused).is_some_and(|wait| wait > TimeDelta::minutes(5));
        let bound = self.world.now + if absurd { MENDED_AFTER_ABSURD_WAIT } else { MENDED_WITHIN };
        self.pass(TimeDelta::seconds(1));
        self.faults.replaced |= self.is_left_for_good();
        let exempt = self.is_left_for_good() || self.world.is_foreign() || self.world.credential.spec.suspend;
        while !exempt && !self.is_fixed() && self.judge.violation.is_none() {
            if self.next_reconcile() > bound {
                self.judge.blame("(7) it is not mended in time after the faults stopped");
                break;
            }
            self.pass_to_next_reconcile();
        }
        self.pass(TimeDelta::minutes(15));
        let world = &self.world;
        let reported = world.credential.status.as_ref().filter(|_| !exempt);
        self.judge.violation.is_none().then(|| End {
            is_foreign: world.is_foreign(),
            is_suspended: world.credential.spec.suspend,
            has_token: !exempt && world.valid_token().is_some(),
            request_served: reported.and_then(|reported| reported.last_renew_request.clone()),
        })
    }

    /// A deposed process wrote the Secret for a credential that was deleted and is to leave it behind (`Retain`): it is
    /// nobody's until it is offered for adoption.
    fn is_left_for_good(&self) -> bool {
        self.world.target.as_ref().is_some_and(|target| {
            let has_owner = !target.owner_references().is_empty();
            let is_offered = target.annotations().contains_key(secret_keys::ADOPT);
            !has_owner && !is_offered && !belongs_to(target, &self.world.uid())
        })
    }

    /// The Secret is ours and holds a valid token for the spec, the status says so, and nothing is pending.
    fn is_fixed(&self) -> bool {
        let world = &self.world;
        let Some(reported) = &world.credential.status else { return false };
        let asked = world.credential.annotations().get(secret_keys::RENEW);
        world.valid_token().is_some()
            && world.target.as_ref().is_some_and(|target| belongs_to(target, &world.uid()))
            && self.processes.iter().all(is_content)
            && status::holds(&reported.conditions, RENEWED)
            && reported.consecutive_failures == 0
            && reported.observed_generation == world.credential.metadata.generation
            && asked.is_none_or(|asked| reported.last_renew_request.as_ref() == Some(asked))
    }
}

/// It wants nothing.
fn is_content(process: &Process) -> bool {
    process.retry_state.as_ref().is_some_and(|retry_state| {
        retry_state.failures() == 0 && !retry_state.has_unfulfilled_renewal() && !retry_state.is_api_failing()
    })
}
