//! A server over TLS in place of the iTwin Platform, which knows the token of each call.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Result;
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use testbed::authority::certificates;

/// What it answers, which is a list of iModels without any.
const BODY: &str = r#"{"iModels": [], "_links": {}}"#;

/// A server that accepts calls with some tokens alone.
pub struct Api {
    pub url: String,
    /// A file with the certificates that its own is to be verified with.
    pub ca: PathBuf,
    state: Arc<Mutex<State>>,
}

/// What it knows of its calls.
#[derive(Default)]
pub struct State {
    accepted: Vec<String>,
    /// The tokens of the calls to each first part of a path, without those of the same token before.
    pub calls: BTreeMap<String, Vec<String>>,
    pub rejected: Vec<String>,
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Api {
    pub fn start(folder: &Path) -> Result<Self> {
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

    /// What it knows now.
    pub fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Accepts these tokens, and no other.
    pub fn accept(&self, tokens: &[&str]) {
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
        let path = head.split(' ').nth(1)?.split(['/', '?']).nth(1)?.to_owned();
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
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len()).ok()?;
        stream.flush().ok()?;
    }
}
