//! WATCH: the events of a collection as a stream of lines, with all that can go wrong with one.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, stream};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use crate::{
    body::Broken,
    changes::Listener,
    faults::Disturbance,
    list::shown,
    object,
    request::{Call, Form},
    selector::Selector,
    server::ApiServer,
    state::State,
    status::Failure,
    store::{Change, Key},
};

/// How long a watch lasts that names no time: from this to twice this, as the API server's `--min-request-timeout`.
const DEFAULT: Duration = Duration::from_secs(1800);
/// A bookmark comes as often as this, and shortly before the end.
const BOOKMARK: Duration = Duration::from_secs(60);
/// So long before the end.
const BEFORE_END: Duration = Duration::from_secs(2);

/// An open watch.
struct Watcher {
    server: ApiServer,
    call: Call,
    /// Plural and group of what is watched.
    resource: String,
    selector: Selector,
    changed: Listener,
    lines: VecDeque<Result<Bytes, Broken>>,
    /// Everything up to this revision was shown or is not to be.
    cursor: u64,
    /// When which revision was first seen here, for events that lag.
    seen: VecDeque<(Instant, u64)>,
    bookmark: Option<Instant>,
    end: Instant,
    is_over: bool,
    /// The faults up to this one have happened.
    disturbed: u64,
    drops: usize,
}

/// Opens a watch.
///
/// # Errors
/// 400 and 422 for options that cannot be met. An event reports a version that is too old.
pub fn open(
    server: &ApiServer,
    call: &Call,
) -> Result<impl Stream<Item = Result<Bytes, Broken>> + Send + use<>, Failure> {
    let selector = Selector::new(call)?;
    let changed = server.changes();
    let watcher = server.with(|state| {
        let now = Instant::now();
        let seconds = call.parameter("timeoutSeconds").parse().ok().filter(|seconds| *seconds > 0);
        let lasts = seconds.map_or_else(
            || DEFAULT + Duration::from_secs(state.random.below(DEFAULT.as_secs() as usize) as u64),
            Duration::from_secs,
        );
        let end = now + lasts;
        let wants_bookmarks = call.is_set("allowWatchBookmarks");
        let mut watcher = Watcher {
            server: server.clone(),
            call: call.clone(),
            resource: call.resource.qualified(),
            selector,
            changed,
            lines: VecDeque::new(),
            cursor: state.store.revision(),
            seen: VecDeque::new(),
            bookmark: wants_bookmarks.then(|| next_bookmark(now, end)),
            end,
            is_over: false,
            disturbed: state.plan.installed(),
            drops: 0,
        };
        watcher.begin(state).map(|()| watcher)
    })?;
    Ok(stream::unfold(watcher, |mut watcher| async move { Some((watcher.next().await?, watcher)) }))
}

fn next_bookmark(now: Instant, end: Instant) -> Instant {
    let last = end.checked_sub(BEFORE_END).unwrap_or(now);
    let regular = now + BOOKMARK;
    // after the last one comes none
    if now >= last { end + BOOKMARK } else { regular.min(last) }
}

impl Watcher {
    fn begin(&mut self, state: &State) -> Result<(), Failure> {
        let asked = self.call.parameter("resourceVersion").to_owned();
        let version: u64 = if asked.is_empty() {
            0
        } else {
            asked
                .parse()
                .map_err(|_| Failure::bad_request(format!("Invalid value: {asked:?}: invalid resource version")))?
        };
        let sends_initial = self.call.is_set("sendInitialEvents");
        if version == 0 || sends_initial {
            for (key, object) in state.store.objects() {
                if self.is_in(key) && self.selector.matches(object) {
                    self.push("ADDED", object);
                }
            }
            if sends_initial && self.bookmark.is_some() {
                self.push_bookmark(state.store.revision(), true);
            }
            return Ok(());
        }
        if version < state.store.compacted() {
            let message = format!("too old resource version: {version} ({})", state.store.compacted());
            self.push_error(&Failure::expired(message));
            self.is_over = true;
        }
        self.cursor = version;
        Ok(())
    }

    fn is_in(&self, key: &Key) -> bool {
        key.resource == self.resource
            && self.call.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
    }

    async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            if self.is_over {
                return None;
            }
            self.changed.mark_unchanged();
            let server = self.server.clone();
            let due = server.with(|state| self.advance(state, Instant::now()));
            if !self.lines.is_empty() || self.is_over {
                continue;
            }
            tokio::select! {
                biased;
                () = self.changed.changed() => {}
                () = sleep_until(due.unwrap_or(self.end)), if due.is_some() => {}
            }
        }
    }

    /// Takes what has come up to now; returns when to do it again by itself, `None` where only a change of faults helps.
    fn advance(&mut self, state: &State, now: Instant) -> Option<Instant> {
        let mut lag = Duration::ZERO;
        let disturbances: Vec<(u64, Disturbance)> = state.plan.of_watch(&self.call).collect();
        let last = self.disturbed;
        self.disturbed = state.plan.installed();
        for (number, disturbance) in disturbances {
            match disturbance {
                Disturbance::Freeze => {
                    self.disturbed = last;
                    return None;
                }
                Disturbance::Lag(by) => lag = lag.max(by),
                once if number > last => self.disturb(once, state),
                _ => {}
            }
        }
        if self.is_over {
            return None;
        }
        if self.seen.back().is_none_or(|(_, revision)| *revision < state.store.revision()) {
            self.seen.push_back((now, state.store.revision()));
        }
        let horizon = self.horizon(lag, now);
        self.take(state, horizon);
        if now >= self.end {
            self.is_over = true;
        } else if self.bookmark.is_some_and(|at| now >= at) {
            // the API server sends none below the version that was asked for: after a restore, this one is yet to come
            if state.store.revision() >= self.cursor {
                self.push_bookmark(horizon.max(self.cursor), false);
            }
            self.bookmark = Some(next_bookmark(now, self.end));
        }
        let lagging = self.seen.front().map(|(at, _)| *at + lag);
        [Some(self.end), self.bookmark, lagging].into_iter().flatten().min()
    }

    /// The last revision that events show now.
    fn horizon(&mut self, lag: Duration, now: Instant) -> u64 {
        let mut horizon = 0;
        while let Some((_, revision)) = self.seen.front().copied().filter(|(at, _)| *at + lag <= now) {
            horizon = revision;
            self.seen.pop_front();
        }
        horizon
    }

    fn take(&mut self, state: &State, horizon: u64) {
        if horizon <= self.cursor {
            return;
        }
        if self.cursor < state.store.compacted() {
            let message = format!("too old resource version: {} ({})", self.cursor, state.store.compacted());
            self.push_error(&Failure::expired(message));
            self.is_over = true;
            return;
        }
        for change in state.store.since(self.cursor).iter().take_while(|change| change.revision <= horizon) {
            if let Some(kind) = self.kind_of(change) {
                if self.drops > 0 {
                    self.drops -= 1;
                } else {
                    self.push(kind, &change.shown(kind == "DELETED"));
                }
            }
        }
        self.cursor = horizon;
    }

    /// What a change is to those who see only what is selected.
    fn kind_of(&self, change: &Change) -> Option<&'static str> {
        if !self.is_in(&change.key) {
            return None;
        }
        let selected =
            |object: &Option<Arc<Value>>| object.as_ref().is_some_and(|object| self.selector.matches(object));
        match (selected(&change.old), selected(&change.new)) {
            (false, true) => Some("ADDED"),
            (true, true) => Some("MODIFIED"),
            (true, false) => Some("DELETED"),
            (false, false) => None,
        }
    }

    fn disturb(&mut self, disturbance: Disturbance, state: &State) {
        match disturbance {
            Disturbance::DropNext => self.drops += 1,
            Disturbance::End => self.is_over = true,
            Disturbance::Reset => {
                self.lines.push_back(Err(Broken::Closed));
                self.is_over = true;
            }
            Disturbance::Garble => self.lines.push_back(Ok(Bytes::from_static(b"{\"type\":<garbled>\n"))),
            Disturbance::Expire => {
                self.push_error(&Failure::expired("The resourceVersion for the provided watch is too old."));
                self.is_over = true;
            }
            Disturbance::Replay => self.replay(state),
            Disturbance::Lag(_) | Disturbance::Freeze => {}
        }
    }

    fn replay(&mut self, state: &State) {
        let mut older: BTreeMap<Key, Arc<Value>> = BTreeMap::new();
        let shown = state.store.since(0).iter().filter(|change| change.revision <= self.cursor);
        for change in shown.filter(|change| self.is_in(&change.key)) {
            if let Some(object) = &change.old {
                older.entry(change.key.clone()).or_insert_with(|| object.clone());
            }
        }
        for object in older.values().filter(|object| self.selector.matches(object)) {
            let line = event("MODIFIED", &shown_or_null(&self.call, object));
            self.lines.push_back(line);
        }
    }

    fn push(&mut self, kind: &str, object: &Value) {
        let line = match self.call.form {
            Form::Whole => event(kind, object),
            _ => event(kind, &shown_or_null(&self.call, object)),
        };
        self.lines.push_back(line);
    }

    fn push_bookmark(&mut self, revision: u64, ends_initial: bool) {
        let mut mark = self.call.resource.empty();
        mark["kind"] = json!(self.call.resource.kind);
        mark["apiVersion"] = json!(self.call.resource.api_version());
        object::set_meta(&mut mark, "resourceVersion", json!(revision.to_string()));
        if ends_initial {
            object::set_meta(&mut mark, "annotations", json!({"k8s.io/initial-events-end": "true"}));
        }
        self.push("BOOKMARK", &mark);
    }

    fn push_error(&mut self, failure: &Failure) {
        self.lines.push_back(event("ERROR", &failure.body()));
    }
}

fn shown_or_null(call: &Call, object: &Value) -> Value {
    shown(object, call.form).unwrap_or_default()
}

fn event(kind: &str, object: &Value) -> Result<Bytes, Broken> {
    // the type comes first, as kube-apiserver writes it: a client that decodes in one pass relies on it
    let mut line = format!("{{\"type\":\"{kind}\",\"object\":").into_bytes();
    line.extend(object::bytes(object));
    line.extend(b"}\n");
    Ok(Bytes::from(line))
}
