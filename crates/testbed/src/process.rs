//! Child processes that certainly end.

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

/// How long a process may take to end after a signal: the API server drains its connections for seconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// A process in its own process group, so that a Ctrl-C in the terminal reaches only the process responsible for it.
pub struct Process {
    name: String,
    child: std::process::Child,
    log: PathBuf,
}

impl Process {
    /// Starts a process that writes to `<directory>/<name>.log`. With a command of [`bound_to_us`], the kernel ends
    /// it if this process dies without a chance to do so.
    ///
    /// # Errors
    /// Fails if it cannot be started.
    pub fn start(name: &str, mut command: Command, directory: &Path) -> Result<Self> {
        use std::os::unix::process::CommandExt;
        let log = directory.join(format!("{name}.log"));
        // a process that is restarted appends to the same log
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

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        // it may have ended already
        let _ = kill(self.pid(), signal);
    }

    /// Kills it, and all processes that it started.
    pub fn kill(&mut self) {
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }

    /// Waits for its end and returns its exit code; `None` if a signal ended it or `limit` passed.
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

/// A command with all processes that it started, in its own process group. All of them end when this is dropped.
pub struct Group(tokio::process::Child);

impl Group {
    /// Takes a process that leads a group.
    #[must_use]
    pub fn new(leader: tokio::process::Child) -> Self {
        Self(leader)
    }

    /// Waits for the end of the group leader.
    ///
    /// # Errors
    /// Fails if it cannot be waited for.
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

/// A command that the kernel ends when this process dies, if `setpriv` (util-linux) is available.
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
/// Fails if there is none.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    // Not the ports for outgoing connections: among thousands of them one would take a free port before a server does.
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
