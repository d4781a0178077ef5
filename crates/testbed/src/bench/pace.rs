//! The calls of renewals and nothing else: what any client pays for them at this pace, before it reads, decides or
//! verifies anything. `testbed pace` is a separate process, so that its CPU time is separate from that of the load.

use std::{
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use futures::{StreamExt, stream::FuturesUnordered};
use http_body_util::BodyExt;
use hyper::body::Bytes;
use kube::{Client, client::Body};
use serde_json::Value;
use testbed::Testbed;
use tokio::sync::Mutex;

use super::{
    load::{CLIENT, CLIENT_SECRET, Load, bare},
    measure::Usage,
    paths::{ALL_CREDENTIALS, ALL_SECRETS, CREDENTIALS, SECRETS},
};

/// The argument that makes the program this process.
pub const ARGUMENT: &str = "pace";
/// Secrets that are written in rotation.
const OBJECTS: usize = 50;
const AS_METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1beta1";

const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";

/// Milliseconds of CPU for the calls of one renewal, measured over this many seconds.
pub async fn cpu_of_bare_renewals(testbed: &Testbed, load: &Load, per_second: f64, seconds: u64) -> Result<f64> {
    let names: Vec<String> = (0..OBJECTS).map(name).collect();
    load.create_bare(&names).await?;
    load.write_bare(&names).await?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args([ARGUMENT, &per_second.to_string(), &load.tokens.issuer, &load.tokens.ca_bundle()]);
    command.env("KUBECONFIG", &testbed.operator_kubeconfig);
    let mut process = testbed::process::Process::start("pace", command, &testbed.directory)?;
    // all connections are open by now
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (before, tokens) = (Usage::of(process.id())?, load.tokens.tokens());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (after, tokens) = (Usage::of(process.id())?, load.tokens.tokens() - tokens);
    ensure!(process.is_running() && tokens > 0, "the calls were not made; {}", process.log_tail());
    drop(process);
    load.delete_bare(&names).await?;
    Ok((after.cpu - before.cpu) * 1000.0 / tokens as f64)
}

fn name(number: usize) -> String {
    format!("pace-{number}")
}

/// The main loop of the process; it runs until it is killed.
pub async fn run(per_second: &str, issuer: &str, ca_bundle: &str) -> Result<ExitCode> {
    let client = Client::try_from(kube::Config::infer().await?)?;
    let certificate = base64::engine::general_purpose::STANDARD.decode(ca_bundle)?;
    let certificates = reqwest::Certificate::from_pem_bundle(&certificate)?;
    let authority = reqwest::Client::builder().tls_certs_only(certificates).build()?;
    let pause = Duration::from_secs(1).div_f64(per_second.parse()?);
    let (objects, client_version) = (objects(&client).await?, version_of_client(&client).await?);
    let calls = Calls { client: &client, authority: &authority, issuer, client_version: &client_version };
    let watches = [ALL_SECRETS, ALL_CREDENTIALS];
    let watches = futures::future::try_join_all(watches.map(|path| drain_watch(&client, path)));
    let renewals = async {
        let (mut next, mut under_way) = (tokio::time::Instant::now(), FuturesUnordered::new());
        for number in 0_usize.. {
            next += pause;
            let pace = tokio::time::sleep_until(next);
            tokio::pin!(pace);
            loop {
                tokio::select! {
                    () = &mut pace => break,
                    Some(ended) = under_way.next() => { let _: () = ended?; }
                }
            }
            under_way.push(renew(&calls, &objects[number % objects.len()], number));
        }
        Ok::<_, anyhow::Error>(())
    };
    tokio::select! {
        ended = watches => ended?.into_iter().for_each(drop),
        ended = renewals => ended?,
    }
    Ok(ExitCode::FAILURE)
}

/// Reads the events of a watch and drops them. It ends only with an error.
pub async fn drain_watch(client: &Client, path: &str) -> Result<()> {
    loop {
        let request = hyper::Request::get(format!("{path}?watch=true&timeoutSeconds=60"))
            .header(hyper::header::ACCEPT, if path.contains("secrets") { AS_METADATA } else { "application/json" });
        let mut body = client.send(request.body(Body::empty())?).await?.into_body();
        while let Some(frame) = body.frame().await {
            frame?;
        }
    }
}

/// A credential whose status is replaced at the version that the last answer had.
struct Object {
    name: String,
    uid: String,
    version: String,
}

/// The credentials that are written in rotation, as they are. One is written by one renewal at a time.
async fn objects(client: &Client) -> Result<Vec<Mutex<Object>>> {
    let list: Value = client.request(hyper::Request::get(CREDENTIALS).body(Vec::new())?).await?;
    let text = |object: &Value, field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let all = list["items"].as_array().context("no list")?.iter().map(|object| Object {
        name: text(object, "name"),
        uid: text(object, "uid"),
        version: text(object, "resourceVersion"),
    });
    let names: Vec<String> = (0..OBJECTS).map(name).collect();
    let objects: Vec<Mutex<Object>> = all.filter(|object| names.contains(&object.name)).map(Mutex::new).collect();
    ensure!(objects.len() == OBJECTS, "{} of {OBJECTS} credentials are there", objects.len());
    Ok(objects)
}

/// The version of the client Secret, from which on the watch cache of the API server has it.
async fn version_of_client(client: &Client) -> Result<String> {
    let path = format!("{SECRETS}/client");
    let secret: Value = client.request(hyper::Request::get(path).body(Vec::new())?).await?;
    Ok(secret["metadata"]["resourceVersion"].as_str().context("no version")?.to_owned())
}

/// What the calls of each renewal need.
struct Calls<'a> {
    client: &'a Client,
    authority: &'a reqwest::Client,
    issuer: &'a str,
    client_version: &'a str,
}

/// Reads the client Secret from the watch cache, requests a token, writes a Secret and replaces a status, as the operator
/// does.
async fn renew(calls: &Calls<'_>, object: &Mutex<Object>, number: usize) -> Result<()> {
    let Calls { client, authority, issuer, client_version } = calls;
    let mut object = object.lock().await;
    call(client, "GET", &format!("{SECRETS}/client?resourceVersion={client_version}"), None).await?;
    let name = &object.name;
    let form = format!("grant_type=client_credentials&scope={name}&client_id={CLIENT}&client_secret={CLIENT_SECRET}");
    let answer = authority
        .post(format!("{issuer}/token"))
        .header(hyper::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form)
        .send()
        .await?;
    let token = answer.error_for_status()?.bytes().await?;
    let secret = bare::secret_like_ours(name, &format!("{number:0>8}{}", "x".repeat(token.len())));
    call(client, "PATCH", &format!("{SECRETS}/{name}"), Some(&secret)).await?;
    let status = bare::replacement_like_ours(name, &object.uid, &object.version, &number.to_string());
    let answer = call(client, "PUT", &format!("{CREDENTIALS}/{name}/status"), Some(&status)).await?;
    object.version = version_in(&answer).context("an answer without a version")?;
    Ok(())
}

/// The version in an answer, without decoding the rest: managed fields have none.
fn version_in(answer: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(answer).ok()?;
    text.split_once("\"resourceVersion\":\"")?.1.split_once('"').map(|(version, _)| version.to_owned())
}

/// Makes one call. The answer to a write of a status has only the metadata, as the operator asks for it.
pub async fn call(client: &Client, method: &str, path: &str, body: Option<&Value>) -> Result<Bytes> {
    let request = hyper::Request::builder().method(method).uri(path);
    let accept = if path.ends_with("/status") { AS_METADATA } else { "application/json" };
    let request = match body {
        None => request.body(Body::empty())?,
        Some(body) => request
            .header(hyper::header::CONTENT_TYPE, if method == "PATCH" { STRATEGIC_PATCH } else { "application/json" })
            .header(hyper::header::ACCEPT, accept)
            .body(Body::from(serde_json::to_vec(body)?))?,
    };
    let answer = client.send(request).await?;
    ensure!(answer.status().is_success(), "{method} {path}: {}", answer.status());
    Ok(answer.into_body().collect().await?.to_bytes())
}
