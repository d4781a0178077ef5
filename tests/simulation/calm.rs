//! What is true at every step of a calm scenario, in which nothing goes wrong but what other users do: each honest
//! credential that can have a token has one, for its current spec, and says so.

use chrono::TimeDelta;
use serde_json::Value;

use crate::{
    cluster::client_id,
    meddler::{self, Admission, DENIAL, Fight},
    oracle::token_of_data,
    play::{CREDENTIALS, Player, condition, label, name, reason, text},
    scenario::{Edit, Which},
};

/// An edit is followed within this. The contract says 5 s; a request in flight takes the rest.
const FOLLOWED: TimeDelta = TimeDelta::seconds(30);
/// After a fight over a Secret, or a write that was denied, the backoff is over within this.
const BACKED_OFF: TimeDelta = TimeDelta::minutes(7);
/// A conflict is over within this: the last revert waits for 5 minutes, and the conflict ends a minute after the next
/// backoff of 5. Edits of a Secret by users are a conflict too, if they follow a fight or each other.
const AGREED: TimeDelta = TimeDelta::minutes(12);
/// A failure is shown within 10 s of the attempt.
const SHOWN: std::time::Duration = std::time::Duration::from_secs(10);
/// Renewals on request come at most every 10 s: after this the next one waits for none before it.
const UNLIMITED: std::time::Duration = std::time::Duration::from_secs(10);
/// Rounds of a fight after which it is shown: the third revert is the first one that says so.
const SHOWN_AFTER: usize = 3;
/// Token requests of one credential in the time of a fight that are due without it.
const ASKED_ANYWAY: usize = 2;

impl Player {
    /// Checks the credentials whose namespace no one edited just now.
    pub fn look(&self) {
        let now = self.cluster.clocks.now();
        for credential in self.honest() {
            let namespace = text(&credential["metadata"]["namespace"]);
            if self.settled.get(namespace).is_some_and(|at| now < *at) {
                continue;
            }
            let is_disputed = self.disputed.get(namespace).is_some_and(|until| now < *until);
            if is_disputed && reason(&credential, "Renewed") == "SecretConflict" {
                continue;
            }
            for problem in self.problems(&credential) {
                let name = label(&credential);
                self.cluster.oracle.violations.add(format!("{name} at {now}: {problem}: {}", credential["status"]));
            }
        }
    }

    /// The credentials of a namespace were edited.
    pub fn edited(&mut self, namespace: &'static str) {
        self.settles(namespace, FOLLOWED);
    }

    fn settles(&mut self, namespace: &'static str, within: TimeDelta) {
        let now = self.cluster.clocks.now();
        self.disputed.insert(namespace, now + AGREED);
        let at = now + within;
        let known = self.settled.entry(namespace).or_insert(at);
        *known = at.max(*known);
    }

    /// The credential, if it is as it should be.
    fn good(&self, which: Which) -> Option<Value> {
        let credential = self.cluster.api.as_user("oracle").get(CREDENTIALS, which.namespace, &name(which))?;
        let is_settled = self.settled.get(which.namespace).is_none_or(|at| self.cluster.clocks.now() >= *at);
        let is_good = self.oracle_is_calm() && is_settled && condition(&credential, "Ready") == "True";
        (is_good && self.is_possible(&credential)).then_some(credential)
    }

    fn oracle_is_calm(&self) -> bool {
        self.cluster.oracle.is_calm
    }

    /// Another controller keeps changing the Secret of a credential. A good token stays good, no token is requested
    /// because of it, and it is shown.
    pub async fn fight(&mut self, which: Which, fight: Fight) {
        let (before, asked) = (self.good(which), self.asked_in(which.namespace));
        for round in 1..=meddler::ROUNDS {
            if !self.is_unowned(which.namespace, &name(which)) {
                fight.strike(&self.cluster.api, which.namespace, &name(which));
            }
            self.settles(which.namespace, BACKED_OFF);
            self.pass(meddler::ROUND).await;
            if before.is_some() && fight != Fight::Delete && round == SHOWN_AFTER {
                self.expect_conflict(which, fight);
            }
            if before.is_some() && fight != Fight::Delete && !self.holds_a_token(which) {
                let violation =
                    format!("{fight:?} over the Secret of {}/{} cost its token", which.namespace, name(which));
                self.cluster.oracle.violations.add(violation);
            }
        }
        self.settles(which.namespace, BACKED_OFF);
        let Some(credential) = before.and_then(|_| self.reread(which)) else { return };
        if fight == Fight::Delete {
            return;
        }
        let (violations, name) = (&self.cluster.oracle.violations, label(&credential));
        let (asked, status) = (self.asked_in(which.namespace) - asked, &credential["status"]);
        if asked > ASKED_ANYWAY * crate::scenario::CREDENTIALS {
            violations.add(format!("{fight:?} over the Secret of {name} cost {asked} token requests"));
        }
        if condition(&credential, "Ready") != "True" {
            violations.add(format!("{fight:?} over the Secret of {name} made it not Ready: {status}"));
        }
        self.expect_conflict(which, fight);
    }

    fn expect_conflict(&self, which: Which, fight: Fight) {
        let Some(credential) = self.reread(which) else { return };
        if reason(&credential, "Renewed") != "SecretConflict" {
            let (name, status) = (label(&credential), &credential["status"]);
            let violation = format!("{fight:?} over the Secret of {name} is not shown: {status}");
            self.cluster.oracle.violations.add(violation);
        }
    }

    /// The API server denies the write of a renewal. That is shown, in its words, and the token stays.
    pub async fn deny(&mut self, which: Which, code: u16) {
        self.pass(UNLIMITED).await;
        let before = self.good(which);
        let until = self.cluster.clocks.now() + TimeDelta::seconds(30);
        let to = ("secrets", Some(which.namespace));
        meddler::install(&self.cluster.api, &self.cluster.clocks, to, Admission::Denies(code), until);
        self.edit(which, Edit::Renew);
        self.settles(which.namespace, BACKED_OFF);
        self.pass(SHOWN).await;
        let Some(credential) = before.and_then(|_| self.reread(which)) else { return };
        let renewed = credential["status"]["conditions"].as_array().into_iter().flatten();
        let message = renewed.filter(|condition| condition["type"] == "Renewed").map(|found| text(&found["message"]));
        let is_shown = message.into_iter().any(|message| message.contains(DENIAL));
        if reason(&credential, "Renewed") != "SecretWriteFailed"
            || !is_shown
            || condition(&credential, "Ready") != "True"
        {
            let (name, status) = (label(&credential), &credential["status"]);
            self.cluster.oracle.violations.add(format!("{name}: a write denied with {code} is shown as {status}"));
        }
    }

    /// Whether the Secret of a credential holds a token that has not expired.
    fn holds_a_token(&self, which: Which) -> bool {
        let secret = self.cluster.api.as_user("oracle").get("secrets", which.namespace, &name(which));
        let issued = secret.and_then(|secret| self.cluster.servers.issued(&token_of_data(&secret)?));
        issued.is_some_and(|issued| issued.expires_at > self.cluster.clocks.now())
    }

    fn reread(&self, which: Which) -> Option<Value> {
        self.cluster.api.as_user("oracle").get(CREDENTIALS, which.namespace, &name(which))
    }

    /// How many tokens the clients of a namespace asked for.
    fn asked_in(&self, namespace: &str) -> usize {
        let clients: Vec<String> = (0..crate::cluster::CLIENTS).map(|number| client_id(namespace, number)).collect();
        self.cluster.servers.asked().iter().filter(|asked| clients.contains(&asked.client)).count()
    }
}
