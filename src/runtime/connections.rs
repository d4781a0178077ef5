//! Serves short HTTP responses to clients that may be hostile: anything in the cluster that reaches the port.
//!
//! Memory, sockets and time are bounded, and a client cannot keep others out. A new connection is always accepted. If
//! there are too many, the oldest one of the address that has most of them is closed, so a client with few connections,
//! such as the kubelet, is served while another one opens thousands. A connection serves one request of HTTP/1 and has
//! one deadline: connections that are kept for later requests would need more bounds, and probes and scrapes gain
//! nothing from them.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::ready,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tower::BoxError;

/// The longest header of a request, and what is encoded of a response before the client reads it, in bytes. Probes and
/// scrapes have less than 1 KiB. hyper's default of 400 KiB is more memory for each connection than all else.
const BUFFER: usize = 16 << 10;
/// The socket buffers of a connection, in bytes; the kernel doubles them. They count as memory of the container, and
/// without a limit the kernel enlarges them up to megabytes for clients that read slowly.
const SEND_BUFFER: u32 = 64 << 10;
const RECEIVE_BUFFER: u32 = 16 << 10;
/// Connections that wait to be accepted, as in Rust's standard library. They wait for milliseconds.
const BACKLOG: u32 = 1024;
/// What is read of a request's body after the response, in bytes, until the connection is reset.
const BODY: usize = 64 << 10;
/// The pause after a failure to accept, such as too many open files: an immediate attempt would fail too.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// The time between two warnings of the same kind, which clients can cause at will.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The limits of a server.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Connections at the same time.
    pub connections: usize,
    /// The deadline for the header of the request.
    pub header: Duration,
    /// The deadline for the whole connection, until the client has received the response.
    pub exchange: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // a few probes and scrapes; each connection takes less than 1 MiB in the worst case
            connections: 32,
            // the timeout of probes is 3 s
            header: Duration::from_secs(5),
            // the default timeout of scrapes is 10 s
            exchange: Duration::from_secs(30),
        }
    }
}

/// Opens a socket whose connections have small buffers in the kernel.
///
/// # Errors
/// If the address is in use or the machine does not have it.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // connections of a process that has ended do not keep the port
    socket.set_reuseaddr(true)?;
    // connections inherit both
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves what `respond` returns, indefinitely.
pub async fn serve<R, B>(listener: TcpListener, limits: Limits, respond: R)
where
    R: Fn(&Request<Incoming>) -> Response<B> + Send + Sync + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let respond = Arc::new(respond);
    let mut open = Open { most: limits.connections, connections: Vec::new(), warnings: Occasional::default() };
    let mut failures = Occasional::default();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let peer = peer.ip();
                open.make_room(peer).await;
                let (end, ended) = oneshot::channel();
                let task = tokio::spawn(exchange(stream, limits, respond.clone(), ended));
                open.connections.push(Connection { peer, end, task });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if failures.is_due() {
                    tracing::warn!(%error, "failed to accept a connection to the probes and metrics, retrying");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The client ended the connection before it was accepted. Any other failure concerns the next connection too.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// An open connection. It ends when this is dropped.
struct Connection {
    peer: IpAddr,
    end: oneshot::Sender<Infallible>,
    task: JoinHandle<()>,
}

/// The open connections, from the oldest.
struct Open {
    most: usize,
    connections: Vec<Connection>,
    warnings: Occasional,
}

impl Open {
    /// Closes a connection if another one, of `newcomer`, would be too many.
    async fn make_room(&mut self, newcomer: IpAddr) {
        self.connections.retain(|connection| !connection.task.is_finished());
        if self.connections.len() < self.most {
            return;
        }
        let surplus = self.surplus(newcomer);
        let Connection { peer, end, task } = self.connections.remove(surplus);
        if self.warnings.is_due() {
            let most = self.most;
            tracing::warn!(address = %peer, most, "too many connections to the probes and metrics, closing the oldest");
        }
        drop(end);
        // until its memory is free; an error means that it panicked, which frees it too
        let _ = task.await;
    }

    /// The oldest connection of the address that has most of them, with the one of `newcomer`.
    fn surplus(&self, newcomer: IpAddr) -> usize {
        let mut counts = HashMap::from([(newcomer, 1)]);
        for connection in &self.connections {
            *counts.entry(connection.peer).or_insert(0) += 1;
        }
        // of equal counts the last one is taken, which is the oldest
        let from_newest = (0..self.connections.len()).rev();
        from_newest.max_by_key(|at| counts.get(&self.connections[*at].peer)).unwrap_or_default()
    }
}

/// Something that is logged from time to time, however often it happens.
#[derive(Default)]
struct Occasional {
    last: Option<Instant>,
}

impl Occasional {
    fn is_due(&mut self) -> bool {
        let is_due = self.last.is_none_or(|last| last.elapsed() >= WARNING_INTERVAL);
        if is_due {
            self.last = Some(Instant::now());
        }
        is_due
    }
}

/// Serves one request, until the client has received the response, the deadline, or `ended`.
async fn exchange<R, B>(stream: TcpStream, limits: Limits, respond: Arc<R>, ended: oneshot::Receiver<Infallible>)
where
    R: Fn(&Request<Incoming>) -> Response<B> + Send + Sync + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let mut over = pin!(async move {
        tokio::select! {
            _ = ended => {}
            () = sleep(limits.exchange) => {}
        }
    });
    let service = service_fn(move |request: Request<Incoming>| ready(Ok::<_, Infallible>(respond(&request))));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_buf_size(BUFFER)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let served = tokio::select! {
        biased;
        served = &mut connection => Some(served),
        () = over.as_mut() => None,
    };
    // the response to something that is no request is short, and a reset could overtake it
    if matches!(&served, Some(Err(error)) if error.is_parse()) {
        return;
    }
    let stream = connection.into_parts().io.into_inner();
    if matches!(served, Some(Ok(()))) {
        tokio::select! {
            biased;
            () = closed_by_client(&stream) => {}
            () = over.as_mut() => {}
        }
    }
    // the kernel would keep what the client has not read, for minutes, and it would be counted nowhere
    let _ = stream.set_zero_linger();
}

/// Waits until the client closes the connection, which it does when it has received the response.
async fn closed_by_client(stream: &TcpStream) {
    let (mut rest, mut length) = ([0; 1 << 10], 0);
    while length < BODY && stream.readable().await.is_ok() {
        match stream.try_read(&mut rest) {
            Ok(0) => return,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests;
