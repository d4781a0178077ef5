//! The watch cache of the API server, from which a GET that names a version is answered: it is as late as watches are,
//! and shows what was there before a restore until the revision has passed that.

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use tokio::time::Instant;

use crate::{
    faults::Disturbance,
    request::{Call, Verb},
    state::State,
    status::Failure,
    store::Key,
};

/// The revision that the cache of a call's resource shows now.
#[must_use]
pub fn revision(state: &State, call: &Call, now: Instant) -> u64 {
    if let Some((revision, _)) = state.store.outlived() {
        return *revision;
    }
    // before the clock began nothing was changed
    let seen = now.checked_sub(lag(state, call)).map_or(0, |at| state.store.revision_at(at));
    seen.max(state.store.compacted())
}

/// When a cache that lags shows the version that is asked for; `None` where only a change brings it.
#[must_use]
pub fn due(state: &State, call: &Call) -> Option<Instant> {
    let asked = call.parameter("resourceVersion").parse().ok()?;
    let lag = lag(state, call);
    // one that does not lag is changed before this is asked
    state.store.reached_at(asked).filter(|_| !lag.is_zero()).map(|at| at + lag)
}

/// An object, at least as new as the version that is asked for.
///
/// # Errors
/// 400 where that is none, 504 where it has not been reached.
pub fn get(state: &State, call: &Call, key: &Key, asked: &str, now: Instant) -> Result<Option<Arc<Value>>, Failure> {
    let asked: u64 = asked
        .parse()
        .map_err(|_| Failure::bad_request(format!("Invalid value: {asked:?}: invalid resource version")))?;
    let shown = revision(state, call, now);
    if asked > shown {
        return Err(Failure::too_large_version(asked, shown));
    }
    Ok(match state.store.outlived() {
        Some((_, objects)) => objects.get(key).cloned(),
        None => state.store.get_at(key, shown),
    })
}

/// How late watches of the resource are.
fn lag(state: &State, call: &Call) -> Duration {
    let watch = Call { verb: Verb::Watch, name: String::new(), ..call.clone() };
    let lags = state.plan.of_watch(&watch).filter_map(|(_, disturbance)| match disturbance {
        Disturbance::Lag(by) => Some(by),
        _ => None,
    });
    lags.max().unwrap_or_default()
}
