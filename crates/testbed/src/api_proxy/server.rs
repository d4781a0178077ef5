//! The HTTP server of the proxy: plain HTTP on loopback, with the API server's own TLS behind it.

use std::{convert::Infallible, sync::Arc};

use futures::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    header,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::mpsc, time::sleep};

use super::{
    State,
    call::Call,
    fault::{Callback, Fault, OVERLOADED, status_body},
    stream::{self as watch_stream},
};

/// The proxy closes the connection.
#[derive(Debug)]
pub(super) struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the proxy closes the connection")
    }
}

impl std::error::Error for Broken {}

pub(super) type Answer = BoxBody<Bytes, Broken>;

/// A body that is sent as it arrives; an error closes the connection.
pub(super) fn streamed() -> (mpsc::Sender<Result<Bytes, Broken>>, Answer) {
    let (sender, receiver) = mpsc::channel(16);
    let frames = stream::unfold(receiver, async |mut receiver| {
        let item: Option<Result<Bytes, Broken>> = receiver.recv().await;
        item.map(|item| (item.map(Frame::data), receiver))
    });
    (sender, BodyExt::boxed(StreamBody::new(Box::pin(frames))))
}

fn whole(bytes: Bytes) -> Answer {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}

/// Half of these bytes, although the header promises all of them.
fn half(bytes: &Bytes) -> Answer {
    let parts = [Ok(Frame::data(bytes.slice(..bytes.len() / 2))), Err(Broken)];
    BodyExt::boxed(StreamBody::new(stream::iter(parts)))
}

/// Serves until the thread ends.
pub(super) async fn serve(listener: TcpListener, state: Arc<State>) {
    while let Ok((connection, _)) = listener.accept().await {
        let state = state.clone();
        // without it, a small answer may wait for the operator's acknowledgement of the one before
        let _ = connection.set_nodelay(true);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, state.clone()));
            // an operator that disconnects is not an error of the proxy
            let _ =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
        });
    }
}

fn run(callback: Option<Callback>) {
    if let Some(callback) = callback {
        callback();
    }
}

/// Answers one call; an error closes the connection without a byte.
async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Answer>, Broken> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
    let call = Call::read(&parts.method, &parts.uri, &parts.headers, &body);
    let (record, rule) = state.came(&call);
    let fault = rule.as_ref().map_or(Fault::Nothing, |rule| rule.fault);
    let (before, after) = rule.map_or((None, None), |rule| (rule.before, rule.after));
    run(before);
    match fault {
        Fault::KilledBefore => return Err(Broken),
        Fault::BlackHole(duration) => {
            sleep(duration).await;
            return Err(Broken);
        }
        Fault::Refused(code) => {
            state.answered(record, code);
            let status = StatusCode::from_u16(code).map_err(|_| Broken)?;
            let mut answer = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
            if code == 429 {
                answer = answer.header(header::RETRY_AFTER, "1");
            }
            return answer.body(whole(status_body(code, &call).to_string().into())).map_err(|_| Broken);
        }
        Fault::Overloaded => {
            state.answered(record, StatusCode::TOO_MANY_REQUESTS.as_u16());
            let answer = Response::builder().status(StatusCode::TOO_MANY_REQUESTS);
            let answer =
                answer.header(header::CONTENT_TYPE, "text/plain; charset=utf-8").header(header::RETRY_AFTER, "1");
            return answer.body(whole(Bytes::from_static(OVERLOADED.as_bytes()))).map_err(|_| Broken);
        }
        Fault::Answered(text) => {
            state.answered(record, 200);
            return Ok(Response::new(whole(Bytes::from_static(text.as_bytes()))));
        }
        Fault::Delay(duration) => sleep(duration).await,
        Fault::AnswerLost | Fault::ResetMidBody | Fault::FirstAnswerAgain | Fault::Nothing => {}
    }
    let narrowed = state.narrowed(&parts.uri, &call);
    let mut forwarded = state.upstream.request(parts.method.clone(), narrowed).body(body);
    for (name, value) in &parts.headers {
        if ![header::HOST, header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(name) {
            forwarded = forwarded.header(name, value);
        }
    }
    let upstream = forwarded.send().await.map_err(|_| Broken)?;
    let status = upstream.status();
    state.answered(record, status.as_u16());
    let mut response = Response::builder().status(status);
    for (name, value) in upstream.headers() {
        if ![header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(name) {
            response = response.header(name, value);
        }
    }
    if call.is_watch() && status.is_success() {
        run(after);
        if fault == Fault::AnswerLost {
            return Err(Broken);
        }
        let body = watch_stream::pass(state.streams.clone(), call, upstream, fault == Fault::ResetMidBody);
        return response.body(body).map_err(|_| Broken);
    }
    let bytes = upstream.bytes().await.map_err(|_| Broken)?;
    run(after);
    let first = state.first_answer(parts.uri.path(), &call, &bytes);
    let body = match fault {
        Fault::AnswerLost => return Err(Broken),
        Fault::ResetMidBody => {
            response = response.header(header::CONTENT_LENGTH, bytes.len());
            half(&bytes)
        }
        Fault::FirstAnswerAgain => whole(first),
        _ => whole(bytes),
    };
    response.body(body).map_err(|_| Broken)
}
