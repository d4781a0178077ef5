//! Carries out what the election decides: a task that reads and renews the Lease, and prolongs the fence.

use std::time::Duration;

use itwin_api::MANAGER;
use itwin_core::election::{Action, Change, Election, Loss, Timing, Write};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use super::{
    fence::LeadershipFence,
    lease::{DEADLINE, LeaseApi, LeaseError, News},
    lease_watch::LeaseWatch,
};
use crate::clock::Clock;

/// A leader that was not heard of for this long is replaced. The contract gives 20 s until the next one has written, on
/// a busy machine too.
const LEASE: Duration = Duration::from_secs(12);
/// A leader that could not renew for this long steps down: as long as its last renewal lets it write, so that an API server
/// that is away for 7 s ends no leader, wherever between two renewals that begins.
const RENEW_WITHIN: Duration = Duration::from_secs(10);
/// The time between renewals. A standby watches them; it reads where it is shown none for a little longer.
const PERIOD: Duration = Duration::from_secs(3);
/// The time after which a call of a leader that failed is made again.
const RETRY: Duration = Duration::from_secs(1);
/// The longest time for giving up the Lease: the release, after a read where a renewal was under way.
const STEP_DOWN: Duration = Duration::from_secs(3);
/// How long one renewal lets the process write, counted from when it was sent: less than the Lease by what the monotonic
/// clocks of two nodes may drift apart meanwhile.
const VALIDITY: Duration = Duration::from_secs(10);

const TIMING: Timing = Timing { lease: LEASE, renew_within: RENEW_WITHIN, period: PERIOD, retry: RETRY };

/// The fence of a process that stands for election.
#[must_use]
pub fn fence(clock: Clock) -> LeadershipFence {
    LeadershipFence::elected(VALIDITY, clock)
}

/// A replica that stands for election. The election ends, without releasing the Lease, when this is dropped.
pub struct Elector {
    task: JoinHandle<Loss>,
    leads: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
    fence: LeadershipFence,
}

impl Drop for Elector {
    fn drop(&mut self) {
        self.fence.end();
        self.task.abort();
    }
}

impl Elector {
    /// Stands for election through this Lease. `identity` is from [`identity`].
    #[must_use]
    pub fn start(lease: LeaseApi, identity: String, fence: LeadershipFence) -> Self {
        Self::spawn(lease, identity, fence, |run| tokio::spawn(run.run()))
    }

    fn spawn(
        lease: LeaseApi,
        identity: String,
        fence: LeadershipFence,
        spawn: impl FnOnce(Loop) -> JoinHandle<Loss>,
    ) -> Self {
        let (leads_sender, leads) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let election = Election::new(identity, TIMING, Instant::now().into_std());
        let fence_of_loop = fence.clone();
        let run = Loop {
            election,
            lease,
            fence: fence_of_loop,
            leads: leads_sender,
            stopped,
            watch: LeaseWatch::new(),
            holder: None,
            is_failing: false,
        };
        Self { task: spawn(run), leads, stop, fence }
    }

    /// Waits until this replica leads, however long that takes.
    ///
    /// # Errors
    /// Text, where the election itself ended.
    pub async fn elected(&mut self) -> Result<(), String> {
        let leads = self.leads.wait_for(|leads| *leads).await;
        leads.map(drop).map_err(|_| "leader election ended".to_owned())
    }

    /// Waits until this replica leads no more, and says why. Not to be called again after that.
    pub async fn lost(&mut self) -> &'static str {
        let loss = (&mut self.task).await;
        self.fence.end();
        match loss {
            Ok(Loss::HolderChanged) => "another replica holds the Lease",
            Ok(Loss::RenewDeadline) => "the Lease could not be renewed in time",
            Ok(Loss::Released) | Err(_) => "the renewal of the Lease ended",
        }
    }

    /// Gives up the Lease, so that another replica leads at once. Takes at most 3 s.
    pub async fn step_down(mut self) {
        self.fence.end();
        self.stop.send_replace(true);
        if timeout(STEP_DOWN, &mut self.task).await.is_err() {
            tracing::warn!("the Lease could not be released; it expires by itself");
        }
    }
}

/// A name that no other process has, nor this one had before its last start.
///
/// # Errors
/// Text, where the system gives no random numbers.
pub fn identity() -> Result<String, String> {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| MANAGER.to_owned());
    let mut random = [0_u8; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| "the system gives no random numbers".to_owned())?;
    Ok(format!("{host}_{}", itwin_api::digest::hex(&random)))
}

struct Loop {
    election: Election,
    lease: LeaseApi,
    fence: LeadershipFence,
    leads: watch::Sender<bool>,
    stopped: watch::Receiver<bool>,
    /// Shows the Lease to a standby.
    watch: LeaseWatch,
    /// The holder that was last logged.
    holder: Option<String>,
    /// The last call failed, which was logged.
    is_failing: bool,
}

impl Loop {
    async fn run(mut self) -> Loss {
        loop {
            if *self.stopped.borrow() {
                self.election.stop();
            }
            match self.election.next(Instant::now().into_std()) {
                Action::Read => self.read().await,
                Action::Write(write) => self.write(write).await,
                Action::Wait(until) => self.wait(Instant::from_std(until)).await,
                Action::StepDown(loss) => {
                    self.fence.end();
                    return loss;
                }
            }
        }
    }

    async fn wait(&mut self, until: Instant) {
        let already = *self.stopped.borrow();
        self.follow();
        tokio::select! {
            biased;
            () = has_stopped(&mut self.stopped), if !already => {}
            news = self.watch.next() => self.heard(news),
            () = sleep_until(until) => {}
        }
    }

    /// Has a watch show the Lease to a standby, unless it may show what was before a restore.
    fn follow(&mut self) {
        if !self.election.is_standby() || self.lease.is_behind() {
            self.watch.close();
        } else if self.watch.is_due()
            && let Some(events) = self.lease.watch()
        {
            self.watch.open(events);
        }
    }

    fn heard(&mut self, news: Option<News>) {
        let now = Instant::now();
        match news {
            Some(Ok(object)) => match self.lease.shown(object) {
                Some(lease) => {
                    self.watch.showed();
                    self.election.shown(lease, now.into_std());
                    self.log_holder();
                }
                None => self.unclear(now),
            },
            Some(Err(LeaseError::NotFound)) => self.unclear(now),
            Some(Err(error)) => {
                if self.watch.failed() {
                    tracing::warn!("the Lease cannot be watched and is read instead: {error}");
                }
            }
            None => self.watch.close(),
        }
    }

    /// What the watch showed is only understood with a read.
    fn unclear(&mut self, now: Instant) {
        self.watch.failed();
        self.election.is_unclear(now.into_std());
    }

    async fn read(&mut self) {
        let (sent, known) = (Instant::now(), self.lease.version());
        let answer = self.lease.read(self.deadline(sent)).await;
        let now = Instant::now().into_std();
        self.log_failure("read", answer.as_ref().err());
        match answer {
            Ok(lease) => {
                if lease.as_ref().map(|lease| &lease.version) != known.as_ref() {
                    self.watch.missed(lease.as_ref().map(|lease| lease.version.as_str()));
                }
                self.election.read(lease, now);
            }
            Err(_) => self.election.read_failed(sent.into_std(), now),
        }
        self.log_holder();
    }

    async fn write(&mut self, write: Write) {
        let (sent, moment) = (Instant::now(), self.fence.moment());
        let (deadline, is_renewal) = (self.deadline(sent), write.change == Change::Renew);
        let answer = tokio::select! {
            biased;
            // whether it was made or not, a read shows a Lease to release, whose new version guards it from what comes late
            () = has_stopped(&mut self.stopped), if is_renewal => None,
            answer = self.lease.write(&write, deadline) => Some(answer),
        };
        let (sent_at, now) = (sent.into_std(), Instant::now().into_std());
        let Some(answer) = answer else { return self.election.conflicted(sent_at, now) };
        match answer {
            Ok(lease) => {
                self.log_failure("written", None);
                self.election.written(lease, sent_at, now);
                if self.election.leads() {
                    moment.into_iter().for_each(|moment| self.fence.renew(moment));
                    self.leads.send_replace(true);
                }
            }
            Err(LeaseError::Conflict | LeaseError::NotFound) => {
                self.election.conflicted(sent_at, now);
            }
            Err(error) => {
                self.log_failure("written", Some(&error));
                self.election.write_failed(sent_at, now);
            }
        }
    }

    fn deadline(&self, sent: Instant) -> Instant {
        let deadline = sent + DEADLINE;
        self.election.renew_deadline().map_or(deadline, |end| deadline.min(Instant::from_std(end)))
    }

    /// Logs the first failure in a row: each of them is counted.
    fn log_failure(&mut self, what: &str, error: Option<&LeaseError>) {
        if let Some(error) = error.filter(|_| !self.is_failing) {
            tracing::warn!("the Lease could not be {what}: {error}");
        }
        self.is_failing = error.is_some();
    }

    fn log_holder(&mut self) {
        if self.holder.as_deref() != self.election.holder() {
            self.holder = self.election.holder().map(str::to_owned);
            tracing::info!(holder = ?self.holder, "the holder of the Lease changed");
        }
    }
}

/// Waits until the replica is to step down.
async fn has_stopped(stopped: &mut watch::Receiver<bool>) {
    // a closed channel is that of a handle that was dropped, which aborts this
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

#[cfg(test)]
impl Elector {
    /// The same with a process around it that can be paused.
    pub(super) fn start_within(
        client: kube::Client,
        identity: &str,
        fence: LeadershipFence,
        metrics: std::sync::Arc<crate::metrics::Metrics>,
        process: impl FnOnce(futures::future::BoxFuture<'static, Loss>) -> JoinHandle<Loss>,
    ) -> Self {
        Self::spawn(LeaseApi::of(client, metrics), identity.to_owned(), fence, |run| process(Box::pin(run.run())))
    }

    pub(super) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }
}

#[cfg(test)]
mod tests;
