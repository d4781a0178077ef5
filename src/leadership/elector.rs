//! A replica that stands for election: the durations of the election, and the task that carries out what it decides.

mod deadlines;
mod election_loop;

use std::time::Duration;

use itwin_api::MANAGER;
use itwin_core::election::{Election, Loss, Timing};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};

use self::{deadlines::Deadlines, election_loop::Loop};
use super::{fence::LeadershipFence, lease::LeaseApi, lease_watch::LeaseWatch};
use crate::clock::Clock;

/// A leader that was not heard of for this long is replaced. The contract gives 20 s until the next one has written, on
/// a busy machine too.
const LEASE: Duration = Duration::from_secs(12);
/// A leader that could not renew for this long steps down: as long as its last renewal lets it write, so that an API server
/// that is away for 6 s ends no leader, wherever between two renewals that begins.
const RENEW_WITHIN: Duration = Duration::from_secs(10);
/// The time between renewals. A standby watches them; it reads where it is shown none for a little longer.
const PERIOD: Duration = Duration::from_secs(3);
/// The time after which a call of a leader that failed is made again.
const RETRY: Duration = Duration::from_secs(1);
/// The longest time for giving up the Lease: the release, after a read where a renewal was under way.
const STEP_DOWN: Duration = Duration::from_secs(3);
/// How long one renewal lets the process write, counted from when it was sent: less than the Lease by what the monotonic
/// clocks of two nodes may diverge meanwhile.
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
            deadlines: Deadlines::default(),
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
