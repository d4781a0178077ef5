//! The responses of watches, event by event: what is swallowed, repeated, injected or held back.

use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    call::Call,
    fault::{Played, status_body},
    server::{Answer, Broken, streamed},
};

/// What happens to an open watch.
#[derive(Clone, Debug)]
pub(super) enum Injection {
    /// One more line.
    Line(Bytes),
    /// A last line, and the end of the response.
    Last(Bytes),
    /// No more events, while the connection stays open.
    Freeze,
}

/// An open watch.
struct Open {
    kind: String,
    injections: mpsc::Sender<Injection>,
}

/// An event that must not be forwarded.
struct Swallowed {
    kind: String,
    event: &'static str,
    object: String,
    played: Played,
}

/// An event that was forwarded.
struct Past {
    kind: String,
    object: String,
    line: Bytes,
}

/// All watches, and the events that they sent.
#[derive(Default)]
pub(super) struct Streams(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    open: Vec<Open>,
    swallowed: Vec<Swallowed>,
    past: Vec<Past>,
}

impl Streams {
    /// Applies this to all open watches of this kind; returns how many there are.
    pub fn inject(&self, kind: &str, injection: &Injection) -> usize {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.open.retain(|open| !open.injections.is_closed());
        inner
            .open
            .iter()
            .filter(|open| open.kind == kind && open.injections.try_send(injection.clone()).is_ok())
            .count()
    }

    /// The first event of an object that watches of this kind sent.
    pub fn first_event(&self, kind: &str, object: &str) -> Option<Bytes> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.past.iter().find(|past| past.kind == kind && past.object == object).map(|past| past.line.clone())
    }

    /// Drops the next event of this type about this object.
    pub fn swallow(&self, kind: &str, event: &'static str, object: &str) -> Played {
        let played = Played(Arc::default());
        let swallowed = Swallowed { kind: kind.to_owned(), event, object: object.to_owned(), played: played.clone() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).swallowed.push(swallowed);
        played
    }

    fn opened(&self, kind: &str) -> mpsc::Receiver<Injection> {
        let (injections, receiver) = mpsc::channel(16);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).open.push(Open { kind: kind.to_owned(), injections });
        receiver
    }

    /// Whether this event may be forwarded.
    fn passes(&self, call: &Call, line: &Bytes) -> bool {
        let event: Value = serde_json::from_slice(line).unwrap_or_default();
        let object = event["object"]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = inner
            .swallowed
            .iter()
            .position(|rule| rule.kind == call.kind && event["type"] == rule.event && rule.object == object);
        if let Some(found) = found {
            inner.swallowed.swap_remove(found).played.0.count();
            return false;
        }
        inner.past.push(Past { kind: call.kind.clone(), object, line: line.clone() });
        true
    }
}

/// The event by which the API server ends a watch whose version is too old.
pub(super) fn gone(call: &Call) -> Bytes {
    Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": status_body(410, call)})))
}

/// Forwards the response of a watch. `reset` closes the connection in the middle of the first event.
pub(super) fn pass(streams: Arc<Streams>, call: Call, mut upstream: reqwest::Response, reset: bool) -> Answer {
    let (sender, body) = streamed();
    let mut injections = streams.opened(&call.kind);
    tokio::spawn(async move {
        let mut unfinished = Vec::new();
        loop {
            tokio::select! {
                // what was injected comes before later events, even if this thread is late
                biased;
                // the operator disconnected
                () = sender.closed() => return,
                Some(injection) = injections.recv() => match injection {
                    Injection::Line(line) => drop(sender.send(Ok(line)).await),
                    Injection::Last(line) => return drop(sender.send(Ok(line)).await),
                    Injection::Freeze => return sender.closed().await,
                },
                chunk = upstream.chunk() => match chunk {
                    Ok(Some(chunk)) => unfinished.extend_from_slice(&chunk),
                    Ok(None) => return,
                    Err(_) => return drop(sender.send(Err(Broken)).await),
                },
            }
            while let Some(end) = unfinished.iter().position(|byte| *byte == b'\n') {
                let line: Bytes = unfinished.drain(..=end).collect::<Vec<u8>>().into();
                if reset {
                    let _ = sender.send(Ok(line.slice(..line.len() / 2))).await;
                    return drop(sender.send(Err(Broken)).await);
                }
                if streams.passes(&call, &line) {
                    let _ = sender.send(Ok(line)).await;
                }
            }
        }
    });
    body
}
