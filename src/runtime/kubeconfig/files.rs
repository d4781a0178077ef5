//! The files of a kubeconfig: those of `KUBECONFIG`, or `~/.kube/config`.
//!
//! `kube` reads no list of files of which one is missing, though kubectl does, and its errors do not say whether there
//! is a kubeconfig at all.

use std::{
    env,
    ffi::OsStr,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use kube::config::{Kubeconfig, KubeconfigError};

/// The files that together are the kubeconfig.
pub(super) struct Files {
    /// Those of `KUBECONFIG`.
    named: Vec<PathBuf>,
    /// The one that is read where none is named; `None` if there is no home directory.
    default: Option<PathBuf>,
}

/// Why no kubeconfig was read, in one line. Nothing of a file's content is quoted: it may hold credentials.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// No file is named, and the default one does not exist.
    Absent(String),
    /// None of the files that are named exists.
    Missing(String),
    /// A file is there, and cannot be used.
    Unusable(String),
}

impl Unread {
    pub(super) fn into_reason(self) -> String {
        match self {
            Self::Absent(why) | Self::Missing(why) | Self::Unusable(why) => why,
        }
    }
}

impl Files {
    pub(super) fn of_environment() -> Self {
        let default = env::home_dir().map(|home| home.join(".kube").join("config"));
        Self::new(env::var_os("KUBECONFIG").as_deref(), default)
    }

    /// The files of a list as `KUBECONFIG` has it, and the default one.
    pub(super) fn new(list: Option<&OsStr>, default: Option<PathBuf>) -> Self {
        let named = list.map(|list| env::split_paths(list).filter(|path| !path.as_os_str().is_empty()).collect());
        Self { named: named.unwrap_or_default(), default }
    }

    /// What they hold together: the first file that names something counts. A file that does not exist is left out if
    /// another one does.
    pub(super) fn read(&self) -> Result<Kubeconfig, Unread> {
        if self.named.is_empty() {
            let Some(file) = &self.default else { return Err(Unread::Absent("there is no home directory".to_owned())) };
            return read(file).map_err(|unread| match unread {
                Unread::Missing(why) => Unread::Absent(why),
                other => other,
            });
        }
        let (mut merged, mut missing) = (None, Vec::new());
        for file in &self.named {
            let next = match read(file) {
                Ok(next) => next,
                Err(Unread::Missing(why)) => {
                    missing.push(why);
                    continue;
                }
                Err(unread) => return Err(unread),
            };
            merged = Some(match merged {
                None => next,
                Some(first) => Kubeconfig::merge(first, next)
                    .map_err(|_| Unread::Unusable("KUBECONFIG: its files differ in apiVersion or kind".to_owned()))?,
            });
        }
        merged.ok_or_else(|| Unread::Missing(format!("KUBECONFIG: {}", missing.join(", "))))
    }
}

/// What a file holds.
pub(super) fn read(file: &Path) -> Result<Kubeconfig, Unread> {
    let mut kubeconfig = Kubeconfig::read_from(file).map_err(|error| unread(file, &error))?;
    // for kubectl, an empty name is none
    kubeconfig.current_context = kubeconfig.current_context.filter(|name| !name.is_empty());
    Ok(kubeconfig)
}

fn unread(file: &Path, error: &KubeconfigError) -> Unread {
    let file = file.display();
    match error {
        KubeconfigError::ReadConfig(error, _) if is_missing(error.kind()) => {
            Unread::Missing(format!("{file} does not exist"))
        }
        KubeconfigError::ReadConfig(error, _) => Unread::Unusable(format!("kubeconfig {file} cannot be read: {error}")),
        KubeconfigError::Parse(_) => Unread::Unusable(format!("kubeconfig {file} is not valid YAML of kind Config")),
        _ => Unread::Unusable(format!("kubeconfig {file} is not usable")),
    }
}

/// Whether there is no such file: neither its name, nor the folder that it would be in.
fn is_missing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory)
}
