//! Hostile clients on real sockets: each is closed by the server, and others are served meanwhile.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures::{future::join_all, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    task::AbortHandle,
    time::timeout,
};

use super::*;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// Limits that no test reaches.
const FAR: Duration = Duration::from_secs(600);
/// A limit that tests wait for.
const NEAR: Duration = Duration::from_secs(2);
const REQUEST: &[u8] = b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n";
/// The addresses of a client that behaves and of one that does not.
const GOOD: [u8; 4] = [127, 0, 0, 1];
const BAD: [u8; 4] = [127, 0, 0, 2];

const LIMITS: Limits = Limits { connections: 8, header: FAR, exchange: FAR };

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A server that stops when this is dropped.
struct Server {
    address: SocketAddr,
    task: AbortHandle,
    /// Pages of `/endless` that were taken.
    pages: Arc<AtomicUsize>,
    /// Closed when no response of `/endless` is left.
    endless: tokio::sync::mpsc::Receiver<Infallible>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    fn start(limits: Limits) -> Self {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let (sender, endless) = tokio::sync::mpsc::channel(1);
        let pages = Arc::new(AtomicUsize::new(0));
        let (counter, sender) = (pages.clone(), std::sync::Mutex::new(Some(sender)));
        let respond = move |request: &Request<Incoming>| -> Response<Body> {
            if request.uri().path() != "/endless" {
                return Response::new(Full::new(Bytes::from_static(b"ok\n")).boxed_unsync());
            }
            let (counter, sender) = (counter.clone(), sender.lock().expect("no panic").take());
            let page = move || {
                // dropped with the response
                let _held = &sender;
                counter.fetch_add(1, Ordering::Relaxed);
                Some(Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[b'x'; BUFFER]))))
            };
            Response::new(StreamBody::new(stream::iter(std::iter::from_fn(page))).boxed_unsync())
        };
        let task = tokio::spawn(serve(listener, limits, respond)).abort_handle();
        Self { address, task, pages, endless }
    }

    /// A connection from this address that has sent this.
    async fn connect(&self, from: [u8; 4], sent: &[u8]) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::from(from), 0).into()).expect("an address of this machine");
        let mut stream = timeout(PATIENCE, socket.connect(self.address)).await.expect("in time").expect("accepted");
        // an error means that the server has closed it
        let _ = timeout(PATIENCE, stream.write_all(sent)).await.expect("in time");
        stream
    }
}

/// What the server sends until it closes the connection.
async fn received(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // an error means that it was reset, which closes it too
    let _ = timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("the server closes it");
    String::from_utf8_lossy(&text).into_owned()
}

fn is_ok(response: &str) -> bool {
    response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\nok\n")
}

#[tokio::test]
async fn connections_without_a_whole_header_are_closed() {
    let server = Server::start(Limits { header: NEAR, ..LIMITS });
    let unfinished = [&b""[..], b"GET /readyz HTTP/1.1\r\nHost: a\r\nX: ", b"\r\n\r\n", &REQUEST[..REQUEST.len() - 1]];
    let clients = join_all(unfinished.into_iter().map(|sent| server.connect(BAD, sent))).await;
    assert_eq!(join_all(clients.into_iter().map(received)).await, [""; 4]);
}

#[tokio::test]
async fn headers_over_the_bound_are_refused_without_being_read() {
    let server = Server::start(LIMITS);
    let long = [b"GET /readyz HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 8 * BUFFER]].concat();
    let many = [&b"GET /readyz HTTP/1.1\r\n"[..], &b"x: y\r\n".repeat(1000)[..], &b"\r\n"[..]].concat();
    for sent in [long, many] {
        // the reset may overtake the response
        let response = received(server.connect(BAD, &sent).await).await;
        assert!(response.is_empty() || response.starts_with("HTTP/1.1 431 "), "{response}");
    }
}

#[tokio::test]
async fn what_is_no_request_of_http_1_is_closed() {
    let server = Server::start(LIMITS);
    let http_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let tls = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03";
    for sent in [&http_2[..], &tls[..], &[0_u8; 1000]] {
        let response = received(server.connect(BAD, sent).await).await;
        assert!(!response.contains(" 200 "), "{response}");
    }
}

#[tokio::test]
async fn connection_serves_one_request() {
    let server = Server::start(LIMITS);
    let response = received(server.connect(GOOD, &REQUEST.repeat(3)).await).await;
    assert!(is_ok(&response) && response.matches("HTTP/1.1 ").count() == 1, "{response}");
    assert!(response.contains("connection: close\r\n"), "{response}");
}

#[tokio::test]
async fn body_of_a_request_is_not_awaited() {
    let server = Server::start(LIMITS);
    let head = b"POST /readyz HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000000\r\n\r\n";
    let response = received(server.connect(BAD, &[&head[..], &[b'x'; 100][..]].concat()).await).await;
    assert!(is_ok(&response), "{response}");
}

#[tokio::test]
async fn client_that_reads_no_response_is_closed_and_costs_little() {
    let mut server = Server::start(Limits { exchange: NEAR, ..LIMITS });
    let client = server.connect(BAD, b"GET /endless HTTP/1.1\r\n\r\n").await;
    // the response is dropped while the client still holds its end
    assert!(timeout(PATIENCE, server.endless.recv()).await.expect("the response ends").is_none());
    let taken = server.pages.load(Ordering::Relaxed) * BUFFER;
    assert!((1..(8 << 20)).contains(&taken), "{taken} bytes were taken for a client that reads none");
    let text = received(client).await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && !text.ends_with("0\r\n\r\n"), "not a whole response");
}

#[tokio::test]
async fn client_that_does_not_close_is_closed() {
    let server = Server::start(Limits { exchange: NEAR, ..LIMITS });
    let mut client = server.connect(BAD, REQUEST).await;
    let mut text = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut text)).await.expect("in time").expect("the whole response");
    assert!(is_ok(&String::from_utf8_lossy(&text)));
    timeout(PATIENCE, client.ready(Interest::ERROR)).await.expect("the server resets it").expect("a reset");
}

#[tokio::test]
async fn body_that_does_not_end_is_read_up_to_a_bound() {
    let server = Server::start(LIMITS);
    let mut client = server.connect(BAD, b"POST /readyz HTTP/1.1\r\nContent-Length: 10000000000\r\n\r\n").await;
    let refused = async { while client.write_all(&[b'x'; BUFFER]).await.is_ok() {} };
    timeout(PATIENCE, refused).await.expect("the server resets it");
}

#[tokio::test]
async fn probes_are_answered_while_another_client_opens_any_number_of_connections() {
    const MANY: usize = 200;
    let server = Server::start(LIMITS);
    let mut probe = server.connect(GOOD, &REQUEST[..10]).await;
    let mut held = Vec::new();
    for number in 0..MANY {
        held.push(
            server.connect(BAD, if number % 2 == 0 { &b""[..] } else { &b"GET /metrics HTTP/1.1\r\nX: "[..] }).await,
        );
        if number % 50 == 49 {
            let response = received(server.connect(GOOD, REQUEST).await).await;
            assert!(is_ok(&response), "{response}");
        }
    }
    // it is older than all others, and its address has fewer
    probe.write_all(&REQUEST[10..]).await.expect("still open");
    let response = received(probe).await;
    assert!(is_ok(&response), "{response}");
    // without a deadline all but the last few are closed, and the last one is not
    let mut last = held.pop().expect("a connection");
    held.truncate(MANY - LIMITS.connections);
    assert!(join_all(held.into_iter().map(received)).await.iter().all(String::is_empty));
    last.write_all(b"\r\n\r\n").await.expect("still open");
    let response = received(last).await;
    assert!(is_ok(&response), "{response}");
}

#[tokio::test]
async fn probes_are_answered_while_many_addresses_hold_connections() {
    let server = Server::start(LIMITS);
    let mut held = Vec::new();
    for last in 2..2 + 4 * LIMITS.connections {
        held.push(server.connect([127, 0, 0, u8::try_from(last).expect("a byte")], b"GET ").await);
    }
    let response = received(server.connect(GOOD, REQUEST).await).await;
    assert!(is_ok(&response), "{response}");
}

#[tokio::test]
async fn connections_end_with_the_server() {
    let server = Server::start(LIMITS);
    let client = server.connect(GOOD, b"GET ").await;
    // the server has accepted the first one when it answers the second
    assert!(is_ok(&received(server.connect(GOOD, REQUEST).await).await));
    drop(server);
    assert_eq!(received(client).await, "");
}

#[test]
fn failure_to_accept_ends_nothing_and_is_not_retried_in_a_loop() {
    let too_many_open_files = io::Error::from_raw_os_error(24);
    assert!(!is_of_one_connection(&too_many_open_files), "it pauses");
    assert!(is_of_one_connection(&io::ErrorKind::ConnectionAborted.into()));
}

#[tokio::test(start_paused = true)]
async fn warnings_that_clients_can_cause_are_rare() {
    let mut warnings = Occasional::default();
    let mut count = 0;
    for _ in 0..1200 {
        count += usize::from(warnings.is_due());
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    assert_eq!(count, 2, "in two minutes");
}

#[test]
fn limits_are_between_those_of_probes_and_scrapes_and_the_memory_of_the_chart() {
    let Limits { connections, header, exchange } = Limits::default();
    assert!(header > Duration::from_secs(3) && exchange > Duration::from_secs(10) && header < exchange);
    // a page of the metrics has up to 256 KiB; the kernel doubles its buffers
    let each = 2 * BUFFER + (256 << 10) + 2 * (SEND_BUFFER + RECEIVE_BUFFER) as usize;
    assert!(connections * each < 16 << 20, "an eighth of 128 MiB");
}
