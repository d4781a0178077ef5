//! A token's time, drawn to scale: issued, renewal, minimum validity and expiry, and where now is.

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::time;
use serde::Serialize;

use crate::{
    output::Structured,
    plain::plain,
    span::relative,
    table::{Tone, WIDTH, wrap},
    view::{Failed, View},
};

/// Characters of the bar between its ends.
const BAR: usize = 92;
/// The position of its right end; its left end is at 0.
const END: usize = BAR + 1;
/// The most events that are shown.
const EVENTS: usize = 5;

/// An event about a credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When it happened last.
    pub time: Option<DateTime<Utc>>,
    /// Its reason, such as `RenewalFailed`.
    pub reason: String,
    /// What it says.
    pub note: String,
    /// How often it happened.
    pub count: i64,
}

/// What `timeline` shows.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeline {
    /// The credential.
    #[serde(flatten)]
    pub view: View,
    /// Its last events, the newest first.
    pub events: Vec<Event>,
    /// Why there are none to show, if they could not be read.
    pub events_unknown: Option<String>,
}

impl Structured for Timeline {
    const KIND: &'static str = "Timeline";
}

impl Timeline {
    /// The timeline of a credential with its events, of which the newest are kept.
    #[must_use]
    pub fn new(view: View, events: Result<Vec<Event>, String>) -> Self {
        let (mut events, events_unknown) = match events {
            Ok(events) => (events, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        events.sort_by_key(|event| std::cmp::Reverse(event.time));
        events.truncate(EVENTS);
        Self { view, events, events_unknown }
    }

    /// The drawing.
    #[must_use]
    pub fn render(&self, now: DateTime<Utc>, is_colored: bool) -> String {
        let View { namespace, name, state, .. } = &self.view;
        let state_name = state.tone().paint(&format!("{state:?}"), is_colored);
        let mut text = format!("{}/{}   {state_name}\n\n", plain(namespace), plain(name));
        text.push_str(&self.bar(now, is_colored));
        if let Some(failure) = &self.view.last_failure {
            text.push_str(&format!("\nLast failure ({} since the last token)\n", self.view.consecutive_failures));
            text.push_str(&described(failure, now));
        }
        if let Some(message) = self.view.message.as_deref().filter(|_| state.is_danger()) {
            text.push('\n');
            text.push_str(&wrap("What to do: ", &plain(message), WIDTH));
        }
        text.push_str(&self.events(now));
        text
    }

    fn bar(&self, now: DateTime<Utc>, is_colored: bool) -> String {
        let View { issued_at: Some(issued), expires_at: Some(expires), .. } = self.view else {
            return "  The Secret holds no token.\n".to_owned();
        };
        if expires <= issued {
            return "  The status says that the token expired before it was issued.\n".to_owned();
        }
        let end = expires.max(now);
        let position = |at: DateTime<Utc>| position(at, issued, end);
        let (renews, usable) = (self.view.renew_at, self.view.usable_until);
        let (renewal, minimum, expiry) =
            (renews.map_or(END, position), usable.map_or(END, position), position(expires));
        let here = position(now);
        let segment = |at: usize| match at {
            at if at >= expiry => ('x', Tone::Bad),
            at if at >= minimum => ('.', Tone::Warning),
            at if at >= renewal => ('-', Tone::Plain),
            _ => ('=', Tone::Good),
        };
        let drawn: String = (1..END)
            .map(|at| {
                let (c, tone) = segment(at);
                tone.paint(&c.to_string(), is_colored)
            })
            .collect();
        let mut text = format!("  {}\n  {}\n", at_column(here, "now"), at_column(here, "v"));
        text.push_str(&format!("  |{drawn}|\n"));
        let named = [
            (Some(issued), 'I', "issued"),
            (renews, 'R', if renews.is_some_and(|at| at > expires) { "next attempt" } else { "renewal" }),
            (usable, 'M', "minimum validity"),
            (Some(expires), 'E', "expiry"),
        ];
        let letters = named.iter().filter_map(|(at, letter, _)| Some((position((*at)?), *letter)));
        text.push_str(&format!("  {}\n\n", marks(letters)));
        for (at, letter, what) in named {
            let when =
                at.map_or_else(|| "-".to_owned(), |at| format!("{}   {}", time::to_rfc3339(at), relative(at, now)));
            text.push_str(&format!("  {letter}   {what:<16}   {when}\n"));
        }
        text
    }

    fn events(&self, now: DateTime<Utc>) -> String {
        if let Some(why) = &self.events_unknown {
            return format!("\n{}", wrap("Events could not be read: ", &plain(why), WIDTH));
        }
        if self.events.is_empty() {
            return String::new();
        }
        let mut text = "\nLast events\n".to_owned();
        for event in &self.events {
            let when = event.time.map_or_else(|| "-".to_owned(), |at| relative(at, now));
            let times = if event.count > 1 { format!(" ({} times)", event.count) } else { String::new() };
            let first = format!("  {when:<12} ");
            text.push_str(&wrap(&first, &plain(&format!("{}{times}: {}", event.reason, event.note)), WIDTH));
        }
        text
    }
}

fn described(failure: &Failed, now: DateTime<Utc>) -> String {
    let when = failure.time.map_or_else(|| "-".to_owned(), |at| relative(at, now));
    wrap(&format!("  {when:<12} "), &plain(&format!("{}: {}", failure.reason, failure.message)), WIDTH)
}

/// The position of an instant, 0 to [`END`].
fn position(at: DateTime<Utc>, start: DateTime<Utc>, end: DateTime<Utc>) -> usize {
    let (passed, whole) = ((at - start).max(TimeDelta::zero()), (end - start).max(TimeDelta::seconds(1)));
    let part = passed.num_milliseconds() as f64 / whole.num_milliseconds() as f64;
    ((part * END as f64).round() as usize).min(END)
}

/// A text whose first character stands at a column; at the right end, its last one.
fn at_column(column: usize, text: &str) -> String {
    let length = text.chars().count();
    let start = column.min((END + 1).saturating_sub(length));
    format!("{}{text}", " ".repeat(start))
}

/// Letters at their columns, in their order: one whose column is taken stands in the next.
fn marks(letters: impl Iterator<Item = (usize, char)>) -> String {
    let mut letters: Vec<(usize, char)> = letters.collect();
    letters.sort_by_key(|(column, _)| *column);
    let mut line = String::new();
    for (column, letter) in letters {
        let length = line.chars().count();
        line.push_str(&" ".repeat(column.saturating_sub(length)));
        line.push(letter);
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::view::tests::{credential, failed, minutes, now};

    fn drawn(changes: &Value, events: Result<Vec<Event>, String>) -> String {
        Timeline::new(View::new(&credential("agent", changes), now()), events).render(now(), false)
    }

    fn event(minutes: i64, reason: &str) -> Event {
        Event { time: Some(now() + TimeDelta::minutes(minutes)), reason: reason.into(), note: "why".into(), count: 1 }
    }

    #[test]
    fn token_is_drawn_to_scale() {
        let text = drawn(&json!({}), Ok(Vec::new()));
        let expected = format!(
            "team-a/agent   Ok\n\n  {here}now\n  {here}v\n  |{good}{due}{low}|\n  I{to_r}R{to_m}M{to_e}E\n\n\
             \x20 I   issued             {issued}   10m ago\n\
             \x20 R   renewal            {renewal}   in 30m\n\
             \x20 M   minimum validity   {minimum}   in 45m\n\
             \x20 E   expiry             {expiry}   in 50m\n",
            here = " ".repeat(16),
            good = "=".repeat(61),
            due = "-".repeat(23),
            low = ".".repeat(8),
            to_r = " ".repeat(61),
            to_m = " ".repeat(22),
            to_e = " ".repeat(7),
            issued = minutes(-10),
            renewal = minutes(30),
            minimum = minutes(45),
            expiry = minutes(50),
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn token_that_has_expired_is_drawn_up_to_now() {
        let text = drawn(
            &json!({"status": {"expiresAt": minutes(-5), "usableUntil": minutes(-6), "renewAt": null}}),
            Ok(Vec::new()),
        );
        let bar = text.lines().find(|line| line.contains('|')).unwrap_or_default();
        assert_eq!(bar.matches('x').count(), 46, "{text}");
        assert!(text.contains("R   renewal            -\n"), "{text}");
        assert!(text.lines().nth(2).is_some_and(|line| line.ends_with("now") && line.len() <= WIDTH), "{text}");
    }

    #[test]
    fn failures_and_events_follow_with_what_to_do() {
        let events = vec![event(-9, "Issued"), event(-2, "RenewalFailed")];
        let text = drawn(&failed("InvalidClient", "write the right secret"), Ok(events));
        let after = text.split("in 50m\n").nth(1).unwrap_or_default();
        assert_eq!(
            after,
            "\nLast failure (3 since the last token)\n  2m ago       InvalidClient: it failed\n\
             \nWhat to do: write the right secret\n\
             \nLast events\n  2m ago       RenewalFailed: why\n  9m ago       Issued: why\n"
        );
    }

    #[test]
    fn status_that_makes_no_sense_is_drawn_without_a_panic() {
        for changes in [
            json!({"status": {"expiresAt": minutes(-20)}}),
            json!({"status": {"issuedAt": "0000-01-01T00:00:00Z", "expiresAt": "+262142-12-31T23:59:59Z"}}),
            json!({"status": {"renewAt": minutes(-1_000_000), "usableUntil": minutes(1_000_000)}}),
            json!({"status": {"issuedAt": minutes(10)}}),
            json!({"status": {"issuedAt": null}}),
        ] {
            let text = drawn(&changes, Err("\u{1b}[2J".to_owned()));
            assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
            assert!(!text.contains('\u{1b}') && text.contains("could not be read"), "{text}");
        }
    }

    #[test]
    fn only_the_newest_events_are_shown() {
        let events = (0..20).map(|minute| event(-minute, &format!("R{minute}"))).collect();
        let text = drawn(&json!({}), Ok(events));
        assert!(text.contains("R4:") && !text.contains("R5:"), "{text}");
    }
}
