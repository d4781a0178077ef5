//! A proxy that makes tunnels with CONNECT (RFC 9110 section 9.3.6), as networks have one between an operator and the
//! authorization servers.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use base64::Engine;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// The longest request, in bytes.
const REQUEST_MAX: usize = 8 << 10;

/// What the proxy does.
#[derive(Clone, Debug, Default)]
pub struct Behavior {
    /// The user name and the password that it demands.
    pub user: Option<(String, String)>,
    /// How long it takes to make a tunnel.
    pub delay: Duration,
    /// It makes none, and answers with this status.
    pub refuses: Option<u16>,
}

/// A running proxy. It stops, and closes all its tunnels, when it is dropped.
pub struct Tunnels {
    /// Where it listens.
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<(String, u16)>>>,
    task: JoinHandle<()>,
}

impl Drop for Tunnels {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tunnels {
    /// Starts it at this address of the machine, at any port.
    ///
    /// # Errors
    /// Fails if there is no such address.
    pub async fn start(address: IpAddr, behavior: Behavior) -> Result<Self> {
        let listener = TcpListener::bind((address, 0)).await.with_context(|| format!("a proxy at {address}"))?;
        let address = listener.local_addr()?;
        let requests = Arc::<Mutex<Vec<_>>>::default();
        let served = requests.clone();
        let task = tokio::spawn(async move {
            let mut tunnels = tokio::task::JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                let (behavior, requests) = (behavior.clone(), served.clone());
                tunnels.spawn(async move {
                    // a client that goes away is no error of the proxy
                    let _ = tunnel(connection, &behavior, &requests).await;
                });
            }
        });
        Ok(Self { address, requests, task })
    }

    /// The hosts, with their ports, for which tunnels were demanded, and the status of each answer.
    #[must_use]
    pub fn requests(&self) -> Vec<(String, u16)> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Answers one request, and passes on what follows.
async fn tunnel(mut client: TcpStream, behavior: &Behavior, requests: &Mutex<Vec<(String, u16)>>) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        anyhow::ensure!(head.len() < REQUEST_MAX, "too long");
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    let (target, status) = status(&head, behavior);
    requests.lock().unwrap_or_else(PoisonError::into_inner).push((target.to_owned(), status));
    tokio::time::sleep(behavior.delay).await;
    if status != 200 {
        let answer = format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return Ok(client.write_all(answer.as_bytes()).await?);
    }
    let mut server = TcpStream::connect(target).await?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// Where the tunnel of a request leads, and the status of its answer.
fn status<'a>(head: &'a str, Behavior { user, refuses, .. }: &Behavior) -> (&'a str, u16) {
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let authorization = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find_map(|(name, value)| name.eq_ignore_ascii_case("proxy-authorization").then(|| value.to_owned()));
    let demanded = user.as_ref().map(|(name, password)| {
        let both = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
        format!("Basic {both}")
    });
    let status = match refuses {
        _ if method != "CONNECT" => 405,
        _ if demanded.is_some() && authorization != demanded => 407,
        Some(status) => *status,
        None => 200,
    };
    (target, status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnel_is_made_for_the_user_that_is_demanded() {
        let open = Behavior::default();
        let user = Some(("user".to_owned(), "p@ss".to_owned()));
        let closed = Behavior { user, ..Behavior::default() };
        let refusing = Behavior { refuses: Some(403), ..Behavior::default() };
        let plain = "CONNECT ims.example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n";
        let with = |user: &str| format!("CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: Basic {user}\r\n\r\n");
        assert_eq!(status(plain, &open), ("ims.example.com:443", 200));
        assert_eq!(status(plain, &closed).1, 407);
        assert_eq!(status(&with("dXNlcjpwQHNz"), &closed).1, 200);
        assert_eq!(status(&with("dXNlcjpw"), &closed).1, 407);
        assert_eq!(status(plain, &refusing).1, 403);
        assert_eq!(status("GET http://a HTTP/1.1\r\n\r\n", &open).1, 405);
    }
}
