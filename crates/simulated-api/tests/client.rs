//! A real client of kube-rs on the simulated server: what it reads, watches and writes, and that a run can be repeated.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    core::PartialObjectMeta,
    runtime::watcher::{self, Event},
};
use serde_json::{Value, json};
use simulated_api::{
    ApiServer, Config,
    admission::denied,
    faults::{Disturbance, Fault, Match, Rule},
    request::Verb,
    state::{Passing, Phase, Verdict},
    status::Failure,
};
use tokio::time::{Instant, sleep, timeout};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(600);

fn server(seed: u64) -> ApiServer {
    let began = Instant::now();
    let start = DateTime::<Utc>::from_timestamp(1_800_000_000, 0).unwrap();
    let clock = move || start + TimeDelta::from_std(began.elapsed()).unwrap();
    ApiServer::new(Config::new(seed, Arc::new(clock)))
}

fn secrets(server: &ApiServer, client: &str) -> Api<Secret> {
    Api::default_namespaced(Client::new(server.client_service(client), "default"))
}

fn secret(name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "default"},
        "stringData": {"key": value},
    })
}

/// The names and types of the events up to the end of the first listing and `more` further ones.
async fn events(
    stream: impl futures::Stream<Item = watcher::Result<Event<PartialObjectMeta<Secret>>>>,
    more: usize,
) -> Result<Vec<String>> {
    let mut stream = std::pin::pin!(stream);
    let mut found = Vec::new();
    let mut left = None;
    while left != Some(0) {
        let event = timeout(LONG, stream.next()).await.context("no event")?.context("the watch ended")?;
        left = left.map(|left: usize| left - 1);
        found.push(match event? {
            Event::Init => "init".to_owned(),
            Event::InitApply(object) => format!("listed {}", object.name_any()),
            Event::InitDone => {
                left = left.or(Some(more));
                "listed all".to_owned()
            }
            Event::Apply(object) => format!("applied {}", object.name_any()),
            Event::Delete(object) => format!("deleted {}", object.name_any()),
        });
    }
    Ok(found)
}

#[tokio::test(start_paused = true)]
async fn watcher_sees_pages_of_a_list_and_then_every_change() -> Result<()> {
    let server = server(1);
    let user = server.as_user("kubectl");
    for name in ["a", "b", "c"] {
        user.create(&secret(name, "1")).unwrap();
    }
    let api: Api<PartialObjectMeta<Secret>> = Api::all(Client::new(server.client_service("operator"), "default"));
    let watch = watcher::watcher(api, watcher::Config::default().page_size(2).timeout(60));
    let changes = async {
        sleep(Duration::from_secs(100)).await;
        user.patch("secrets", "default", "b", &json!({"metadata": {"labels": {"x": "y"}}})).unwrap();
        sleep(Duration::from_secs(100)).await;
        user.delete("secrets", "default", "a", &json!({})).unwrap();
    };
    let (found, ()) = tokio::join!(events(watch, 2), changes);
    assert_eq!(found?, ["init", "listed a", "listed b", "listed c", "listed all", "applied b", "deleted a"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn watcher_lists_again_after_a_compaction_it_slept_through() -> Result<()> {
    let server = server(1);
    let user = server.as_user("kubectl");
    user.create(&secret("a", "1")).unwrap();
    let api: Api<PartialObjectMeta<Secret>> = Api::all(Client::new(server.client_service("operator"), "default"));
    let watching = Match::any().verb(Verb::Watch);
    server.plan(Rule::once(watching.clone(), Fault::DelayBefore(Duration::from_secs(30))));
    let watch = watcher::watcher(api, watcher::Config::default().timeout(60)).filter(|event| {
        // the first watch gets an error: its version is gone
        std::future::ready(event.is_ok())
    });
    let changes = async {
        sleep(Duration::from_secs(10)).await;
        user.patch("secrets", "default", "a", &json!({"metadata": {"labels": {"x": "y"}}})).unwrap();
        user.create(&secret("b", "1")).unwrap();
        server.compact(server.revision());
    };
    let (found, ()) = tokio::join!(events(watch, 4), changes);
    assert_eq!(found?[3..], ["init", "listed a", "listed b", "listed all"]);
    Ok(())
}

async fn day(seed: u64) -> Result<(u64, usize)> {
    let server = server(seed);
    let api: Api<PartialObjectMeta<Secret>> = Api::all(Client::new(server.client_service("operator"), "default"));
    let watch = watcher::watcher(api, watcher::Config::default().timeout(60));
    let watching = tokio::spawn(async move { watch.for_each(|_| std::future::ready(())).await });
    let api = secrets(&server, "other");
    for hour in 0..24 {
        let object: Secret = serde_json::from_value(secret(&format!("s{hour}"), "1"))?;
        api.create(&PostParams::default(), &object).await?;
        sleep(Duration::from_secs(3600)).await;
    }
    watching.abort();
    Ok((server.requests_hash(), server.requests().len()))
}

#[tokio::test(start_paused = true)]
async fn day_with_watches_is_repeated_request_by_request() -> Result<()> {
    let (first, requests) = day(1).await?;
    ensure!(requests > 1400, "{requests} requests");
    ensure!((first, requests) == day(1).await?, "the second run differs");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn writes_are_made_as_the_operator_makes_them() -> Result<()> {
    let server = server(1);
    let api = secrets(&server, "operator");
    let object: Secret = serde_json::from_value(secret("a", "1"))?;
    let manager = |name: &str| PostParams { field_manager: Some(name.to_owned()), ..PostParams::default() };
    let created = api.create(&manager("operator"), &object).await?;
    let exists = api.create(&manager("operator"), &object).await.unwrap_err();
    assert!(matches!(exists, kube::Error::Api(status) if status.is_already_exists()));
    let version = created.resource_version();
    let guarded = |version: &str| {
        Patch::Merge(json!({"metadata": {"resourceVersion": version, "uid": created.uid()}, "data": {"key": "Mg=="}}))
    };
    let params = PatchParams { field_manager: Some("other".to_owned()), ..PatchParams::default() };
    let patched = api.patch_metadata("a", &params, &guarded(version.as_deref().unwrap())).await?;
    assert_ne!(patched.resource_version(), version);
    let conflict = api.patch("a", &params, &guarded(version.as_deref().unwrap())).await.unwrap_err();
    assert!(matches!(conflict, kube::Error::Api(status) if status.is_conflict()));
    let again = api.patch_metadata("a", &params, &guarded(patched.resource_version().as_deref().unwrap())).await?;
    assert_eq!(again.resource_version(), patched.resource_version(), "nothing changed");
    assert_eq!(api.list(&ListParams::default()).await?.items.len(), 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn faults_happen_to_the_calls_they_are_planned_for() -> Result<()> {
    let server = server(1);
    let api = secrets(&server, "operator");
    let create = |name: &str| {
        let object: Secret = serde_json::from_value(secret(name, "1")).unwrap();
        let api = api.clone();
        async move { api.create(&PostParams::default(), &object).await }
    };
    let creates = Match::any().verb(Verb::Create).target("secrets");
    let exists = |name: &str| server.as_user("test").get("secrets", "default", name).is_some();

    server.plan(Rule::once(creates.clone(), Fault::Refuse).after(1));
    assert!(create("a").await.is_ok() && create("b").await.is_err() && !exists("b"));
    server.plan(Rule::once(creates.clone(), Fault::DropAnswer));
    assert!(create("c").await.is_err() && exists("c"));
    let mut busy = Failure::new(429, "TooManyRequests", "busy");
    busy.retry_after = Some(7);
    server.plan(Rule::once(creates.clone(), Fault::Answer(Box::new(busy))));
    assert!(matches!(create("d").await, Err(kube::Error::Api(status)) if status.code == 429));
    for (name, fault, is_there) in [("e", Fault::Hang, false), ("f", Fault::HangAfter, true)] {
        server.plan(Rule::once(creates.clone(), fault));
        assert!(timeout(LONG, create(name)).await.is_err());
        assert_eq!(exists(name), is_there);
    }
    for (name, fault) in [("g", Fault::ResetBody), ("h", Fault::GarbleBody)] {
        server.plan(Rule::once(creates.clone(), fault));
        assert!(create(name).await.is_err() && exists(name));
    }
    let before = Instant::now();
    server.plan(Rule::once(creates.clone(), Fault::DelayAfter(Duration::from_secs(5))));
    assert!(create("i").await.is_ok());
    assert_eq!(before.elapsed(), Duration::from_secs(5));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn disturbed_watches_lag_lose_replay_freeze_and_end() -> Result<()> {
    let server = server(1);
    let user = server.as_user("kubectl");
    user.create(&secret("a", "1")).unwrap();
    let client = Client::new(server.client_service("operator"), "default");
    let watching = Match::any().verb(Verb::Watch);
    let open = async || -> Result<_> {
        let uri = format!("/api/v1/secrets?watch=true&timeoutSeconds=300&resourceVersion={}", server.revision());
        let request = http::Request::get(uri).body(Vec::new())?;
        Ok(client.request_events::<Value>(request).await?)
    };
    let touch = |value: &str| {
        user.patch("secrets", "default", "a", &json!({"metadata": {"labels": {"v": value}}})).unwrap();
    };
    let label = |event: Option<kube::Result<kube::core::WatchEvent<Value>>>| match event {
        Some(Ok(kube::core::WatchEvent::Modified(object))) => object["metadata"]["labels"]["v"].clone(),
        other => json!(format!("{other:?}")),
    };

    let mut watch = Box::pin(open().await?);
    server.disturb(watching.clone(), Disturbance::Lag(Duration::from_secs(7)));
    let before = Instant::now();
    touch("1");
    assert_eq!(label(watch.next().await), "1");
    assert_eq!(before.elapsed(), Duration::from_secs(7));
    server.clear_faults();

    server.disturb(watching.clone(), Disturbance::DropNext);
    touch("2");
    touch("3");
    assert_eq!(label(watch.next().await), "3");

    server.disturb(watching.clone(), Disturbance::Freeze);
    touch("4");
    assert!(timeout(LONG, watch.next()).await.is_err(), "it does not even end");
    server.clear_faults();
    assert_eq!(label(watch.next().await), "4");
    assert!(watch.next().await.is_none(), "its time is over");

    let mut watch = Box::pin(open().await?);
    server.disturb(watching.clone(), Disturbance::Replay);
    assert_eq!(label(watch.next().await), Value::Null, "the first version had no label");
    server.disturb(watching.clone(), Disturbance::Expire);
    assert!(matches!(watch.next().await, Some(Ok(kube::core::WatchEvent::Error(status))) if status.code == 410));
    assert!(watch.next().await.is_none());

    let mut watch = Box::pin(open().await?);
    server.disturb(watching.clone(), Disturbance::Garble);
    assert!(matches!(watch.next().await, Some(Err(kube::Error::SerdeError(_)))));
    server.disturb(watching.clone(), Disturbance::Reset);
    assert!(matches!(watch.next().await, Some(Err(_)) | None));

    let mut watch = Box::pin(open().await?);
    server.disturb(watching, Disturbance::End);
    assert!(watch.next().await.is_none());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn watch_from_before_a_restored_backup_stays_silent_until_the_revision_passes() -> Result<()> {
    let server = server(1);
    let user = server.as_user("kubectl");
    let backup = server.revision();
    user.create(&secret("a", "1")).unwrap();
    user.create(&secret("b", "1")).unwrap();
    let client = Client::new(server.client_service("operator"), "default");
    let uri = format!("/api/v1/secrets?watch=true&timeoutSeconds=3000&resourceVersion={}", server.revision());
    let mut watch = Box::pin(client.request_events::<Value>(http::Request::get(uri).body(Vec::new())?).await?);
    assert!(server.restore(backup));
    assert!(user.get("secrets", "default", "a").is_none());
    user.create(&secret("c", "1")).unwrap();
    user.create(&secret("d", "1")).unwrap();
    assert!(timeout(LONG, watch.next()).await.is_err());
    user.create(&secret("e", "1")).unwrap();
    let Some(Ok(kube::core::WatchEvent::Added(object))) = watch.next().await else { panic!("no event") };
    assert_eq!(object["metadata"]["name"], "e");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn admission_rewrites_and_denies() -> Result<()> {
    let server = server(1);
    let user = server.as_user("kubectl");
    let writes = Match::any().target("secrets").verb(Verb::Create);
    let relabel = |_: &simulated_api::request::Call, object: &mut Value, _: Option<&Value>| {
        object["metadata"]["labels"] = json!({"forced": "yes"});
        if object["metadata"]["name"] == "evil" { Err(denied(400, "policy", "no")) } else { Ok(()) }
    };
    server.admit(writes, Arc::new(relabel));
    assert_eq!(user.create(&secret("a", "1")).unwrap()["metadata"]["labels"]["forced"], "yes");
    assert_eq!(user.create(&secret("evil", "1")).unwrap_err().code, 400);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn dependents_go_with_their_owner_and_namespaces_with_their_content() -> Result<()> {
    let server = server(1);
    let user = server.as_user("kubectl");
    let credential = |name: &str| {
        json!({
            "apiVersion": "credentials.itwin.dev/v1alpha1",
            "kind": "ITwinServiceCredential",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"clientCredentialsRef": {"name": "client"}},
        })
    };
    let owned = |name: &str, owner: &Value, uid: &Value| {
        let mut object = secret(name, "1");
        object["metadata"]["ownerReferences"] = json!([{
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
            "uid": uid,
        }]);
        user.create(&object).unwrap();
    };
    let exists = |name: &str| user.get("secrets", "default", name).is_some();
    for name in ["a", "b"] {
        let owner = user.create(&credential(name)).unwrap();
        owned(name, &owner, &owner["metadata"]["uid"]);
        owned(&format!("{name}-of-another-uid"), &owner, &json!("another"));
    }
    server.run_controllers_once();
    assert!(exists("a") && exists("b") && !exists("a-of-another-uid") && !exists("b-of-another-uid"));
    user.delete("itwinservicecredentials", "default", "a", &json!({})).unwrap();
    user.delete("itwinservicecredentials", "default", "b", &json!({"propagationPolicy": "Orphan"})).unwrap();
    server.run_controllers_once();
    assert!(!exists("a") && exists("b"));
    assert!(user.list("itwinservicecredentials", "").is_empty());

    user.delete("namespaces", "", "default", &json!({})).unwrap();
    assert_eq!(user.create(&secret("c", "1")).unwrap_err().code, 403);
    server.run_controllers_once();
    assert!(!exists("b"));
    assert_eq!(user.create(&secret("c", "1")).unwrap_err().code, 404);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn quiet_watch_has_a_bookmark_before_its_end() -> Result<()> {
    let server = server(1);
    let client = Client::new(server.client_service("operator"), "default");
    let uri = "/api/v1/secrets?watch=true&timeoutSeconds=60&allowWatchBookmarks=true&resourceVersion=101";
    let before = Instant::now();
    let mut watch = Box::pin(client.request_events::<Value>(http::Request::get(uri).body(Vec::new())?).await?);
    assert!(matches!(watch.next().await, Some(Ok(kube::core::WatchEvent::Bookmark(_)))));
    assert_eq!(before.elapsed(), Duration::from_secs(58));
    assert!(watch.next().await.is_none());
    assert_eq!(before.elapsed(), Duration::from_secs(60));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn client_crashes_before_or_after_the_nth_request_is_carried_out() -> Result<()> {
    for (phase, is_there) in [(Phase::Arrived, false), (Phase::Done, true)] {
        let server = server(1);
        let crash = move |passing: Passing<'_>| {
            if (passing.number, passing.phase) == (2, phase) { Verdict::Stop } else { Verdict::Continue }
        };
        server.on_request(Arc::new(crash));
        let api = secrets(&server, "operator");
        for name in ["a", "b"] {
            let object: Secret = serde_json::from_value(secret(name, "1"))?;
            let answered = timeout(LONG, api.create(&PostParams::default(), &object)).await.is_ok();
            assert_eq!(answered, name == "a");
        }
        assert_eq!(server.as_user("test").get("secrets", "default", "b").is_some(), is_there);
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn read_of_a_version_that_does_not_come_fails_after_three_seconds() -> Result<()> {
    let server = server(1);
    let client = Client::new(server.client_service("operator"), "default");
    let before = Instant::now();
    let request = http::Request::get("/api/v1/secrets?resourceVersion=1000").body(Vec::new())?;
    let failure = client.request::<Value>(request).await.unwrap_err();
    assert!(matches!(failure, kube::Error::Api(status) if status.code == 504));
    assert_eq!(before.elapsed(), Duration::from_secs(3));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn object_that_is_read_at_a_version_is_as_late_as_watches_and_never_older() -> Result<()> {
    let server = server(1);
    let user = server.as_user("kubectl");
    let client = Client::new(server.client_service("operator"), "default");
    let read = async |version: u64| -> Result<Value, u16> {
        let uri = format!("/api/v1/namespaces/default/secrets/a?resourceVersion={version}");
        let request = http::Request::get(uri).body(Vec::new()).unwrap();
        match client.request::<Value>(request).await {
            Ok(secret) => Ok(secret["metadata"]["labels"]["v"].clone()),
            Err(kube::Error::Api(status)) => Err(status.code),
            Err(_) => Err(0),
        }
    };
    let touch = |value: &str| {
        user.patch("secrets", "default", "a", &json!({"metadata": {"labels": {"v": value}}})).unwrap();
        server.revision()
    };
    user.create(&secret("a", "1")).unwrap();
    let first = touch("1");
    assert_eq!(read(first).await, Ok(json!("1")));

    sleep(LONG).await;
    server.disturb(Match::any().target("secrets"), Disturbance::Lag(Duration::from_secs(2)));
    let second = touch("2");
    let before = Instant::now();
    assert_eq!(read(first).await, Ok(json!("1")), "the cache lags");
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(read(second).await, Ok(json!("2")));
    assert_eq!(before.elapsed(), Duration::from_secs(2), "it is waited for");
    server.clear_faults();
    server.disturb(Match::any().target("secrets"), Disturbance::Lag(Duration::from_secs(7)));
    let third = touch("3");
    assert_eq!(read(third).await, Err(504), "it does not come in time");
    server.clear_faults();

    assert!(server.restore(first));
    assert_eq!(read(second).await, Ok(json!("3")), "the cache outlives the restore");
    server.disturb(Match::any(), Disturbance::End);
    assert_eq!(read(second).await, Err(504));
    assert_eq!(read(first).await, Ok(json!("1")));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn list_of_a_compacted_version_goes_on_with_the_token_of_the_failure() -> Result<()> {
    let server = server(1);
    let user = server.as_user("kubectl");
    for name in ["a", "b", "c"] {
        user.create(&secret(name, "1")).unwrap();
    }
    let client = Client::new(server.client_service("operator"), "default");
    let list = async |query: &str| -> Result<(u16, Value)> {
        let request = http::Request::get(format!("/api/v1/secrets?limit=1{query}")).body(kube::client::Body::empty())?;
        let answer = client.send(request).await?;
        let code = answer.status().as_u16();
        Ok((code, serde_json::from_slice(&answer.into_body().collect_bytes().await?)?))
    };
    let (_, page) = list("").await?;
    assert_eq!(page["metadata"]["remainingItemCount"], 2);
    user.delete("secrets", "default", "b", &json!({})).unwrap();
    let token = |page: &Value| format!("&continue={}", page["metadata"]["continue"].as_str().unwrap_or_default());
    let (_, consistent) = list(&token(&page)).await?;
    assert_eq!(consistent["items"][0]["metadata"]["name"], "b");
    server.compact(server.revision());
    let (code, expired) = list(&token(&page)).await?;
    assert_eq!(code, 410);
    let (_, inconsistent) = list(&token(&expired)).await?;
    assert_eq!(inconsistent["items"][0]["metadata"]["name"], "c");
    let backup = server.revision();
    user.create(&secret("d", "1")).unwrap();
    let (_, page) = list("").await?;
    assert!(server.restore(backup));
    let (code, _) = list(&token(&page)).await?;
    assert_eq!(code, 504, "its revision is yet to come");
    Ok(())
}
