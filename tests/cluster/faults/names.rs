//! Name servers as networks have them, with the program that the image holds: its C library is linked in, and resolves
//! names. Each operator has a `resolv.conf` of its own, in a mount namespace, for which root is needed.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use testbed::{
    Testbed,
    dns::{Dns, Reply},
    operator::Operator,
};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    environment::TestEnvironment,
    faults::row::RowFixture,
    fixture::{Fixture, PROGRAM},
};

const PATIENCE: Duration = Duration::from_secs(90);
/// The name of a certificate of the faulty server.
const HOST: &str = "elsewhere.example.com";
const V4: Reply = Reply::Address(IpAddr::V4(Ipv4Addr::LOCALHOST));
const V6: Reply = Reply::Address(IpAddr::V6(Ipv6Addr::LOCALHOST));
/// An address of the discard prefix (RFC 6666), which leads nowhere.
const NOWHERE: Reply = Reply::Address(IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1)));

/// Why there is no mount namespace, if that is so.
fn lacks() -> Option<&'static str> {
    let mount = ["--mount", "mount", "--bind", "/etc/resolv.conf", "/etc/resolv.conf"];
    let works = Command::new("unshare").args(mount).output().is_ok_and(|output| output.status.success());
    (!works).then_some("root and unshare (util-linux) are needed")
}

/// A program that runs the operator with this `resolv.conf`, and without the name services of the machine.
fn program(folder: &Path, resolv_conf: &str) -> Result<PathBuf> {
    let (resolv, switch, script) = (folder.join("resolv.conf"), folder.join("nsswitch.conf"), folder.join("operator"));
    std::fs::write(&resolv, resolv_conf)?;
    std::fs::write(&switch, "hosts: files dns\n")?;
    let (resolv, switch) = (resolv.display(), switch.display());
    let mount = format!("mount --bind {resolv} /etc/resolv.conf && mount --bind {switch} /etc/nsswitch.conf");
    let text = format!("#!/bin/sh\nexec unshare --mount sh -c '{mount} && exec {PROGRAM} \"$@\"' operator \"$@\"\n");
    std::fs::write(&script, text)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    Ok(script)
}

/// Passes connections to `[::1]` on to the server, which listens on IPv4.
async fn forward(port: u16) -> Result<tokio::task::JoinHandle<()>> {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await.context("no IPv6 on the loopback interface")?;
    Ok(tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut to) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                }
            });
        }
    }))
}

/// A network: its name, and what the name server answers for IPv4 and for IPv6.
type Network = (&'static str, Reply, Reply);

/// What a pod has in its `resolv.conf` in addition to a name server.
const OF_A_POD: &str = "search a.invalid b.invalid\noptions ndots:5\n";

/// The variable by which the image shortens the time limits of the resolver, so that they are within connectTimeout.
fn of_the_image() -> Result<String> {
    let dockerfile = std::fs::read_to_string(testbed::project().join("Dockerfile"))?;
    let line = dockerfile.lines().find_map(|line| line.strip_prefix("ENV RES_OPTIONS="));
    Ok(line.context("no RES_OPTIONS in the Dockerfile")?.trim_matches('"').to_owned())
}

async fn play((name, v4, v6): &Network) -> Result<()> {
    let environment = TestEnvironment::new(&format!("names-{name}")).await?;
    let (dns, folder) = (Dns::start(*v4, *v6)?, tempfile::tempdir()?);
    let program = program(folder.path(), &format!("{}{OF_A_POD}", dns.resolv_conf()))?;
    let (namespace, options) = (&environment.namespace, of_the_image()?);
    let [kubeconfig] = environment.proxy().variables();
    let variables = [kubeconfig, ("RES_OPTIONS", options.as_str())];
    let mut operator = Operator::spawn(&namespace.testbed, &program, &namespace.name, &[], &variables)?;
    operator.wait_ready().await?;
    let fixture = RowFixture::of(Fixture { client: namespace.new_client(), operator, environment });
    let at = |path: &str| format!("https://{HOST}:{}{path}", fixture.faults().tls.wrong_name);
    let spec = json!({"tokenEndpoint": at("/connect/token"), "jwksUri": at("/keys"), "requestTimeout": "20s"});
    let authority = fixture.create_authority(name, &spec).await?;
    fixture.create_client_secret(name).await?;
    fixture.create_credential(name, &authority, name, &json!({})).await?;
    let ready = fixture.wait(name, "Ready", true, "TokenValid", PATIENCE).await;
    ready.map(drop).with_context(|| format!("{name}: {}", fixture.operator.process.log_tail()))
}

#[tokio::test]
async fn names_are_resolved_whatever_the_other_kind_of_question_is_answered_with() -> Result<()> {
    if let Some(why) = lacks() {
        return Testbed::current()?.skip("tests with name servers of their own", why);
    }
    let tls = Testbed::current()?.faults.tls;
    let _forwarded = forward(tls.wrong_name).await?;
    let networks = [
        ("v4-nxdomain", V4, Reply::NoSuchName),
        ("v4-servfail", V4, Reply::ServerFailure),
        ("v4-silence", V4, Reply::Silence),
        ("v4-alone", V4, Reply::NoData),
        ("v6-alone", Reply::NoData, V6),
        ("v6-nxdomain", Reply::NoSuchName, V6),
        ("v6-servfail", Reply::ServerFailure, V6),
        ("dual-stack", V4, V6),
        ("v6-nowhere", V4, NOWHERE),
    ];
    stream::iter(&networks).map(play).buffer_unordered(4).try_collect().await
}

/// `make` links what it builds and tests as the image is linked.
#[test]
fn program_under_test_is_linked_as_these_tests_are() -> Result<()> {
    const INTERPRETER: &[u8] = b"ld-linux";
    let program = std::fs::read(PROGRAM)?;
    // the path of a loader is in the first kilobyte of a program that needs one
    let start = &program[..program.len().min(1024)];
    let needs_a_loader = start.windows(INTERPRETER.len()).any(|window| window == INTERPRETER);
    if cfg!(target_os = "linux") {
        assert_eq!(needs_a_loader, !cfg!(target_feature = "crt-static"));
    }
    if needs_a_loader {
        let why = "the program is not linked as in the image: run them with make, and install the static C library";
        Testbed::current()?.skip("tests of the program that the image holds", why)?;
    }
    Ok(())
}
