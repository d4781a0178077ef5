//! What every status of a credential that the operator writes must fulfil by itself (contract section 5).

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::conditions::Reason;
use serde_json::Value;
use simulated_api::request::{Call, Verb};

/// The minimum validity of every credential of the honest tenants.
pub const MINIMUM_VALIDITY: TimeDelta = TimeDelta::seconds(60);
/// An authority that no scenario creates.
const MISSING_AUTHORITY: &str = "missing";
/// No message is longer: what the API server says is cut to 300 characters.
const MESSAGE_MAX: usize = 1024;

/// The object with the status that a call writes; none where the call is refused, since the object has changed. A PUT
/// need not contain the rest of the object, which the API server takes from what it has.
pub fn written(call: &Call, new: &Value, old: Option<&Value>) -> Option<Value> {
    let Some(old) = old.filter(|_| call.verb == Verb::Update) else { return Some(new.clone()) };
    let is_current = new["metadata"]["resourceVersion"] == old["metadata"]["resourceVersion"];
    is_current.then(|| {
        let mut object = old.clone();
        object["status"] = new["status"].clone();
        object
    })
}

/// What is wrong with a status that is being written; `now` where the operator's clock is right.
pub fn objections(credential: &Value, now: Option<DateTime<Utc>>) -> Vec<String> {
    let status = &credential["status"];
    let mut found = Vec::new();
    let expires_at = time(&status["expiresAt"]);
    let is_ours = credential["spec"]["minimumValidity"] == "60s";
    if let (Some(expires_at), Some(usable), true) = (expires_at, time(&status["usableUntil"]), is_ours)
        && usable != expires_at - MINIMUM_VALIDITY
    {
        found.push(format!("usableUntil is {usable} with a token that expires at {expires_at}"));
    }
    for condition in status["conditions"].as_array().into_iter().flatten() {
        found.extend(of_condition(condition));
        let is_ready = condition["type"] == "Ready" && condition["status"] == "True";
        let good_until = expires_at.map(|at| if is_ours { at - MINIMUM_VALIDITY } else { at });
        if is_ready && now.is_some_and(|now| good_until.is_none_or(|good_until| good_until <= now)) {
            found.push(format!("Ready with a token that is good until {good_until:?}"));
        }
    }
    found.extend(unchecked(credential));
    found
}

/// `Renewed` is not True for a spec that names an authority that never was there.
fn unchecked(credential: &Value) -> Option<String> {
    let (spec, status) = (&credential["spec"], &credential["status"]);
    let is_current = status["observedGeneration"] == credential["metadata"]["generation"];
    let is_renewed = |condition: &Value| condition["type"] == "Renewed" && condition["status"] == "True";
    let is_claimed = status["conditions"].as_array().into_iter().flatten().any(is_renewed);
    let is_missing = spec["authorityRef"]["name"] == MISSING_AUTHORITY && spec["suspend"] != true;
    (is_missing && is_current && is_claimed).then(|| "Renewed although there is no such authority".to_owned())
}

fn of_condition(condition: &Value) -> Option<String> {
    let text = |field: &str| condition[field].as_str().unwrap_or_default();
    let (kind, status, reason) = (text("type"), text("status"), text("reason"));
    let fits = match (kind, status) {
        ("Ready", "True") => reason == Reason::TokenValid.as_str(),
        ("Renewed", "True") => reason == Reason::TokenIssued.as_str(),
        ("Ready" | "Renewed", "False" | "Unknown") => {
            let good = [Reason::TokenValid, Reason::TokenIssued].map(Reason::as_str);
            Reason::parse(reason).is_some() && !good.contains(&reason)
        }
        // conditions of others stay
        _ => true,
    };
    let is_long = text("message").chars().count() > MESSAGE_MAX;
    (!fits || is_long).then(|| format!("{kind} is {status} {reason}: {}", text("message")))
}

fn time(value: &Value) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(value.as_str()?).ok().map(|time| time.to_utc())
}
