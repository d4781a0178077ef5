//! `make demo` builds only what it runs: nothing that only tests need, and with `CLUSTER` no control plane.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use testbed::Testbed;

use crate::{
    Cluster, PROGRAM, crds,
    demo::{demo, played},
};

/// The beginning of the name of the folder with the authorization server, which is not built.
const SERVER: &str = "authority-";
/// Programs, each with the beginning of the name of its folder.
const CLIENTS: [(&str, &str); 2] = [("kubernetes-", "kubectl"), ("helm-", "helm")];
const CONTROL_PLANE: [(&str, &str); 3] =
    [("kubernetes-", "etcd"), ("kubernetes-", "kube-apiserver"), ("kubernetes-", "kube-controller-manager")];

/// The names in a folder.
fn names(folder: &Path) -> Result<BTreeSet<String>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// The programs in a cache, each with its folder.
fn programs(cache: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for folder in names(cache)?.iter().filter(|name| !name.starts_with(SERVER) && cache.join(name).is_dir()) {
        found.extend(names(&cache.join(folder))?.into_iter().map(|program| Path::new(folder).join(program)));
    }
    Ok(found)
}

/// Plays a demo that ends with these words, with a cache that has only these programs, and fails if it builds others.
fn builds_nothing(testbed: &Testbed, needed: &[(&str, &str)], mut demo: Command, end: &str) -> Result<()> {
    let from = testbed.kubectl.parent().and_then(Path::parent).context("kubectl is not in the cache")?;
    let to = tempfile::tempdir()?;
    for program in programs(from)? {
        let is_needed = |(folder, name): &(&str, &str)| {
            program.to_string_lossy().starts_with(folder) && program.file_name().is_some_and(|found| found == *name)
        };
        if needed.iter().any(is_needed) {
            let link = to.path().join(&program);
            std::fs::create_dir_all(link.parent().context("a folder")?)?;
            std::os::unix::fs::symlink(from.join(&program), link)?;
        }
    }
    for server in names(from)?.iter().filter(|name| name.starts_with(SERVER)) {
        std::os::unix::fs::symlink(from.join(server), to.path().join(server))?;
    }
    let before = programs(to.path())?;
    ensure!(before.len() >= needed.len(), "the cache has only {before:?}");
    demo.env("TESTBED_CACHE", to.path());
    let (succeeded, said) = played(demo)?;
    ensure!(!succeeded && said.contains(end), "it ended in another way: {said}");
    assert_eq!(programs(to.path())?, before, "{said}");
    Ok(())
}

#[test]
fn demo_builds_nothing_that_only_tests_run() -> Result<()> {
    // ends at the step that starts the operator
    let mut demo = Command::new(Path::new(PROGRAM).with_file_name("testbed"));
    demo.args(["demo", "false"]).env_remove("CLUSTER");
    let needed = [&CLIENTS[..], &CONTROL_PLANE[..]].concat();
    builds_nothing(&Testbed::current()?, &needed, demo, "the operator did not become ready")
}

#[tokio::test]
async fn demo_on_a_cluster_of_the_user_builds_no_control_plane() -> Result<()> {
    let cluster = Cluster::new("demo-programs").await?;
    cluster.testbed.kubectl(&["apply", "--server-side", "-f", &crds()]).await?;
    builds_nothing(&cluster.testbed, &CLIENTS, demo(&cluster)?, "has the CRDs of the operator already")
}
