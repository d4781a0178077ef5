//! Free space for what a run writes. Without it, servers fail in the middle, each with an error of its own.

use std::path::Path;

use anyhow::{Context, Result, ensure};

const GIB: u64 = 1 << 30;

/// What the tests write at most at one time, with a margin: about 25 control planes, each with data and logs.
pub const TESTS: u64 = 3 * GIB;

/// What one control plane writes, with a margin.
pub const CLUSTER: u64 = GIB;

/// Checks that the file system of this folder has that many free bytes.
///
/// # Errors
/// Names the folder, what it has and what it needs; fails also if the file system does not report it.
pub fn check(folder: &Path, needed: u64) -> Result<()> {
    let file_system = nix::sys::statvfs::statvfs(folder)
        .with_context(|| format!("the free space of {} is unknown", folder.display()))?;
    #[allow(clippy::unnecessary_cast, reason = "the number of blocks has 32 bits on some platforms")]
    let free = file_system.blocks_available() as u64 * file_system.fragment_size() as u64;
    is_enough(folder, needed, free)
}

fn is_enough(folder: &Path, needed: u64, free: u64) -> Result<()> {
    let in_gib = |bytes: u64| format!("{}.{} GiB", bytes / GIB, bytes % GIB * 10 / GIB);
    ensure!(
        free >= needed,
        "{} must be free in {}, and {} are: remove what is not needed there, or name another folder with TMPDIR",
        in_gib(needed),
        folder.display(),
        in_gib(free)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_disk_is_reported_before_a_server_meets_it() {
        let folder = Path::new("/somewhere");
        assert!(is_enough(folder, TESTS, TESTS).is_ok());
        let error = is_enough(folder, TESTS, TESTS - 1).expect_err("it is refused").to_string();
        assert!(error.starts_with("3.0 GiB must be free in /somewhere, and 2.9 GiB are: "), "{error}");
    }

    #[test]
    fn free_space_of_a_real_folder_is_read() {
        assert!(check(&std::env::temp_dir(), 1).is_ok());
        assert!(check(&std::env::temp_dir(), u64::MAX).is_err());
        let error = check(Path::new("/does/not/exist"), 1).expect_err("it is refused").to_string();
        assert_eq!(error, "the free space of /does/not/exist is unknown");
    }
}
