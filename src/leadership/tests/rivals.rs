//! Three replicas, one Lease, and whatever can happen to their calls and processes: never do two fences hold, and a
//! replica that is not disturbed leads within 20 s.
//!
//! One thing is ruled out, since an object that is gone guards nothing (docs/decisions/0013): a Lease is deleted only when
//! all replicas have read it, and no replica starts in the 12 s after that while it is missing.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use itwin_core::election::Loss;
use proptest::prelude::*;
use serde_json::Value;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    Elector, LEASE, LeadershipFence, elector, metrics,
    server::{Fault, Server},
};
use crate::{clock::Clock, metrics::Metrics};

const REPLICAS: usize = 3;
/// How often it is asked whether two fences hold.
const TICK: Duration = Duration::from_millis(20);
/// The contract: someone leads after this.
const FAILOVER: Duration = Duration::from_secs(20);
/// The longest time that a call takes to be carried out: longer than its deadline.
const LATEST: Duration = Duration::from_secs(7);

#[derive(Clone, Debug)]
enum Event {
    /// Nothing, for some milliseconds.
    Pass(u64),
    /// A process does not run for some milliseconds.
    Pause(usize, u64),
    Kill(usize),
    Stop(usize),
    Delete,
    Annotate,
}

fn event() -> impl Strategy<Value = Event> {
    let replica = 0..REPLICAS;
    prop_oneof![
        8 => (0_u64..15_000).prop_map(Event::Pass),
        3 => (replica.clone(), 0_u64..25_000).prop_map(|(replica, length)| Event::Pause(replica, length)),
        2 => replica.clone().prop_map(Event::Kill),
        1 => replica.prop_map(Event::Stop),
        1 => Just(Event::Delete),
        1 => Just(Event::Annotate),
    ]
}

/// A future that is not polled while its process is paused.
struct Process {
    inner: BoxFuture<'static, Loss>,
    paused_until: Arc<Mutex<Instant>>,
    sleep: Pin<Box<Sleep>>,
}

impl Future for Process {
    type Output = Loss;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Loss> {
        let until = *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        while Instant::now() < until {
            // the pause may be cut short
            self.sleep.as_mut().reset(until.min(Instant::now() + TICK));
            if self.sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        self.inner.poll_unpin(context)
    }
}

struct Replica {
    elector: Option<Elector>,
    fence: LeadershipFence,
    paused_until: Arc<Mutex<Instant>>,
    /// The uid of the Lease that it read last.
    read: Arc<Mutex<Value>>,
}

struct Rivals {
    server: Server,
    metrics: Arc<Metrics>,
    replicas: Vec<Replica>,
    /// Of processes that ended: what they observed last still counts.
    old_fences: Vec<LeadershipFence>,
    seed: u64,
    is_quiet: Arc<AtomicBool>,
    started: u64,
}

/// What happens to the call of this number: half of them are as they should be.
fn fault(seed: u64, number: u64) -> Fault {
    let mixed = (seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = mixed ^ (mixed >> 31);
    let delay = |most: u64| Duration::from_millis((mixed >> 8) % most);
    match mixed % 20 {
        0..10 => Fault::NONE,
        10..13 => Fault { before: delay(2_500), ..Fault::NONE },
        13..15 => Fault { before: delay(u64::try_from(LATEST.as_millis()).unwrap_or(1)), ..Fault::NONE },
        15..17 => Fault { after: Some(delay(4_000)), ..Fault::NONE },
        17..19 => Fault { after: None, ..Fault::NONE },
        _ => Fault { refused: Some(500), ..Fault::NONE },
    }
}

impl Rivals {
    fn new(seed: u64) -> Self {
        let mut rivals = Self {
            server: Server::default(),
            metrics: metrics(),
            replicas: Vec::new(),
            old_fences: Vec::new(),
            seed,
            is_quiet: Arc::new(AtomicBool::new(false)),
            started: 0,
        };
        rivals.replicas = (0..REPLICAS).map(|_| rivals.start()).collect();
        rivals
    }

    fn start(&mut self) -> Replica {
        self.started += 1;
        let identity = format!("replica-{}", self.started);
        let (fence, read) = (elector::fence(Clock::system()), Arc::new(Mutex::new(Value::Null)));
        let (seed, is_quiet) = (self.seed.rotate_left(7) ^ self.started, self.is_quiet.clone());
        let number = AtomicU64::new(0);
        let faults = move |_: &str| {
            let number = number.fetch_add(1, Ordering::SeqCst);
            if is_quiet.load(Ordering::SeqCst) { Fault::NONE } else { fault(seed, number) }
        };
        let client = self.server.client(read.clone(), faults);
        let paused_until = Arc::new(Mutex::new(Instant::now()));
        let (paused, sleep) = (paused_until.clone(), Box::pin(sleep_until(Instant::now())));
        let elector = Elector::start_within(client, &identity, fence.clone(), self.metrics.clone(), |inner| {
            tokio::spawn(Process { inner, paused_until: paused, sleep })
        });
        Replica { elector: Some(elector), fence, paused_until, read }
    }

    fn holding(&self) -> usize {
        let fences = self.replicas.iter().map(|replica| &replica.fence).chain(&self.old_fences);
        fences.filter(|fence| fence.holds()).count()
    }

    /// Lets time pass; each process that ended is started again.
    async fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            assert!(self.holding() <= 1, "{} fences hold", self.holding());
            (0..REPLICAS).for_each(|number| self.restart(number));
            tokio::time::sleep(TICK).await;
        }
    }

    fn restart(&mut self, number: usize) {
        let has_ended = self.replicas[number].elector.as_ref().is_none_or(Elector::has_ended);
        if has_ended && self.server.missing_for().is_none_or(|time| time > LEASE) {
            let fresh = self.start();
            let old = std::mem::replace(&mut self.replicas[number], fresh);
            self.old_fences.push(old.fence);
        }
    }

    async fn play(&mut self, event: &Event) {
        match *event {
            Event::Pass(time) => self.pass(Duration::from_millis(time)).await,
            Event::Pause(replica, time) => {
                let until = Instant::now() + Duration::from_millis(time);
                *self.replicas[replica].paused_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
            }
            Event::Kill(replica) => drop(self.replicas[replica].elector.take()),
            Event::Stop(replica) => {
                if let Some(elector) = self.replicas[replica].elector.take() {
                    tokio::spawn(elector.step_down());
                }
            }
            Event::Delete if self.all_have_read() => self.server.delete(),
            Event::Delete => {}
            Event::Annotate => self.server.annotate(),
        }
    }

    fn all_have_read(&self) -> bool {
        let uid = self.server.uid();
        self.replicas.iter().all(|replica| *replica.read.lock().unwrap_or_else(PoisonError::into_inner) == uid)
    }

    /// All but one are gone, and nothing disturbs that one any more.
    async fn leave_in_peace(&mut self, survivor: usize) {
        self.is_quiet.store(true, Ordering::SeqCst);
        for replica in &self.replicas {
            *replica.paused_until.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
        // what is still on its way arrives
        self.pass(LATEST + LATEST).await;
        for number in (0..REPLICAS).filter(|number| *number != survivor) {
            self.replicas[number].elector = None;
        }
        let until = Instant::now() + FAILOVER;
        while Instant::now() < until && !self.replicas[survivor].fence.holds() {
            assert!(self.holding() <= 1, "two fences hold");
            self.restart(survivor);
            tokio::time::sleep(TICK).await;
        }
        assert!(self.replicas[survivor].fence.holds(), "no one leads after {FAILOVER:?}: {}", self.server.spec());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn never_do_two_fences_hold_and_failover_takes_twenty_seconds(
        seed in any::<u64>(),
        events in proptest::collection::vec(event(), 1..40),
        survivor in 0..REPLICAS,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        runtime.block_on(async {
            let mut rivals = Rivals::new(seed);
            for event in &events {
                rivals.play(event).await;
            }
            rivals.leave_in_peace(survivor).await;
        });
    }
}
