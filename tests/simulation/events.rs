//! What happens in the world: edits by people, drawn from one stream, and faults, drawn from another, so that the same
//! history can be played without its faults.

use chrono::TimeDelta;
use itwin_api::{credential::DeletionPolicy, secret_keys};
use itwin_core::ownership::OUR_KIND;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{ResourceExt, core::Duration};

use crate::{
    authority::{Fault, Presence},
    faults::label,
    history::History,
    random::Random,
    world::NAME,
};

/// Lifetimes of tokens, in seconds.
pub const LIFETIMES: [i64; 4] = [60, 600, 3600, 43_200];

/// What people do.
#[derive(Clone, Copy, Debug)]
pub enum Edit {
    Wait,
    WaitForTheNextReconcile,
    WaitLong,
    DamageTarget,
    LabelTarget,
    RemoveTokenMetadata,
    DeleteTarget,
    ReplaceByForeign,
    Adopt,
    LeftByDeletedCredential,
    RotateClient,
    TouchClient,
    RemoveClient,
    BreakClient,
    WatchedNamespaces,
    RenewBefore,
    MinimumValidity,
    Suspend,
    Resume,
    DeletionPolicy,
    RenewNow,
    MoveIssuer,
    Lifetime,
    Recreate,
}

use Edit::*;
const EDITS: &[Edit] = &[
    Wait,
    Wait,
    Wait,
    Wait,
    Wait,
    Wait,
    WaitForTheNextReconcile,
    WaitForTheNextReconcile,
    WaitForTheNextReconcile,
    WaitForTheNextReconcile,
    WaitForTheNextReconcile,
    WaitForTheNextReconcile,
    WaitForTheNextReconcile,
    WaitForTheNextReconcile,
    WaitLong,
    WaitLong,
    DamageTarget,
    DamageTarget,
    LabelTarget,
    LabelTarget,
    RemoveTokenMetadata,
    DeleteTarget,
    DeleteTarget,
    ReplaceByForeign,
    Adopt,
    Adopt,
    LeftByDeletedCredential,
    RotateClient,
    RotateClient,
    TouchClient,
    TouchClient,
    RemoveClient,
    BreakClient,
    WatchedNamespaces,
    WatchedNamespaces,
    RenewBefore,
    RenewBefore,
    MinimumValidity,
    MinimumValidity,
    Suspend,
    Resume,
    Resume,
    Resume,
    DeletionPolicy,
    RenewNow,
    RenewNow,
    MoveIssuer,
    Lifetime,
    Recreate,
];

impl Edit {
    pub fn any(random: &mut Random) -> Self {
        *random.pick(EDITS)
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    Endpoint,
    EndpointRecovers,
    Authority,
    Calls,
    CallsRecover,
    Lag,
    LagEnds,
    Relist,
    Restart,
    Depose,
    ClockStep,
    Outage,
}

use Trouble::*;
const TROUBLES: &[Trouble] = &[
    Endpoint,
    Endpoint,
    EndpointRecovers,
    EndpointRecovers,
    Authority,
    Calls,
    CallsRecover,
    CallsRecover,
    Lag,
    LagEnds,
    LagEnds,
    Relist,
    Restart,
    Restart,
    Depose,
    ClockStep,
    Outage,
];

impl Trouble {
    pub fn any(random: &mut Random) -> Self {
        *random.pick(TROUBLES)
    }
}

impl History<'_> {
    pub fn edit(&mut self, edit: Edit) {
        // drawn whether it is used or not, so that both runs of a history draw the same
        let drawn = self.edits.next();
        let choice = |of: u64| drawn % of;
        let world = &mut self.world;
        match edit {
            Wait => self.pass(TimeDelta::milliseconds(choice(5000) as i64)),
            WaitForTheNextReconcile => self.pass_to_next_reconcile(),
            WaitLong => {
                let longest = world.authority.lifetime.num_seconds() * 3;
                self.pass(TimeDelta::seconds(longest.min(choice(7200) as i64)));
            }
            DamageTarget if !world.is_foreign() => world.damage_target(),
            LabelTarget => label(world, drawn),
            RemoveTokenMetadata if !world.is_foreign() => world.edit_target(|secret| {
                secret.metadata.annotations.get_or_insert_default().remove(secret_keys::EXPIRES_AT_ANNOTATION);
            }),
            DeleteTarget => world.delete_target(),
            ReplaceByForeign => world.replace_target(true, None),
            Adopt if world.is_foreign() => {
                world.edit_target(|secret| {
                    let annotations = secret.metadata.annotations.get_or_insert_default();
                    annotations.insert(secret_keys::ADOPT.to_owned(), NAME.to_owned());
                });
                world.foreign.clear();
            }
            LeftByDeletedCredential => world.replace_target(false, Some(controller("uid-gone"))),
            RotateClient => world.set_client(Some(&drawn.to_string())),
            TouchClient => world.touch_client(),
            RemoveClient => world.set_client(None),
            BreakClient => world.set_client(Some("")),
            WatchedNamespaces => world.edit_spec(|credential| {
                let scopes: &[&str] = [&["a"][..], &["b", "a"], &["c"]][choice(3) as usize];
                credential.spec.scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
            }),
            RenewBefore => world.edit_spec(|credential| {
                let percentage = [None, Some(10), Some(50)][choice(3) as usize];
                let before = [None, Some(400), Some(4000)][(choice(7) % 3) as usize].filter(|_| percentage.is_none());
                credential.spec.renew_before_percentage = percentage;
                credential.spec.renew_before = before.map(seconds);
            }),
            MinimumValidity => world.edit_spec(|credential| {
                credential.spec.minimum_validity = seconds([0, 20, 300, 3000][choice(4) as usize]);
            }),
            Suspend => world.edit_spec(|credential| credential.spec.suspend = true),
            Resume if world.credential.spec.suspend => world.edit_spec(|credential| credential.spec.suspend = false),
            Edit::DeletionPolicy => world.edit_spec(|credential| {
                let policies = [DeletionPolicy::Retain, DeletionPolicy::Delete];
                credential.spec.deletion_policy = policies[choice(2) as usize];
            }),
            RenewNow => world.edit_credential(|credential| {
                let annotations = credential.metadata.annotations.get_or_insert_default();
                annotations.insert(secret_keys::RENEW.to_owned(), drawn.to_string());
            }),
            MoveIssuer => {
                world.edit_authority(|authority| authority.issuer = format!("https://ims-{}", choice(3)));
            }
            Lifetime => world.authority.lifetime = TimeDelta::seconds(LIFETIMES[choice(4) as usize]),
            Recreate => self.recreate(),
            _ => {}
        }
    }

    /// The credential is deleted and made again under its name; what it had written is still there.
    fn recreate(&mut self) {
        let world = &mut self.world;
        let gone = world.uid();
        if !world.is_foreign() {
            world.edit_target(|secret| {
                // one that was offered and not taken yet never was its
                if secret.annotations().contains_key(secret_keys::OWNER) {
                    secret.metadata.owner_references = Some(vec![controller(&gone)]);
                }
            });
        }
        let uid = world.new_uid();
        world.edit_credential(|credential| {
            credential.metadata.uid = Some(uid);
            credential.metadata.generation = Some(1);
            credential.status = None;
        });
    }

    pub fn trouble(&mut self, trouble: Trouble) {
        let random = &mut self.faults.random;
        match trouble {
            Endpoint => self.world.authority.fault = Some(Fault::any(random)),
            EndpointRecovers => self.world.authority.fault = None,
            Authority => {
                let presence =
                    *random.pick(&[Presence::Ready, Presence::Forbids, Presence::Unanswered, Presence::Gone]);
                self.world.edit_authority(|authority| authority.presence = presence);
            }
            Calls => {
                self.faults.calls_fail = *random.pick(&[5, 20, 60]);
                self.faults.kills = *random.pick(&[0, 2, 5]);
                self.faults.interference = *random.pick(&[0, 5, 20]);
            }
            CallsRecover => self.faults.end(),
            Lag => self.lags = true,
            LagEnds => self.lags = false,
            Relist => self.processes.iter_mut().for_each(|process| process.list(&self.world)),
            Restart => self.restart(),
            Depose => self.depose(),
            ClockStep => {
                let error = TimeDelta::seconds(random.between(-600, 600));
                self.world.clock_error = error;
            }
            Outage => self.outage(),
        }
    }
}

fn seconds(seconds: u64) -> Duration {
    std::time::Duration::from_secs(seconds).into()
}

fn controller(uid: &str) -> OwnerReference {
    let (group, kind) = OUR_KIND.split_once('/').unwrap();
    OwnerReference {
        api_version: format!("{group}/v1alpha1"),
        kind: kind.to_owned(),
        name: NAME.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}
