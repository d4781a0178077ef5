//! The manifests of files and folders. What is not read is named, so that nothing passes unread.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use crate::{
    lint::{Input, manifests},
    problem::Problem,
};

/// Folders in folders.
const DEPTH: usize = 16;
/// The most files that are read, and the most that are named as not read.
const FILES: usize = 20_000;

/// The objects of files and folders.
///
/// # Errors
/// A file or folder that was named and cannot be read.
pub(super) fn read(filenames: &[PathBuf], namespace: Option<&str>) -> Result<Input, Problem> {
    let mut input = Input { is_partial: true, ..Input::default() };
    for named in filenames {
        let unread = input.unread.len();
        let name = if named.as_os_str() == "-" { "standard input".to_owned() } else { named.display().to_string() };
        let objects = if named.as_os_str() == "-" {
            let text = text_of(std::io::stdin().lock()).map_err(|error| Problem::new(format!("{name}: {error}")))?;
            manifests::add(&mut input, &name, &text, namespace)
        } else {
            of_place(&mut input, named, namespace)?
        };
        if objects == 0 && input.unread.len() == unread {
            input.unread.push(format!("{name} holds no manifest: name a file with Kubernetes objects, or its folder"));
        }
    }
    Ok(input)
}

/// Adds the objects of a file, or of the files of a folder, and counts them.
fn of_place(input: &mut Input, named: &Path, namespace: Option<&str>) -> Result<usize, Problem> {
    let found = Found::at(named).map_err(|error| Problem::new(format!("{}: {error}", named.display())))?;
    input.unread.extend(found.unread);
    let mut objects = 0;
    for file in found.files {
        let name = file.display().to_string();
        match std::fs::File::open(&file).map_err(|error| error.to_string()).and_then(text_of) {
            Ok(text) => objects += manifests::add(input, &name, &text, namespace),
            Err(error) if file == *named => return Err(Problem::new(format!("{name}: {error}"))),
            Err(error) => input.unread.push(format!("{name}: {error}")),
        }
    }
    Ok(objects)
}

/// What is in a folder.
#[derive(Default)]
struct Found {
    /// The manifests, in the order of their names.
    files: Vec<PathBuf>,
    /// What may hold manifests and is not read.
    unread: Vec<String>,
}

impl Found {
    /// The file, or what is in the folder.
    fn at(place: &Path) -> Result<Self, String> {
        let mut found = Self::default();
        if place.is_dir() {
            found.folder(place, place, 0)?;
        } else {
            found.files.push(place.to_owned());
        }
        Ok(found)
    }

    /// Adds what is in a folder, which is `root` or in it.
    fn folder(&mut self, root: &Path, folder: &Path, depth: usize) -> Result<(), String> {
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if depth == 0 => return Err(error.to_string()),
            Err(error) => {
                self.unread.push(format!("{}: {error}", folder.display()));
                return Ok(());
            }
        };
        let mut paths = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) => paths.push(entry.path()),
                Err(error) => self.unread.push(format!("an entry of {}: {error}", folder.display())),
            }
        }
        paths.sort();
        for path in paths {
            self.entry(root, path, depth)?;
            if self.files.len().max(self.unread.len()) > FILES {
                return Err(format!("it has more than {FILES} files: name a smaller folder"));
            }
        }
        Ok(())
    }

    /// Adds an entry of a folder. Links to files are read, which cannot lead back. Links to folders are not followed.
    fn entry(&mut self, root: &Path, path: PathBuf, depth: usize) -> Result<(), String> {
        let shown = path.display();
        match std::fs::metadata(&path) {
            Err(error) => self.unread.push(format!("{shown}: {error}")),
            // it is read in its own place
            Ok(kind) if kind.is_dir() && leads_back(root, &path) => {}
            Ok(kind) if kind.is_dir() && path.is_symlink() => {
                self.unread.push(format!("{shown} is a link to a folder, which is not followed: name it"));
            }
            Ok(kind) if kind.is_dir() && depth >= DEPTH => {
                self.unread.push(format!("{shown} is more than {DEPTH} folders deep: name it"));
            }
            Ok(kind) if kind.is_dir() => self.folder(root, &path, depth + 1)?,
            Ok(_) if !is_manifest(&path) => {}
            Ok(kind) if kind.is_file() => self.files.push(path),
            Ok(_) => self.unread.push(format!("{shown} is no regular file: name it")),
        }
        Ok(())
    }
}

/// Whether this is a link to what is in `root`.
fn leads_back(root: &Path, link: &Path) -> bool {
    let target = || link.canonicalize();
    link.is_symlink() && root.canonicalize().is_ok_and(|root| target().is_ok_and(|target| target.starts_with(root)))
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
}

fn text_of(reader: impl Read) -> Result<String, String> {
    let mut bytes = Vec::new();
    let limit = manifests::FILE_MAX as u64 + 1;
    reader.take(limit).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() > manifests::FILE_MAX {
        return Err(format!("it has more than {} bytes", manifests::FILE_MAX));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const CREDENTIAL: &str = "apiVersion: credentials.itwin.dev/v1alpha1\nkind: ITwinServiceCredential\n\
                              metadata: {name: a}\nspec: {clientCredentialsRef: {name: c}}\n";

    fn read_all(place: &Path) -> Input {
        read(&[place.to_owned()], Some("team")).expect("read")
    }

    #[test]
    fn folders_are_read_with_what_is_in_them() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("inner")).expect("a folder");
        for name in ["a.yaml", "inner/b.yml", "inner/c.json", "inner/ignored.txt"] {
            std::fs::write(folder.path().join(name), CREDENTIAL).expect("a file");
        }
        std::fs::write(folder.path().join("values.yaml"), "replicas: 1\n").expect("a file");
        std::fs::write(folder.path().join("binary.yaml"), b"\xff").expect("a file");
        let input = read_all(folder.path());
        assert_eq!((input.credentials.len(), input.unread.len()), (3, 1), "{:?}", input.unread);
        assert_eq!(input.credentials[0].metadata.namespace.as_deref(), Some("team"));
        let missing = read(&[folder.path().join("missing.yaml")], None).expect_err("missing");
        assert!(missing.to_string().contains("missing.yaml"));
        let binary = read(&[folder.path().join("binary.yaml")], None).expect_err("named");
        assert!(binary.to_string().contains("UTF-8"));
    }

    #[test]
    fn links_to_files_are_read_and_what_is_not_read_is_named() {
        let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        std::fs::write(other.path().join("data"), CREDENTIAL).expect("a file");
        std::fs::create_dir(folder.path().join("inner")).expect("a folder");
        let link = |target: PathBuf, name: &str| symlink(target, folder.path().join(name)).expect("a link");
        link(other.path().join("data"), "linked.yaml");
        link(folder.path().to_owned(), "inner/loop");
        let input = read_all(folder.path());
        assert_eq!((input.credentials.len(), input.unread.len()), (1, 0), "{:?}", input.unread);
        link(other.path().to_owned(), "outside");
        link(other.path().join("gone"), "broken.yaml");
        let deep = ["d"; DEPTH + 1].iter().collect::<PathBuf>();
        std::fs::create_dir_all(folder.path().join(&deep)).expect("a folder");
        let unread = read_all(folder.path()).unread;
        assert_eq!(unread.len(), 3, "{unread:?}");
        let names = ["broken.yaml: ", "d is more than 16 folders deep", "outside is a link to a folder"];
        for (text, name) in unread.iter().zip(names) {
            assert!(text.contains(name), "{unread:?}");
        }
    }

    #[test]
    fn file_and_folder_without_a_manifest_are_not_fine() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.json");
        let unread = || [folder.path(), &file].map(|place| read_all(place).unread.len());
        assert_eq!(read_all(folder.path()).unread.len(), 1, "empty");
        for text in ["", "[]", "{}", "text", "replicas: 1"] {
            std::fs::write(&file, text).expect("a file");
            assert_eq!(unread(), [1, 1], "{text}");
        }
        let array = r#"[{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}]"#;
        for text in [array, r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}"#] {
            std::fs::write(&file, text).expect("a file");
            assert_eq!(unread(), [0, 0], "{text}");
        }
        std::fs::write(&file, array).expect("a file");
        assert_eq!(read_all(&file).workloads.len(), 1);
    }
}
