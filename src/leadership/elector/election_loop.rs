//! The loop of the election: it reads, watches and renews the Lease as the election decides, and prolongs the fence.

use itwin_core::election::{Action, Change, Election, Loss, Write};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::deadlines::Deadlines;
use crate::leadership::{
    fence::LeadershipFence,
    lease::{LeaseApi, LeaseError, News},
    lease_watch::LeaseWatch,
};

/// What runs the election.
pub(super) struct Loop {
    pub(super) election: Election,
    pub(super) lease: LeaseApi,
    pub(super) fence: LeadershipFence,
    pub(super) leads: watch::Sender<bool>,
    pub(super) stopped: watch::Receiver<bool>,
    /// Shows the Lease to a standby.
    pub(super) watch: LeaseWatch,
    /// The holder that was last logged.
    pub(super) holder: Option<String>,
    /// The last call failed, which was logged.
    pub(super) is_failing: bool,
    /// How long calls may take.
    pub(super) deadlines: Deadlines,
}

impl Loop {
    pub(super) async fn run(mut self) -> Loss {
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
        let end = self.election.read_deadline().map(Instant::from_std);
        let deadline = earlier(sent + self.deadlines.of_read(self.election.leads()), end);
        let answer = self.lease.read(deadline).await;
        let (now, error) = (Instant::now(), answer.as_ref().err());
        self.deadlines.read_ended(now.saturating_duration_since(sent), error);
        self.log_failure("read", error);
        let now = now.into_std();
        match answer {
            Ok(lease) => {
                if lease.as_ref().map(|lease| &lease.version) != known.as_ref() {
                    self.watch.missed(lease.as_ref().map(|lease| lease.version.as_str()));
                }
                self.election.read(lease, sent.into_std(), now);
            }
            Err(_) => self.election.read_failed(sent.into_std(), now),
        }
        self.log_holder();
    }

    async fn write(&mut self, write: Write) {
        let (sent, moment) = (Instant::now(), self.fence.moment());
        let end = self.election.renew_deadline().map(Instant::from_std);
        let deadline = earlier(sent + self.deadlines.of_write(self.election.leads()), end);
        let is_renewal = write.change == Change::Renew;
        let answer = tokio::select! {
            biased;
            // whether it was made or not, a read shows a Lease to release, whose new version guards it from what comes late
            () = has_stopped(&mut self.stopped), if is_renewal => None,
            answer = self.lease.write(&write, deadline) => Some(answer),
        };
        let (ended, sent_at) = (Instant::now(), sent.into_std());
        let now = ended.into_std();
        let Some(answer) = answer else { return self.election.conflicted(sent_at, now) };
        self.deadlines.write_ended(ended.saturating_duration_since(sent), answer.as_ref().err());
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
                self.fence.renewal_answered(false);
                self.election.write_failed(sent_at, now);
            }
        }
    }

    /// Logs the first of consecutive failures: each of them is counted.
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

/// The deadline of a call, or the time after which its answer is of no use.
fn earlier(deadline: Instant, end: Option<Instant>) -> Instant {
    end.map_or(deadline, |end| deadline.min(end))
}

/// Waits until the replica is to step down.
async fn has_stopped(stopped: &mut watch::Receiver<bool>) {
    // a closed channel is that of a handle that was dropped, which aborts this
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
