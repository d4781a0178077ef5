//! What a real node needs from the machine, and how it is isolated from it. Network, mounts and processes are in their
//! own namespaces, which the kernel removes with the command that they were created for, however it ends. What
//! namespaces cannot contain, control groups and a folder, is removed here.

use std::{
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    output,
    process::{Group, bound_to_us},
};

/// Where Debian installs the network plugins.
pub(super) const PLUGINS: &str = "/usr/lib/cni";
/// A shell for pods; statically linked, because its image has no library.
pub(super) const BUSYBOX_PROGRAM: &str = "/bin/busybox";

/// Programs and files that a node needs, and the Debian packages that contain them.
const NEEDED: [(&str, &str); 10] = [
    ("runc", "runc"),
    ("buildah", "buildah"),
    ("skopeo", "skopeo"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
    (BUSYBOX_PROGRAM, "busybox-static"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
];

/// The control group of the node. The variable is set only inside the namespaces of this program.
const CGROUP: &str = "TESTBED_CGROUP";
const CGROUPS: &str = "/sys/fs/cgroup";

/// What names a proxy. None can be reached from the namespaces, and servers there are called by an address that the
/// environment knows no exception for.
const PROXIES: [&str; 6] = ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "all_proxy", "https_proxy", "http_proxy"];

/// Folders that the kubelet, containerd or a network plugin uses despite their configuration.
const OWN_FOLDERS: [&str; 5] = ["/run", "/var/lib/cni", "/var/lib/kubelet", "/var/log/containers", "/var/log/pods"];
/// Kernel settings of the whole machine that the kubelet insists on writing.
const KERNEL_SETTINGS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// What this machine lacks for a real node, in words; empty if it can run one.
pub async fn lacks() -> Vec<String> {
    if !cfg!(target_os = "linux") || !Uid::effective().is_root() {
        return vec!["it must be Linux, and we must be root".to_owned()];
    }
    let packages: Vec<&str> =
        NEEDED.into_iter().filter(|(name, _)| !is_there(name)).map(|(_, package)| package).collect();
    if !packages.is_empty() {
        return vec![format!("packages are missing: apt-get install {}", packages.join(" "))];
    }
    let mut lacking = Vec::new();
    if !is_static(Path::new(BUSYBOX_PROGRAM)) {
        lacking.push(format!("{BUSYBOX_PROGRAM} needs libraries: apt-get install busybox-static"));
    }
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "--", "ip", "link", "set", "lo", "up"]);
    if let Err(error) = output(command, None).await {
        lacking.push(format!("namespaces cannot be made: {error}"));
    }
    let trial = format!("testbed-trial-{}", std::process::id());
    if let Err(error) = make_cgroups(&trial) {
        lacking.push(format!("control groups cannot be made: {error:#}"));
    }
    remove_cgroups(&trial);
    lacking
}

fn is_there(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    // a name with a slash replaces the folder
    folders.into_iter().any(|folder| folder.join(name).is_file())
}

/// Whether a program needs no dynamic loader: no program header of its ELF file (64 bits) is a PT_INTERP.
fn is_static(program: &Path) -> bool {
    const INTERPRETER: u64 = 3;
    let bytes = std::fs::read(program).unwrap_or_default();
    let number = |at: usize, length: usize| -> Option<u64> {
        let bytes = bytes.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let headers = || -> Option<Vec<u64>> {
        let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        (0..count).map(|index| number(usize::try_from(start + index * size).ok()?, 4)).collect()
    };
    headers().is_some_and(|kinds| !kinds.contains(&INTERPRETER))
}

/// Whether this process runs in namespaces that [`in_namespaces`] created.
pub(super) fn is_own() -> bool {
    std::process::id() == 1 && std::env::var_os(CGROUP).is_some()
}

/// The control group of all processes of the node.
pub(super) fn cgroup() -> Result<String> {
    Ok(format!("/{}", std::env::var(CGROUP)?))
}

/// Runs this program with these arguments in new namespaces, and removes what is left of it.
///
/// # Errors
/// Fails if they cannot be created.
pub async fn in_namespaces(arguments: &[String]) -> Result<ExitCode> {
    let mut machine = Machine::new()?;
    let mut command = bound_to_us(Path::new("/usr/bin/unshare"));
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"]);
    command.arg(std::env::current_exe()?).args(arguments);
    command.env(CGROUP, &machine.cgroup).env("TMPDIR", machine.directory.path());
    for proxy in PROXIES {
        command.env_remove(proxy);
    }
    let child = Command::from(command)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .context("cannot start unshare (util-linux)")?;
    let mut group = Group::new(child);
    let status = group.wait().await?;
    if let Some(signal) = status.signal() {
        bail!("ended by signal {signal}");
    }
    if !status.success() {
        machine.keep_logs();
    }
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// What namespaces do not contain. It is removed when this is dropped.
struct Machine {
    directory: TempDir,
    cgroup: String,
    made: Vec<PathBuf>,
}

impl Machine {
    fn new() -> Result<Self> {
        let cgroup = format!("testbed-{}", std::process::id());
        let directory = tempfile::Builder::new().prefix("testbed-node-").tempdir()?;
        let mut machine = Self { directory, cgroup, made: Vec::new() };
        make_cgroups(&machine.cgroup)?;
        for folder in OWN_FOLDERS.map(Path::new) {
            // parents first, so that they are removed last
            let missing: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
            for folder in missing.into_iter().rev() {
                std::fs::create_dir(folder)?;
                machine.made.push(folder.to_path_buf());
            }
        }
        Ok(machine)
    }

    /// Keeps the folder, without the parts that fill disks.
    fn keep_logs(&mut self) {
        self.directory.disable_cleanup(true);
        for testbed in std::fs::read_dir(self.directory.path()).into_iter().flatten().flatten() {
            for large in ["etcd", "node/containerd", "node/kubelet", "node/busybox", "node/registry"] {
                let _ = std::fs::remove_dir_all(testbed.path().join(large));
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        remove_cgroups(&self.cgroup);
        for folder in self.made.iter().rev() {
            // only if it is empty: another process may use it by now
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// Creates a group of this name in each hierarchy, with version 1 of control groups as with version 2.
fn make_cgroups(name: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let group = hierarchy.join(name);
        std::fs::create_dir(&group).with_context(|| group.display().to_string())?;
    }
    Ok(())
}

fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(CGROUPS);
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_path_buf()];
    }
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    // some hierarchies have several names; all but one of them are links
    entries.filter(|path| !path.is_symlink() && path.join("cgroup.procs").exists()).collect()
}

fn remove_cgroups(name: &str) {
    for hierarchy in hierarchies() {
        remove_group(&hierarchy.join(name));
    }
}

fn remove_group(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_group(&entry.path());
        }
    }
    // files in it belong to the kernel and disappear with it
    let _ = std::fs::remove_dir(group);
}

/// Inside the namespaces: redirects what the node writes at fixed paths.
pub(super) async fn prepare(directory: &Path) -> Result<()> {
    for folder in OWN_FOLDERS {
        mount(&["-t", "tmpfs", "tmpfs", folder]).await?;
    }
    for setting in KERNEL_SETTINGS {
        let real = Path::new("/proc/sys").join(setting);
        let value = std::fs::read_to_string(&real)?;
        cover(&real.to_string_lossy(), &directory.join(setting.replace('/', "-")), &value).await?;
    }
    Ok(())
}

/// Replaces a file of the machine by one with this text, in this mount namespace only.
pub(super) async fn cover(place: &str, file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text)?;
    mount(&["--bind", &file.to_string_lossy(), place]).await
}

async fn mount(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("mount");
    command.args(arguments);
    output(command, None).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_that_needs_libraries_is_distinguished_from_one_that_does_not() -> Result<()> {
        let own = std::env::current_exe()?;
        assert_eq!(is_static(&own), cfg!(target_feature = "crt-static"), "as it was linked");
        assert!(!is_static(Path::new("/etc/passwd")), "a file that is no program is not static");
        Ok(())
    }
}
