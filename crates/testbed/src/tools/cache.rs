//! The cache of the testbed's programs, outside the work tree. The pins are its key: a changed pin causes a new build.

use std::{
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// The cache, locked while the file is open: two runs that start together must not build into one folder.
pub(crate) fn locked_cache() -> Result<(PathBuf, File)> {
    let cache = cache()?;
    std::fs::create_dir_all(&cache)?;
    let lock = File::create(cache.join("lock"))?;
    lock.lock().context("the cache cannot be locked")?;
    Ok((cache, lock))
}

fn cache() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("TESTBED_CACHE") {
        return Ok(named.into());
    }
    let base = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
        (_, Some(home)) => Path::new(&home).join(".cache"),
        _ => bail!("neither TESTBED_CACHE nor HOME is set: name a folder for built tools in TESTBED_CACHE"),
    };
    Ok(base.join("itwin-credential-operator-testbed"))
}

/// The folder in the cache for what these files pin.
pub(crate) fn pinned(cache: &Path, module: &Path, files: &[&str]) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    for file in files {
        std::fs::read(module.join(file))
            .with_context(|| format!("{} is missing", module.join(file).display()))?
            .hash(&mut hasher);
    }
    let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(cache.join(format!("{name}-{:016x}", hasher.finish())))
}
