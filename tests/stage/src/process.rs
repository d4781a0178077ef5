//! Processes that are sure to end.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

/// How long a process may take to end by itself: the API server drains its connections for seconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// A process of its own group, so that a Ctrl-C in the terminal reaches only who is responsible for it.
pub struct Process {
    name: String,
    child: std::process::Child,
    log: PathBuf,
}

impl Process {
    /// Starts a process that writes into `<directory>/<name>.log`. With a command of [`bound_to_us`] the kernel ends
    /// it should we die without a chance to do so.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(name: &str, mut command: Command, directory: &Path) -> Result<Self> {
        use std::os::unix::process::CommandExt;
        let log = directory.join(format!("{name}.log"));
        // a process that is started again goes on with the same log
        let file = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {name}: {:?}", command.get_program()))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of its log, for error messages.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("{} said last:\n{}", self.name, lines[lines.len().saturating_sub(30)..].join("\n"))
    }

    /// The file that it writes to.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its process identifier.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        // it may have ended already
        let _ = kill(self.pid(), signal);
    }

    /// Ends it, and all that it started, without a warning.
    pub fn kill(&mut self) {
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }

    /// Waits for its end and gives its code; `None` where a signal ended it or `limit` passed.
    pub fn wait(&mut self, limit: Duration) -> Option<i32> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            self.signal(Signal::SIGTERM);
            self.wait(PATIENCE);
        }
        if self.is_running() {
            self.kill();
        }
    }
}

/// A command with all that it started, in a process group of its own; ended as a whole when this is dropped.
pub struct Group(tokio::process::Child);

impl Group {
    /// Takes a process that leads a group.
    #[must_use]
    pub fn new(leader: tokio::process::Child) -> Self {
        Self(leader)
    }

    /// Waits for the end of its leader.
    ///
    /// # Errors
    /// Where it cannot be waited for.
    pub async fn wait(&mut self) -> Result<std::process::ExitStatus> {
        Ok(self.0.wait().await?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(id) = self.0.id().and_then(|id| i32::try_from(id).ok()) else { return };
        let _ = killpg(Pid::from_raw(id), Signal::SIGTERM);
        let start = Instant::now();
        while start.elapsed() < PATIENCE && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

/// A command that the kernel ends when we die, where `setpriv` (util-linux) can arrange for that.
#[must_use]
pub fn bound_to_us(program: &Path) -> Command {
    let setpriv = Path::new("/usr/bin/setpriv");
    if setpriv.exists() {
        let mut command = Command::new(setpriv);
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// Ports of the loopback interface that are free now.
///
/// # Errors
/// Where there is none.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    // Not those that the kernel gives to outgoing connections: one of thousands takes a free one before a server does.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut ports = [0; N];
    for port in &mut ports {
        *port = (0..SERVER_PORTS.len())
            .map(|_| {
                let number = std::process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
                SERVER_PORTS.start + (number % SERVER_PORTS.len() as u32) as u16
            })
            .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
            .context("no port is free")?;
    }
    Ok(ports)
}

/// Ports that Linux does not give to outgoing connections by default (`net.ipv4.ip_local_port_range`).
const SERVER_PORTS: std::ops::Range<u16> = 12_000..29_000;
