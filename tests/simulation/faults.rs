//! What goes wrong around calls: they fail, their answers are lost, the process is killed, somebody else interferes.

use chrono::TimeDelta;
use itwin_credential_operator::cluster::CallError;

use crate::{process::Process, random::Random, reconcile::Halt, world::World};

/// How often what goes wrong, in percent of calls.
pub struct Faults {
    pub random: Random,
    pub calls_fail: u64,
    pub kills: u64,
    pub interference: u64,
    /// What went wrong up to now.
    pub count: u32,
    /// Somebody put a Secret of his own in the place of the one to write, which ends otherwise than without faults.
    pub replaced: bool,
}

impl Faults {
    pub fn new(random: Random) -> Self {
        Self { random, calls_fail: 0, kills: 0, interference: 0, count: 0, replaced: false }
    }

    /// Nothing goes wrong from now on.
    pub fn end(&mut self) {
        (self.calls_fail, self.kills, self.interference) = (0, 0, 0);
    }

    fn strikes(&mut self, percent: u64) -> bool {
        let strikes = percent > 0 && self.random.chance(percent);
        self.count += u32::from(strikes);
        strikes
    }

    /// Before a call reaches the server: time passes, and the call may never arrive.
    pub fn before_call(&mut self, world: &mut World, process: &mut Process) -> Result<(), Halt> {
        world.now += TimeDelta::milliseconds(self.random.between(1, 20));
        self.interference(world, process);
        self.killed()?;
        if self.strikes(self.calls_fail) { Err(self.error(world)) } else { Ok(()) }
    }

    /// After a write was committed: its answer may be lost.
    pub fn after_commit(&mut self, world: &mut World) -> Result<(), Halt> {
        self.killed()?;
        if self.strikes(self.calls_fail) {
            world.now += TimeDelta::seconds(8);
            return Err(Halt::Error(CallError::Timeout));
        }
        Ok(())
    }

    /// Whether the process is killed here.
    pub fn killed(&mut self) -> Result<(), Halt> {
        if self.strikes(self.kills) { Err(Halt::Killed) } else { Ok(()) }
    }

    /// Whether the rate limit of the authority asks to wait.
    pub fn limited(&mut self) -> bool {
        self.calls_fail > 0 && self.strikes(5)
    }

    fn error(&mut self, world: &mut World) -> Halt {
        let errors = [
            CallError::Unavailable(503),
            CallError::Forbidden("quota".to_owned()),
            CallError::Transport,
            CallError::Timeout,
        ];
        let error = self.random.pick(&errors).clone();
        if error == CallError::Timeout {
            world.now += TimeDelta::seconds(8);
        }
        Halt::Error(error)
    }

    /// Somebody may change something while the operator looks; its watches may tell it at once.
    pub fn interference(&mut self, world: &mut World, process: &mut Process) {
        if !self.strikes(self.interference) {
            return;
        }
        match self.random.between(0, 4) {
            0 => label(world, self.random.next()),
            1 if !world.is_foreign() => world.damage_target(),
            2 if !world.is_foreign() => world.delete_target(),
            3 => {
                world.replace_target(true, None);
                self.replaced = true;
            }
            _ => world.touch_client(),
        }
        if !process.deposed && self.random.chance(50) {
            process.hear_all(world);
        }
    }
}

/// Somebody puts a label of his own on the Secret to write, and takes one of ours off.
pub fn label(world: &mut World, value: u64) {
    world.edit_target(|secret| {
        let labels = secret.metadata.labels.get_or_insert_default();
        labels.insert("team".to_owned(), value.to_string());
        if value.is_multiple_of(2) {
            labels.remove("app.kubernetes.io/managed-by");
        }
    });
}
