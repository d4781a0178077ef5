//! `timeline`: a token's time, drawn to scale, with the last failures.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::common;
use crate::{
    output::{self, Form, Structured},
    problem::{Outcome, Problem},
    session::{Session, path},
    timeline::{Event, Timeline},
    view::View,
};

/// Draws the timeline of a credential.
///
/// # Errors
/// Why it could not be read.
pub async fn run(session: &Session, name: &str, form: Form) -> Result<Outcome, Problem> {
    let credential = common::credential(session, name).await?;
    let view = View::new(&credential, session.now());
    let is_danger = view.state.is_danger();
    let timeline = Timeline::new(view, events(session, credential.metadata.uid.as_deref().unwrap_or_default()).await);
    match form {
        Form::Json | Form::Yaml => timeline.print(form)?,
        Form::Table | Form::Wide => output::print(&timeline.render(session.now(), output::is_colored())),
    }
    Ok(Outcome::found(is_danger))
}

/// The events about an object, or why they could not be read.
async fn events(session: &Session, uid: &str) -> Result<Vec<Event>, String> {
    let path = path::namespaced("apis/events.k8s.io/v1", Some(&session.namespace), "events");
    let selector = format!("regarding.uid={uid}");
    let events: Vec<Value> =
        session.list(&path, &[("fieldSelector", &selector)]).await.map_err(|error| error.to_string())?;
    Ok(events.iter().map(event).collect())
}

fn event(value: &Value) -> Event {
    let time = [&value["series"]["lastObservedTime"], &value["eventTime"], &value["deprecatedLastTimestamp"]]
        .into_iter()
        .find_map(|time| time.as_str())
        .and_then(|time| DateTime::parse_from_rfc3339(time).ok())
        .map(|time| time.with_timezone(&Utc));
    let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let count = value["series"]["count"].as_i64().or_else(|| value["deprecatedCount"].as_i64()).unwrap_or(1);
    Event { time, reason: text("reason"), note: text("note"), count: count.max(1) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn event_is_read_in_its_forms() {
        let read = event(&json!({"eventTime": "2026-11-24T19:00:00.123456Z", "reason": "Issued", "note": "n"}));
        assert_eq!((read.time.map(|time| time.timestamp()), read.count), (Some(1_795_546_800), 1));
        let series = json!({"series": {"lastObservedTime": "2026-11-24T19:00:01Z", "count": 7}, "eventTime": null});
        assert_eq!((event(&series).time.map(|time| time.timestamp()), event(&series).count), (Some(1_795_546_801), 7));
        assert_eq!(event(&json!({"series": {"count": -5}})).count, 1);
        assert_eq!(event(&Value::Null).time, None);
    }
}
