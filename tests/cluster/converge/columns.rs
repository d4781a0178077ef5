//! The columns of the matrix: the calls that the operator makes, and in which phases.

use testbed::api_proxy::{Record, fault::Rule};

use crate::converge::{cell::Cell, fixture::Fixture};

/// What happens to a credential, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Its first token, after the start of the operator.
    Issue,
    /// A renewal on request.
    Renewal,
    /// Its Secret is edited manually.
    ManualEdit,
    /// Its Secret is deleted manually.
    Deletion,
}

impl Phase {
    pub const ALL: [Self; 4] = [Self::Issue, Self::Renewal, Self::ManualEdit, Self::Deletion];
}

/// Which of the objects around a credential a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// The credential, its Secret, or an event about it.
    Own,
    Client,
    /// The authority, or an event about it.
    Authority,
    Namespace,
    /// All objects of a kind: lists and watches.
    All,
}

/// A call that the operator makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// A valid Kubernetes name.
    pub name: &'static str,
    /// The call as the proxy names it.
    pub kind: &'static str,
    pub object: Object,
    /// The phases in which the operator makes it.
    pub phases: &'static [Phase],
}

use Phase::{Deletion, Issue, ManualEdit, Renewal};

const fn column(name: &'static str, kind: &'static str, object: Object, phases: &'static [Phase]) -> Column {
    Column { name, kind, object, phases }
}

/// Calls about one credential: one operator serves all of these columns, with a credential for each.
pub const CALLS: [Column; 11] = [
    column("get-metadata", "get secrets (metadata)", Object::Own, &[Issue]),
    column("get-secret", "get secrets", Object::Own, &[ManualEdit]),
    column("get-client", "get secrets", Object::Client, &Phase::ALL),
    column("get-namespace", "get namespaces (metadata)", Object::Namespace, &Phase::ALL),
    column("create-secret", "create secrets", Object::Own, &[Issue, Deletion]),
    column("patch-secret", "patch secrets", Object::Own, &[Renewal, ManualEdit]),
    column("update-status", "update itwinservicecredentials/status", Object::Own, &Phase::ALL),
    column("authority-status", "patch itwinauthorities/status", Object::Authority, &[Issue]),
    column("authority-event", "create events", Object::Authority, &[Issue]),
    column("create-event", "create events", Object::Own, &[Issue, ManualEdit]),
    // a repeated event is counted there
    column("patch-event", "patch events", Object::Own, &[Renewal, Deletion]),
];

/// Calls about all objects of a kind, made once after each start.
pub const LISTS: [Column; 6] = [
    column("list-credentials", "list itwinservicecredentials", Object::All, &[Issue]),
    column("watch-credentials", "watch itwinservicecredentials", Object::All, &[Issue]),
    column("list-authorities", "list itwinauthorities", Object::All, &[Issue]),
    column("watch-authorities", "watch itwinauthorities", Object::All, &[Issue]),
    column("list-secrets", "list secrets", Object::All, &[Issue]),
    column("watch-secrets", "watch secrets", Object::All, &[Issue]),
];

impl Column {
    /// The name of the object that the call is about, for a cell; empty for lists and watches.
    pub fn object_of(&self, fixture: &Fixture, cell: &Cell) -> String {
        match self.object {
            Object::Own => cell.name.clone(),
            Object::Client => cell.client_secret_name(),
            Object::Authority => cell.authority_name(fixture),
            Object::Namespace => fixture.namespace.name.clone(),
            Object::All => String::new(),
        }
    }

    /// A rule that matches the call for a cell.
    pub fn aim(&self, rule: impl FnOnce(&str) -> Rule, fixture: &Fixture, cell: &Cell) -> Rule {
        rule(self.kind).of(&self.object_of(fixture, cell))
    }

    pub fn describes(&self, record: &Record, fixture: &Fixture, cell: &Cell) -> bool {
        record.call.kind == self.kind && record.call.object == self.object_of(fixture, cell)
    }
}
