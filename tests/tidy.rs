//! The layout is as documented: each folder uses only what it may, and each file states its purpose.

#![allow(missing_docs)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// What the code of a folder must not name (docs/architecture.md). Between crates Cargo enforces this; the rest
/// is checked here.
const WALLS: &[(&str, &[&str])] = &[
    ("crates/api", PURE),
    ("crates/oauth", PURE),
    ("crates/core", PURE),
    (
        "src/leadership",
        &[
            "crate::act",
            "crate::cluster",
            "crate::observe",
            "crate::oauth",
            "crate::report",
            "crate::controller",
            "crate::runtime",
            "std::time::Instant",
        ],
    ),
    ("src/observe", &["crate::act", "crate::report", "crate::controller", ".patch(", ".create(", ".patch_metadata("]),
    ("src/act", &["crate::report", "crate::controller", "itwin_core::decide"]),
    ("src/report", &["crate::act", "crate::controller", "crate::oauth", "itwin_core::decide"]),
];

/// What reads a clock or is random: pure code gets both as arguments.
const PURE: &[&str] = &["Utc::now", "SystemTime", "Instant::now", "rand::"];

/// What a pure crate must not depend on.
const PURE_CRATES: &[(&str, &[&str])] = &[
    ("crates/api", &["hyper", "itwin-core", "itwin-oauth", "reqwest", "tokio", "tower"]),
    ("crates/oauth", &["hyper", "itwin-api", "itwin-core", "k8s-openapi", "kube", "reqwest", "tokio", "tower"]),
    ("crates/core", &["hyper", "kube", "reqwest", "tokio", "tower"]),
];

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The code of a file without its comments.
fn code(file: &Path) -> String {
    let text = std::fs::read_to_string(file).expect("a readable file");
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The code without its tests: those may read a clock, to get a first instant.
fn shipped(file: &Path) -> String {
    let is_of_tests = file.parent().is_some_and(|folder| folder.ends_with("tests"));
    if is_of_tests || file.ends_with("tests.rs") {
        return String::new();
    }
    let code = code(file);
    code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
}

#[test]
fn folders_use_only_what_they_may() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut broken = Vec::new();
    for (folder, forbidden) in WALLS {
        for file in files(&project.join(folder)) {
            let code = shipped(&file);
            broken.extend(
                forbidden
                    .iter()
                    .filter(|name| code.contains(**name))
                    .map(|name| format!("{} names {name}", file.display())),
            );
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn pure_crates_depend_on_nothing_that_acts() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut broken = Vec::new();
    for (folder, forbidden) in PURE_CRATES {
        let manifest = std::fs::read_to_string(project.join(folder).join("Cargo.toml")).expect("a manifest");
        let shipped = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        let shipped = shipped.split("\n[").next().unwrap_or_default();
        let dependencies = shipped.lines().filter_map(|line| line.split([' ', '.', '=']).next());
        broken.extend(
            dependencies.filter(|name| forbidden.contains(name)).map(|name| format!("{folder} depends on {name}")),
        );
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn intervals_are_measured_on_the_clock_that_tests_can_steer() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in files(&project.join("src")) {
        let code = shipped(&file);
        let of_std = code.contains("time::{Duration, Instant}") || code.contains("std::time::Instant");
        assert!(!(of_std && code.contains("Instant::now")), "{} reads std's clock, not tokio's", file.display());
    }
}

/// The crates whose modules are layers: within each of their folders, no module reaches itself through what it names.
const LAYERED: &[&str] = &["crates/api/src", "crates/core/src", "crates/oauth/src", "src"];

/// Crates with folders in which modules still name each other in a circle: none.
const CIRCULAR: &[(&str, &str)] = &[];

/// The files of a crate without their tests, each with its module: `requests::breaker` of `requests/breaker.rs`.
fn modules(root: &Path) -> Vec<(String, String)> {
    let module = |file: &Path| {
        let path = file.strip_prefix(root).expect("within the crate").with_extension("");
        let names: Vec<String> = path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        let named = |name: &&String| !["lib", "main", "mod"].contains(&name.as_str());
        names.iter().filter(named).cloned().collect::<Vec<String>>().join("::")
    };
    files(root).iter().map(|file| (module(file), shipped(file))).collect()
}

/// The paths of a `use`: `a::{b, c::d}` names `a::b` and `a::c::d`.
fn paths(tree: &str) -> Vec<String> {
    let Some((prefix, inner)) = tree.split_once('{') else { return vec![tree.trim().to_owned()] };
    let inner = inner.trim_end().strip_suffix('}').unwrap_or(inner);
    let mut depth = 0;
    let parts = inner.split(|c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.flat_map(paths).map(|path| format!("{}{path}", prefix.trim())).collect()
}

/// A path of the module's own crate from the root of the crate on, without `crate` and `super`.
fn from_root(path: &str, module: &str) -> Option<String> {
    if let Some(path) = path.strip_prefix("crate::") {
        return Some(path.to_owned());
    }
    let names: Vec<&str> = path.split("::").collect();
    let up = names.iter().take_while(|name| **name == "super").count();
    let mut from: Vec<&str> = module.split("::").collect();
    from.truncate(from.len().saturating_sub(up));
    from.extend(&names[up..]);
    (up > 0).then(|| from.join("::"))
}

/// The modules of a folder, each with the others of the folder that it names, in a `use` or elsewhere.
fn neighbors(modules: &[(String, String)], folder: &str) -> BTreeMap<String, Vec<String>> {
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}::") };
    let first = |path: &str| path.split("::").next().filter(|name| !name.is_empty()).map(str::to_owned);
    let within = |path: &str| first(path.strip_prefix(&prefix)?);
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (module, code) in modules {
        let Some(own) = within(module) else { continue };
        let imports = code.split("use ").skip(1).filter_map(|rest| rest.split(';').next()).flat_map(paths);
        let elsewhere = code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).map(str::to_owned);
        let named = imports.chain(elsewhere).filter_map(|path| within(&from_root(&path, module)?));
        let others: Vec<String> = named.filter(|other| *other != own).collect();
        found.entry(own).or_default().extend(others);
    }
    found
}

/// A way back from `module` to itself, if there is one.
fn circle(imports: &BTreeMap<String, Vec<String>>, module: &str) -> Option<String> {
    let (mut open, mut reached) = (vec![vec![module.to_owned()]], Vec::new());
    while let Some(path) = open.pop() {
        for next in path.last().and_then(|last| imports.get(last)).into_iter().flatten() {
            if next == module {
                return Some(format!("{} -> {next}", path.join(" -> ")));
            }
            if !reached.contains(next) {
                reached.push(next.clone());
                open.push(path.iter().chain([next]).cloned().collect());
            }
        }
    }
    None
}

// A module and the modules below it are one here, since a submodule is a part of its parent: `neighbors` takes the first
// name of a path below the folder. `files_are_layers` separates them.
#[test]
fn modules_are_layers() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut circles = Vec::new();
    for root in LAYERED {
        let modules = modules(&project.join(root));
        let mut folders: Vec<&str> =
            modules.iter().filter_map(|(module, _)| Some(module.rsplit_once("::")?.0)).collect();
        folders.push("");
        folders.sort_unstable();
        folders.dedup();
        for folder in folders {
            let neighbors = neighbors(&modules, folder);
            let circle = neighbors.keys().find_map(|module| circle(&neighbors, module));
            match (circle, CIRCULAR.contains(&(*root, folder))) {
                (Some(circle), false) => circles.push(format!("{root}/{folder}: {circle}")),
                (None, true) => circles.push(format!("{root}/{folder} is without a circle: remove it from CIRCULAR")),
                (Some(_), true) | (None, false) => {}
            }
        }
    }
    assert!(circles.is_empty(), "{}", circles.join("\n"));
    let controller = neighbors(&modules(&project.join("src")), "controller");
    assert!(controller["reconcile"].contains(&"reconciler".to_owned()), "the imports are found: {controller:?}");
}

/// Modules that the files below them name back: those hold methods of its type.
const NAMED_BACK: &[(&str, &str)] = &[("crates/core/src", "retry_state")];

/// The paths that a module imports, and its code without them. What it only passes on to others is in neither.
fn split_imports(code: &str) -> (Vec<String>, String) {
    let (mut imports, mut rest) = (Vec::new(), String::new());
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let start = line.trim_start();
        let is_export = start.starts_with("pub") && start.contains(" use ");
        if !is_export && !start.starts_with("use ") {
            rest.push_str(line);
            rest.push('\n');
            continue;
        }
        let mut statement = start.to_owned();
        while !statement.contains(';')
            && let Some(line) = lines.next()
        {
            statement.push_str(line);
        }
        if !is_export {
            let tree = statement.strip_prefix("use ").and_then(|tree| tree.split(';').next());
            imports.extend(tree.into_iter().flat_map(paths));
        }
    }
    (imports, rest)
}

/// The module of a path that another one names: the longest beginning of it that is one.
fn module_of(path: &str, module: &str, known: &BTreeSet<&str>) -> Option<String> {
    let below = |path: &str| if module.is_empty() { path.to_owned() } else { format!("{module}::{path}") };
    let from_here = path.strip_prefix("self::").map(below);
    let full = from_here.or_else(|| from_root(path, module)).unwrap_or_else(|| below(path));
    let names: Vec<&str> = full.split("::").collect();
    (1..=names.len()).rev().map(|count| names[..count].join("::")).find(|name| known.contains(name.as_str()))
}

/// The files of a crate as modules, each with the other ones that it names; a parent and those below it are separate.
fn named_files(modules: &[(String, String)]) -> BTreeMap<String, Vec<String>> {
    // without the root of a crate, which lists its modules: what names it looks like what names no module
    let known: BTreeSet<&str> =
        modules.iter().map(|(module, _)| module.as_str()).filter(|module| !module.is_empty()).collect();
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (module, code) in modules {
        let (imports, rest) = split_imports(code);
        let elsewhere = rest.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        let elsewhere = elsewhere.filter(|path| path.contains("::")).map(str::to_owned);
        let named = imports.into_iter().chain(elsewhere).filter_map(|path| module_of(&path, module, &known));
        let others: Vec<String> = named.filter(|other| other != module).collect();
        found.entry(module.clone()).or_default().extend(others);
    }
    found
}

#[test]
fn files_are_layers() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut circles = Vec::new();
    for root in LAYERED {
        let mut named = named_files(&modules(&project.join(root)));
        for (_, parent) in NAMED_BACK.iter().filter(|(of, _)| of == root) {
            assert!(circle(&named, parent).is_some(), "{root}: {parent} is not named back: remove it from NAMED_BACK");
            let children = named.iter_mut().filter(|(module, _)| module.starts_with(&format!("{parent}::")));
            children.for_each(|(_, others)| others.retain(|other| other != parent));
        }
        circles.extend(named.keys().find_map(|module| circle(&named, module)).map(|found| format!("{root}: {found}")));
    }
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

/// The layer of each module of the core, from the lowest, as docs/architecture.md lists them.
fn documented_layers(text: &str) -> BTreeMap<String, usize> {
    let section = text.split("\n## The layers of the core\n").nth(1).expect("the section");
    let table = section.lines().skip_while(|line| !line.starts_with("| layer |")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|')).enumerate();
    rows.flat_map(|(layer, row)| row.split('`').skip(1).step_by(2).map(move |module| (module.to_owned(), layer)))
        .collect()
}

#[test]
fn layers_of_the_core_are_as_documented() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(project.join("docs/architecture.md")).expect("a readable file");
    let layers = documented_layers(&text);
    let mut found = neighbors(&modules(&project.join("crates/core/src")), "");
    // for tests only
    found.remove("samples");
    let mut wrong: Vec<String> = layers
        .keys()
        .filter(|module| !found.contains_key(*module))
        .map(|module| format!("there is no {module}"))
        .collect();
    for (module, named) in &found {
        let Some(own) = layers.get(module) else {
            wrong.push(format!("{module} is in no layer"));
            continue;
        };
        let above = named.iter().filter(|other| layers.get(*other).is_some_and(|layer| layer > own));
        wrong.extend(above.map(|other| format!("{module} names {other}, which is of a higher layer")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn image_holds_the_binary_that_the_tests_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["Dockerfile", "scripts/image", "Makefile"] {
        let text = std::fs::read_to_string(root.join(file)).expect("a readable file");
        // another C library resolves names in another way
        for wanted in ["-C target-feature=+crt-static", "-unknown-linux-gnu"] {
            assert!(text.contains(wanted), "{file} does not build with {wanted}");
        }
        assert!(!text.contains("musl") && !text.contains("alpine"), "{file}");
    }
    // also for what the tests run, not only for the image and the measurements
    let makefile = std::fs::read_to_string(root.join("Makefile")).expect("a readable file");
    assert!(makefile.contains("\nexport CARGO_BUILD_TARGET := $(STATIC)\n"), "make builds for another target");
}

#[test]
fn circle_of_modules_is_found() {
    let found = |code: &[(&str, &str)], folder: &str| {
        let modules: Vec<(String, String)> =
            code.iter().map(|(module, code)| ((*module).to_owned(), (*code).to_owned())).collect();
        neighbors(&modules, folder)
    };
    let round = found(
        &[
            ("a", "use super::{Thing, b::{self, Other}, other};"),
            ("b::inner", "use super::super::c::{a, Thing};"),
            ("c", "fn thing() { crate::a::thing() }"),
        ],
        "",
    );
    assert_eq!(circle(&round, "a").as_deref(), Some("a -> b -> c -> a"));
    let line =
        &[("f::a", "use super::{c::b, b};"), ("f::b", "use crate::f::c;"), ("f::c", "use other::a; use super::x;")];
    let line = found(line, "f");
    assert_eq!(circle(&line, "a"), None);
    assert_eq!(line["a"], ["c", "b"]);
}

#[test]
fn child_that_names_its_parent_back_is_found() {
    let circle_of = |parent: &str, child: &str| {
        let modules = [("a", parent), ("a::b", child), ("a::c", "use std::fmt;"), ("", "pub mod a;")];
        let named = named_files(&modules.map(|(module, code)| (module.to_owned(), code.to_owned())));
        circle(&named, "a")
    };
    let uses = "mod b;\nuse self::b::Thing;";
    assert_eq!(circle_of(uses, "use super::Parent;").as_deref(), Some("a -> a::b -> a"));
    assert_eq!(circle_of("fn f() { b::thing() }", "fn g() { crate::a::f() }").as_deref(), Some("a -> a::b -> a"));
    assert_eq!(circle_of(uses, "use super::c::Sibling;\nuse std::fmt;"), None);
    // what is passed on is not used, and what is not named back is below
    assert_eq!(circle_of("pub use self::{b::Thing, c::Other};", "use super::Parent;"), None);
    assert_eq!(circle_of("use std::b::Thing;", "use super::Parent;"), None);
}

#[test]
fn every_file_states_its_purpose() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["src", "crates", "tests"] {
        for file in files(&project.join(folder)) {
            let text = std::fs::read_to_string(&file).expect("a readable file");
            assert!(text.starts_with("//! "), "{} does not open with its purpose", file.display());
        }
    }
}

#[test]
fn secrets_are_exposed_in_few_places() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let exposing: Vec<String> = ["src", "crates"]
        .into_iter()
        .flat_map(|folder| files(&project.join(folder)))
        .filter(|file| shipped(file).contains(".expose()"))
        .map(|file| file.strip_prefix(project).expect("within the project").display().to_string())
        .collect();
    let mut exposing = exposing;
    exposing.sort();
    // the Secret that is written; digests; what may be no identifier; the signature check; the key of the assertion; the request; the reader of the
    // client Secret; and of the plugin, what prints a token for who asks for it, and what writes a new client secret
    assert_eq!(
        exposing,
        [
            "crates/core/src/desired_secret.rs",
            "crates/core/src/fingerprint.rs",
            "crates/kubectl-itcred/src/commands/rotate.rs",
            "crates/kubectl-itcred/src/commands/token.rs",
            "crates/kubectl-itcred/src/rotation.rs",
            "crates/oauth/src/identifier.rs",
            "crates/oauth/src/jwt/mod.rs",
            "crates/oauth/src/private_key.rs",
            "crates/oauth/src/token/mod.rs",
            "src/observe/client_secret.rs",
        ]
    );
}

/// The text between the first pair of quotation marks after `key`.
fn quoted<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(key)?;
    rest.split('"').nth(1)
}

/// The versions of each crate, as Cargo resolved them.
fn resolved(lock: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let mut lines = package.lines();
        let name = lines.find_map(|line| quoted(line, "name = ")).expect("a package has a name");
        let version = lines.find_map(|line| quoted(line, "version = ")).expect("a package has a version");
        versions.entry(name).or_default().push(version);
    }
    versions
}

#[test]
fn second_version_of_a_crate_has_a_reason() {
    let lock = std::fs::read_to_string("Cargo.lock").expect("Cargo.lock");
    let versions = resolved(&lock);
    let deny = std::fs::read_to_string("deny.toml").expect("deny.toml");
    assert!(deny.contains("multiple-versions = \"deny\""), "cargo-deny accepts any number of versions");
    let (_, skip) = deny.split_once("skip = [").expect("the exceptions");
    let skip = skip.split_once("\n]").expect("the end of the exceptions").0;
    let exceptions: Vec<(&str, &str)> = skip
        .lines()
        .filter_map(|line| {
            assert!(quoted(line, "reason = ").is_none_or(|reason| !reason.is_empty()), "no reason: {line}");
            quoted(line, "crate = ").and_then(|name| name.split_once('@'))
        })
        .collect();
    let is_excepted = |name: &str, version: &str| {
        exceptions.iter().any(|(known, prefix)| *known == name && version.starts_with(&format!("{prefix}.")))
    };
    for (name, found) in &versions {
        let others = found.iter().filter(|version| !is_excepted(name, version)).count();
        assert!(
            others <= 1,
            "{name} stands in Cargo.lock in the versions {found:?}: give deny.toml a reason, or use one"
        );
    }
    for (name, prefix) in &exceptions {
        let found = versions.get(name).map_or(&[][..], Vec::as_slice);
        let is_needed = found.len() > 1 && found.iter().any(|version| is_excepted(name, version));
        assert!(is_needed, "deny.toml excepts {name}@{prefix}, and Cargo.lock has {found:?}: remove it");
    }
}
