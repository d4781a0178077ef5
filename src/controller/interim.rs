//! The status while a call of the credential is in flight: time passes for `Ready` although it hangs.
//!
//! A reconcile reports at its end, and a token request may take a minute. So while one is under way, what it observed
//! last is kept, and when time alone changes `Ready`, the status is written immediately; so is a failure that would wait
//! for the end of another call that hangs. The report at the end waits for that write, so that it is never overwritten by
//! it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use itwin_api::{credential::CredentialStatus, time};
use itwin_core::{
    client_expiry::{ClientExpiry, Expires},
    object::ObjectKey,
    observed::ObservedState,
    schedule,
    status::{self, Attempts},
    token::Description,
};
use tokio::{sync::Notify, time::Instant};

use super::{
    context::Context,
    registry::Currency,
    status_writer::{StatusWrite, gauges, others_since, write_status},
};
use crate::{clock::Clock, metrics::CredentialLabels};

/// The clock is read again after this, since it may have jumped.
const RECHECK: Duration = Duration::from_secs(5);
/// A failure is reported after this while the reconcile goes on: most end sooner, and report it themselves.
const UNREPORTED: Duration = Duration::from_millis(500);
/// The wait after a write that failed.
const RETRY: Duration = Duration::from_secs(1);

/// What the status is made from when time changes it.
pub(super) struct Basis {
    pub(super) key: ObjectKey,
    pub(super) uid: String,
    pub(super) generation: Option<i64>,
    /// The resourceVersion that guards conditions of others.
    pub(super) resource_version: Option<String>,
    pub(super) authority: String,
    pub(super) secret: String,
    pub(super) observed: ObservedState,
    pub(super) attempts: Attempts,
    pub(super) description: Description,
    pub(super) previous: CredentialStatus,
    pub(super) failures: u32,
    pub(super) client_secret: String,
    /// The key that says when the client's credentials expire.
    pub(super) client_expires_key: String,
    pub(super) client_expires: Option<Expires>,
}

impl Basis {
    /// Takes over what others wrote into the conditions since, and the version that guards it.
    fn follow(&mut self, context: &Context) {
        if let Some((others, version)) = others_since(context, &self.key, &self.uid, self.resource_version.as_deref()) {
            status::replace_others(&mut self.previous.conditions, others);
            self.resource_version = version;
        }
    }
}

/// The status while a reconcile is under way.
#[derive(Default)]
pub(super) struct Interim {
    due: Mutex<Due>,
    /// Locked while a status is written.
    written: tokio::sync::Mutex<Written>,
    changed: Notify,
}

/// What was observed last.
#[derive(Default)]
struct Due {
    /// It, if the status will be written.
    next: Option<Next>,
    /// How often it was set.
    count: u64,
}

/// A status that will be written.
struct Next {
    basis: Basis,
    /// When time changes `Ready`.
    changes_at: Option<DateTime<Utc>>,
    /// When it is written in any case.
    news_at: Option<Instant>,
}

impl Next {
    fn new(basis: Basis, news_at: Option<Instant>, now: DateTime<Utc>) -> Option<Self> {
        let changes_at = schedule::next_ready_change(&basis.observed, now);
        (changes_at.is_some() || news_at.is_some()).then_some(Self { basis, changes_at, news_at })
    }

    fn wait(&self, clock: &Clock) -> Duration {
        let until_change = self.changes_at.map(|at| (at - clock.now()).to_std().unwrap_or_default());
        let until_news = self.news_at.map(|at| at.saturating_duration_since(clock.monotonic()));
        // the machine may sleep meanwhile, or its clock be set
        [until_change, until_news].into_iter().flatten().fold(RECHECK, Duration::min)
    }

    fn is_due(&self, clock: &Clock) -> bool {
        self.changes_at.is_some_and(|at| at <= clock.now()) || self.news_at.is_some_and(|at| at <= clock.monotonic())
    }
}

/// What was written.
#[derive(Default)]
pub(super) struct Written {
    /// A write was begun, and whether it reached the API server is not known.
    pub(super) is_uncertain: bool,
    /// The last status, with the resourceVersion that the object then had.
    pub(super) last: Option<(u64, CredentialStatus)>,
}

impl Interim {
    /// Replaces what was observed last; time changes nothing of it where there is no `basis`, and nothing of it is
    /// unreported unless `has_news`.
    pub(super) fn set(&self, basis: Option<Basis>, has_news: bool, clock: &Clock) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let news_at = has_news.then(|| clock.monotonic() + UNREPORTED);
        let next = basis.and_then(|basis| Next::new(basis, news_at, clock.now()));
        let is_same = next.is_none() && due.next.is_none();
        *due = Due { next, count: due.count.wrapping_add(1) };
        drop(due);
        if !is_same {
            self.changed.notify_one();
        }
    }

    /// Waits for a write that is under way, and says what was written since the last time.
    pub(super) async fn take_written(&self) -> Written {
        std::mem::take(&mut *self.written.lock().await)
    }

    /// The same unless a write is under way.
    pub(super) fn try_take_written(&self) -> Written {
        self.written.try_lock().map(|mut written| std::mem::take(&mut *written)).unwrap_or_default()
    }

    /// Writes the status whenever time changes `Ready`. Never ends.
    pub(super) async fn follow(&self, context: &Context) -> std::convert::Infallible {
        loop {
            let wait = self.wait(&context.clock);
            let due = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.changed.notified() => {}
                () = due => self.write(context).await,
            }
        }
    }

    fn wait(&self, clock: &Clock) -> Option<Duration> {
        let due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        due.next.as_ref().map(|next| next.wait(clock))
    }

    async fn write(&self, context: &Context) {
        let mut written = self.written.lock().await;
        let now = context.clock.now();
        let (mut basis, count) = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            match due.next.take_if(|next| next.is_due(&context.clock)) {
                Some(next) => (next.basis, due.count),
                None => return,
            }
        };
        // where the spec was changed since, the status is about the one before, and says so
        if context.namespaces.currency(&basis.key, &basis.uid, basis.generation) == Currency::Gone {
            return;
        }
        basis.follow(context);
        let renew_at = basis.previous.renew_at.as_deref().and_then(time::from_rfc3339);
        let status = status::status(&status::Inputs {
            observed: &basis.observed,
            attempts: &basis.attempts,
            description: &basis.description,
            secret: &basis.secret,
            generation: basis.generation,
            renew_at,
            previous: &basis.previous,
            waits_for: None,
            client_expiry: basis.client_expires.map(|expires| ClientExpiry {
                secret: &basis.client_secret,
                key: &basis.client_expires_key,
                expires,
            }),
            deletion: None,
            now,
        });
        let labels = CredentialLabels {
            namespace: &basis.key.namespace,
            name: &basis.key.name,
            uid: &basis.uid,
            authority: &basis.authority,
        };
        if !basis.observed.history.is_known_absent {
            context.metrics.credential(labels, gauges(&basis.observed, &status, renew_at, basis.failures, false));
        }
        let mut again_at = None;
        if status != basis.previous {
            written.is_uncertain = true;
            let write = StatusWrite {
                key: &basis.key,
                uid: &basis.uid,
                status: &status,
                resource_version: basis.resource_version.clone(),
            };
            match write_status(&context.cluster, write).await {
                Ok(version) => {
                    basis.resource_version = Some(version.to_string());
                    basis.previous = status.clone();
                    *written = Written { is_uncertain: false, last: Some((version, status)) };
                }
                Err(error) => {
                    tracing::warn!(credential = %basis.key, %error, "a status could not be written");
                    again_at = Some(context.clock.monotonic() + RETRY);
                }
            }
        }
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        // unless the reconcile has observed something else meanwhile
        if due.count == count {
            due.next = Next::new(basis, again_at, now);
        }
    }
}
