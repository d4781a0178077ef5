//! The programs of `examples/workloads`, which read the token from a file as a pod does.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::json;
use testbed::authority::certificates;
use tokio::process::{Child, Command};

use crate::fixture::{Fixture, NAME, PATIENCE};

/// The limit of the build of a program, and of its first call, on a busy machine.
const SLOW: Duration = Duration::from_secs(300);

/// A server that accepts calls with some tokens alone.
struct Api {
    url: String,
    ca: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    accepted: Vec<String>,
    /// The tokens of the calls to each path, without those of the same token before.
    calls: BTreeMap<String, Vec<String>>,
    rejected: Vec<String>,
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Api {
    fn start(folder: &Path) -> Result<Self> {
        let (ca, certificate, key) = certificates(&["localhost"])?;
        let certificate = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>()?;
        let tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(certificate, PrivateKeyDer::from_pem_slice(key.as_bytes())?)?;
        let (tls, state) = (Arc::new(tls), Arc::new(Mutex::new(State::default())));
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("https://localhost:{}", listener.local_addr()?.port());
        let served = state.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (tls, state) = (tls.clone(), served.clone());
                std::thread::spawn(move || serve(connection, tls, &state));
            }
        });
        let file = folder.join("ca.pem");
        std::fs::write(&file, ca)?;
        Ok(Self { url, ca: file, state })
    }

    fn accept(&self, tokens: &[&str]) {
        locked(&self.state).accepted = tokens.iter().map(|token| (*token).to_owned()).collect();
    }
}

/// Answers the requests of a connection, which have no body.
fn serve(connection: TcpStream, tls: Arc<ServerConfig>, state: &Mutex<State>) -> Option<()> {
    let mut stream = StreamOwned::new(ServerConnection::new(tls).ok()?, connection);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).ok()?;
        let path = head.split(' ').nth(1)?.to_owned();
        let token = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            value.strip_prefix("Bearer ").filter(|_| name.eq_ignore_ascii_case("authorization"))
        });
        let token = token.unwrap_or_default().to_owned();
        let is_accepted = {
            let mut state = locked(state);
            let is_accepted = state.accepted.contains(&token);
            if is_accepted {
                let calls = state.calls.entry(path).or_default();
                calls.push(token);
                calls.dedup();
            } else {
                state.rejected.push(path);
            }
            is_accepted
        };
        let status = if is_accepted { "200 OK" } else { "401 Unauthorized" };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}").ok()?;
        stream.flush().ok()?;
    }
}

/// Replaces the files of a volume as the kubelet does: a link to a folder with all of them.
fn publish(volume: &Path, version: u32, token: &str) -> Result<()> {
    let folder = volume.join(format!("..{version}"));
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("access_token"), token)?;
    let link = volume.join("..data_tmp");
    std::os::unix::fs::symlink(&folder, &link)?;
    std::fs::rename(link, volume.join("..data"))?;
    if version == 0 {
        std::os::unix::fs::symlink("..data/access_token", volume.join("access_token"))?;
    } else {
        std::fs::remove_dir_all(volume.join(format!("..{}", version - 1)))?;
    }
    Ok(())
}

/// The commands that run the programs, by the path that each calls; without those whose toolchain is not there.
async fn programs(folder: &Path) -> Result<Vec<(&'static str, Command)>> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/workloads");
    let go = folder.join("go-client");
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&go).arg(examples.join("client.go")).env("GOTOOLCHAIN", "local");
    let mut known = Vec::new();
    for (path, program, file) in [
        ("/curl", "curl", "curl.sh"),
        ("/python", "python3", "python.py"),
        ("/node", "node", "node.mjs"),
        ("/go", "go", "client.go"),
    ] {
        let version = if program == "go" { "version" } else { "--version" };
        let is_there = Command::new(program).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status().await;
        if !is_there.is_ok_and(|status| status.success()) {
            eprintln!("examples/workloads/{file}: SKIPPED, because this machine has no {program}");
            continue;
        }
        let file = examples.join(file);
        let mut command = match program {
            "curl" => Command::new("sh"),
            "go" => {
                let built = tokio::time::timeout(SLOW, build.status()).await.context("go build takes too long")??;
                ensure!(built.success(), "go build failed");
                Command::new(&go)
            }
            program => Command::new(program),
        };
        if program != "go" {
            command.arg(file);
        }
        known.push((path, command));
    }
    Ok(known)
}

#[tokio::test]
async fn workloads_of_the_examples_use_a_renewed_token_without_a_rejected_call() -> Result<()> {
    let fixture = Fixture::ready("workloads").await?;
    let folder = tempfile::tempdir()?;
    let volume = folder.path().join("volume");
    std::fs::create_dir(&volume)?;
    let api = Api::start(folder.path())?;
    let mut token = fixture.token().await?;
    api.accept(&[&token]);
    publish(&volume, 0, &token)?;

    let mut running: Vec<(&str, Child)> = Vec::new();
    for (path, mut command) in programs(folder.path()).await? {
        command.env("ITWIN_ACCESS_TOKEN_FILE", volume.join("access_token")).env("INTERVAL_SECONDS", "0.2");
        command.env("ITWIN_URL", format!("{}{path}", api.url));
        command.env("NO_PROXY", "localhost").env("no_proxy", "localhost");
        for trust in ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"] {
            command.env(trust, &api.ca);
        }
        running.push((path, command.stdin(Stdio::null()).kill_on_drop(true).spawn()?));
    }
    ensure!(!running.is_empty(), "this machine has none of the toolchains");
    // each calls with the token; then with the next one, before the server stops to accept the first
    for version in 1..=3 {
        let limit = if version == 1 { SLOW } else { PATIENCE };
        fixture
            .eventually("a call of each program with the token in the file", limit, async || {
                let state = locked(&api.state);
                let is_used = |path: &str| state.calls.get(path).and_then(|calls| calls.last()) == Some(&token);
                running.iter().all(|(path, _)| is_used(path)).then_some(())
            })
            .await?;
        api.accept(&[&token]);
        if version == 3 {
            break;
        }
        let renew = format!("credentials.itwin.dev/renew={version}");
        fixture.namespace.kubectl(&["annotate", "itcred", NAME, &renew, "--overwrite"]).await?;
        let next = fixture.wait_token_other_than(&token, PATIENCE).await?;
        api.accept(&[&token, &next]);
        publish(&volume, version, &next)?;
        token = next;
    }
    for (path, program) in &mut running {
        ensure!(program.try_wait()?.is_none(), "{path} ended");
        program.kill().await?;
    }
    let state = locked(&api.state);
    assert_eq!(state.rejected, Vec::<String>::new());
    assert!(state.calls.values().all(|calls| calls.len() == 3), "two renewals: {:?}", state.calls.keys());
    Ok(())
}

#[tokio::test]
async fn secret_of_a_gateway_holds_the_whole_header_after_each_renewal() -> Result<()> {
    let fixture = Fixture::new("gateway").await?;
    let data = json!({"credential": "{{ token_type }} {{ access_token }}"});
    fixture.apply_credential(&json!({"secretTemplate": {"data": data}})).await?;
    fixture.wait_ready().await?;
    let first = fixture.token().await?;
    assert_eq!(fixture.data().await?["credential"], format!("Bearer {first}"));
    fixture.namespace.kubectl(&["annotate", "itcred", NAME, "credentials.itwin.dev/renew=1"]).await?;
    let second = fixture.wait_token_other_than(&first, PATIENCE).await?;
    assert_eq!(fixture.data().await?["credential"], format!("Bearer {second}"));
    assert_eq!(fixture.secret().await?.context("no Secret")?["type"], "Opaque");
    Ok(())
}
