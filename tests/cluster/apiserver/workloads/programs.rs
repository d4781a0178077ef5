//! How the programs of `examples/workloads` are built and started, where their toolchains are.

use std::{ffi::OsStr, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use testbed::{Testbed, project};
use tokio::process::Command;

/// The limit of the build of a program, and of its first call, on a busy machine.
pub const SLOW: Duration = Duration::from_secs(300);

/// The path that each program calls, its file, and a command that works if its toolchain is there.
const PROGRAMS: [(&str, &str, [&str; 2]); 7] = [
    ("curl", "curl.sh", ["curl", "--version"]),
    ("python", "python.py", ["python3", "--version"]),
    ("node", "node.mjs", ["node", "--version"]),
    ("go", "client.go", ["go", "version"]),
    // a Java without its compiler runs no source
    ("java", "Client.java", ["javac", "--version"]),
    ("csharp", "csharp/Program.cs", ["dotnet", "--version"]),
    ("itwin-js", "itwin-js.mjs", ["node", "--version"]),
];

/// The commands that run the programs, by the path that each calls. What cannot run here is noted for the end of the run.
pub async fn commands(testbed: &Testbed, folder: &Path, ca: &Path) -> Result<Vec<(&'static str, Command)>> {
    let mut known = Vec::new();
    for (path, file, [program, argument]) in PROGRAMS {
        let mut version = Command::new(program);
        version.arg(argument);
        let Ok(version) = ended(version).await else {
            testbed.skip(&format!("examples/workloads/{file}"), &format!("this machine has no {program}"))?;
            continue;
        };
        let source = project().join("examples/workloads").join(file);
        let command = match path {
            "curl" => of_program("sh", &source),
            "go" => go(folder, &source).await?,
            "java" => java(folder, &source, ca).await?,
            "csharp" => csharp(folder, &source, &version).await?,
            "itwin-js" => match &testbed.itwin_js {
                Ok(packages) => itwin_js(folder, &source, packages).await?,
                Err(why) => {
                    testbed.skip(&format!("examples/workloads/{file}"), why)?;
                    continue;
                }
            },
            _ => of_program(program, &source),
        };
        known.push((path, command));
    }
    Ok(known)
}

/// What a command printed, if its exit code is 0.
async fn ended(mut command: Command) -> Result<String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let name = format!("{:?}", command.as_std());
    let output = tokio::time::timeout(SLOW, command.output()).await.context("it takes too long")??;
    ensure!(output.status.success(), "{name}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

fn of_program(program: impl AsRef<OsStr>, source: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg(source);
    command
}

async fn go(folder: &Path, source: &Path) -> Result<Command> {
    let built = folder.join("go-client");
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&built).arg(source).env("GOTOOLCHAIN", "local");
    ended(build).await?;
    Ok(Command::new(built))
}

/// Java reads certificates from a store of its own.
async fn java(folder: &Path, source: &Path, ca: &Path) -> Result<Command> {
    let store = folder.join("java.p12");
    let mut import = Command::new("keytool");
    import.args(["-importcert", "-noprompt", "-alias", "ca", "-storetype", "PKCS12", "-storepass", "changeit"]);
    import.arg("-file").arg(ca).arg("-keystore").arg(&store);
    ended(import).await?;
    let mut command = Command::new("java");
    command.arg(format!("-Djavax.net.ssl.trustStore={}", store.display()));
    command.arg("-Djavax.net.ssl.trustStorePassword=changeit").arg(source);
    Ok(command)
}

/// Builds in another folder, for the version of .NET that is there, which needs nothing from a registry.
async fn csharp(folder: &Path, source: &Path, version: &str) -> Result<Command> {
    let Some((major, _)) = version.trim().split_once('.') else { bail!("{version:?} is no version of .NET") };
    let (project, built) = (folder.join("csharp"), folder.join("csharp-client"));
    std::fs::create_dir(&project)?;
    for name in ["Program.cs", "client.csproj"] {
        std::fs::copy(source.with_file_name(name), project.join(name))?;
    }
    let mut build = Command::new("dotnet");
    build.arg("build").arg(&project).arg("--output").arg(&built).arg(format!("-p:TargetFramework=net{major}.0"));
    build.env("DOTNET_CLI_TELEMETRY_OPTOUT", "1").env("DOTNET_NOLOGO", "1");
    ended(build).await?;
    Ok(of_program("dotnet", &built.join("client.dll")))
}

/// Checks the types first: the program implements interfaces of iTwin.js.
async fn itwin_js(folder: &Path, source: &Path, packages: &Path) -> Result<Command> {
    let place = folder.join("itwin-js");
    std::fs::create_dir(&place)?;
    std::os::unix::fs::symlink(packages, place.join("node_modules"))?;
    let program = place.join("client.mjs");
    std::fs::copy(source, &program)?;
    let mut check = of_program("node", &packages.join("typescript/bin/tsc"));
    check.current_dir(&place).args(["--noEmit", "--allowJs", "--checkJs", "--strict", "--skipLibCheck"]);
    check.args(["--module", "nodenext", "--target", "es2022"]).arg(&program);
    ended(check).await?;
    Ok(of_program("node", &program))
}
