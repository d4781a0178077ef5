//! The server as a client's connection sees it: a tower service over HTTP requests.

use std::{
    future::pending,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderValue, Request, Response, StatusCode, header, request::Parts};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tower::BoxError;

use crate::{
    body::{Body, Broken},
    cache,
    faults::Fault,
    list,
    log::{self, Entry},
    object,
    request::{Call, Form, Verb},
    server::ApiServer,
    state::{Passing, Phase, Verdict},
    status::Failure,
    watch,
    write::write,
};

/// How long a read waits for a version that has not been reached.
const FRESH: Duration = Duration::from_secs(3);

/// One client's connection to the server.
#[derive(Clone, Debug)]
pub struct ClientService {
    server: ApiServer,
    client: String,
}

impl ClientService {
    pub(crate) fn new(server: ApiServer, client: &str) -> Self {
        Self { server, client: client.to_owned() }
    }
}

impl<B> tower::Service<Request<B>> for ClientService
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let this = self.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(Into::into)?.to_bytes();
            let request = Exchange { server: this.server, client: this.client, head, body: log::hash(&body) };
            request.serve(body).await.map_err(BoxError::from)
        }
        .boxed()
    }
}

/// One request on its way.
struct Exchange {
    server: ApiServer,
    client: String,
    head: Parts,
    /// A hash of the body.
    body: u64,
}

/// What is to be sent.
enum Answer {
    Whole(u16, Bytes, Option<u32>),
    Watch(Body),
}

impl Exchange {
    async fn serve(self, body: Bytes) -> Result<Response<Body>, Broken> {
        let number = self.server.with(|state| {
            state.requests += 1;
            state.requests
        });
        self.pass(number, Phase::Arrived).await;
        let call = self.server.with(|state| Call::parse(&state.resources, &self.client, &self.head, body));
        let call = match call {
            Ok(call) => call,
            Err(failure) => return self.finish(number, Ok(failed(&failure)), None),
        };
        let fault = self.server.with(|state| state.plan.take(&call));
        match &fault {
            Some(Fault::Refuse) => return self.finish(number, Err(Broken::Refused), None),
            Some(Fault::Answer(failure)) => return self.finish(number, Ok(failed(failure)), None),
            Some(Fault::Hang) => self.hang(number, "black hole").await,
            Some(Fault::DelayBefore(time)) => sleep(*time).await,
            _ => {}
        }
        let answer = self.carry_out(&call).await;
        self.pass(number, Phase::Done).await;
        match &fault {
            Some(Fault::DropAnswer) => return self.finish(number, Err(Broken::Closed), None),
            Some(Fault::HangAfter) => self.hang(number, "done, black hole").await,
            Some(Fault::DelayAfter(time)) => sleep(*time).await,
            _ => {}
        }
        self.finish(number, Ok(answer), fault)
    }

    /// Calls the hook for requests; a client that crashes here never goes on.
    async fn pass(&self, number: u64, phase: Phase) {
        let hook = self.server.with(|state| state.hook.clone());
        let (method, path) = (self.head.method.as_str(), self.head.uri.path());
        let passing = Passing { number, phase, client: &self.client, method, path };
        if hook.is_some_and(|hook| hook(passing) == Verdict::Stop) {
            self.hang(number, "stopped").await;
        }
    }

    async fn hang(&self, number: u64, result: &str) {
        self.log(number, result.to_owned());
        pending().await
    }

    async fn carry_out(&self, call: &Call) -> Answer {
        if matches!(call.verb, Verb::List | Verb::Get) {
            self.wait_for_version(call).await;
        }
        let result = match call.verb {
            Verb::Watch => {
                return match watch::open(&self.server, call) {
                    Ok(lines) => Answer::Watch(Body::streamed(lines)),
                    Err(failure) => failed(&failure),
                };
            }
            Verb::Get => self.server.with(|state| list::get(state, call)).map(|object| (200, object::bytes(&object))),
            Verb::List => self.server.with(|state| list::list(state, call)).map(|list| (200, object::bytes(&list))),
            _ => self.server.change(|state| write(state, call)).map(|(code, object)| (code, written(call, &object))),
        };
        match result {
            Ok((code, body)) => Answer::Whole(code, Bytes::from(body), None),
            Err(failure) => failed(&failure),
        }
    }

    async fn wait_for_version(&self, call: &Call) {
        let mut changed = self.server.changes();
        let reached = async {
            while !self.server.with(|state| list::is_reached(state, call, Instant::now())) {
                let due = self.server.with(|state| cache::due(state, call));
                tokio::select! {
                    biased;
                    () = changed.changed() => {}
                    () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                }
            }
        };
        // the read itself reports a version that does not come
        let _ = timeout(FRESH, reached).await;
    }

    fn finish(
        &self,
        number: u64,
        answer: Result<Answer, Broken>,
        fault: Option<Fault>,
    ) -> Result<Response<Body>, Broken> {
        let result = match &answer {
            Ok(Answer::Whole(code, ..)) => code.to_string(),
            Ok(Answer::Watch(_)) => "200".to_owned(),
            Err(broken) => broken.to_string(),
        };
        self.log(number, result);
        let (code, body, retry_after) = match answer? {
            Answer::Whole(code, content, retry_after) => {
                let body = match fault {
                    Some(Fault::ResetBody) => Body::broken(&content),
                    Some(Fault::GarbleBody) => Body::garbled(&content),
                    _ => Body::whole(content),
                };
                (code, body, retry_after)
            }
            Answer::Watch(body) => (200, body, None),
        };
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        Ok(response)
    }

    fn log(&self, number: u64, result: String) {
        let path = self.head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
        self.server.with(|state| {
            let entry = Entry {
                number,
                time: state.now(),
                client: self.client.clone(),
                method: self.head.method.to_string(),
                path,
                body: self.body,
                result,
            };
            state.log.add(entry);
        });
    }
}

fn failed(failure: &Failure) -> Answer {
    Answer::Whole(failure.code, Bytes::from(failure.body().to_string()), failure.retry_after)
}

/// What is answered to a write.
fn written(call: &Call, object: &Value) -> Vec<u8> {
    let is_partial = call.form == Form::Partial && object["kind"] != "Status";
    if is_partial { object::bytes(&object::partial(object)) } else { object::bytes(object) }
}
