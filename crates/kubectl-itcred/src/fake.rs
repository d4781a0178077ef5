//! An API server for unit tests: it answers each request with what a function says.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
};

use itwin_credential_operator::clock::Clock;
use serde_json::{Value, json};

use crate::{connection::Connection, session::Session, view::tests::now};

/// A request.
pub(crate) struct Asked {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    /// The lines before the body.
    pub(crate) head: String,
    pub(crate) body: Value,
}

/// Status and body.
pub(crate) type Answer = (u16, Vec<u8>);

/// An answer with this object.
pub(crate) fn object(object: &Value) -> Answer {
    (200, object.to_string().into_bytes())
}

/// An answer with a `Status`.
pub(crate) fn failure(code: u16, reason: &str) -> Answer {
    status(code, reason, &format!("the server says {reason}"))
}

/// The same with this message.
pub(crate) fn status(code: u16, reason: &str, message: &str) -> Answer {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                        "message": message, "reason": reason, "code": code});
    (code, status.to_string().into_bytes())
}

/// A session in namespace `team-a`, at the time of the other tests.
pub(crate) fn session(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Session {
    session_with(&server(answer), Connection::default())
}

/// The same with flags, and a server that runs already.
pub(crate) fn session_with(server: &str, flags: Connection) -> Session {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let kubeconfig = json!({
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "team-a"}}],
        "clusters": [{"name": "k", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "of-the-file"}}],
    });
    std::fs::write(file.path(), kubeconfig.to_string()).expect("written");
    let connection = Connection { kubeconfig: Some(file.path().to_owned()), ..flags };
    let mut session = Session::new(&connection).expect("a session");
    session.clock = Clock::new(now);
    session
}

/// The URL of a server that answers until the process ends.
pub(crate) fn server(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, answer) = (stream.expect("a connection"), answer.clone());
            std::thread::spawn(move || serve(&stream, &*answer));
        }
    });
    format!("http://{address}")
}

fn serve(mut stream: &TcpStream, answer: &dyn Fn(&Asked) -> Answer) {
    let Some(asked) = read(&mut BufReader::new(stream)) else { return };
    let (status, body) = answer(&asked);
    let length = body.len();
    let head = format!("HTTP/1.1 {status} S\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    // a client that has read enough closes the connection
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

fn read(reader: &mut impl BufRead) -> Option<Asked> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let mut body = vec![0; length.unwrap_or_default()];
    reader.read_exact(&mut body).ok()?;
    let mut words = head.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    Some(Asked { method, path, body: serde_json::from_slice(&body).unwrap_or_default(), head })
}
