//! The same random operations on the simulated server and on a real kube-apiserver: answers must be equal.
//!
//! What may differ is listed in `normal.rs`; any other difference is a bug of the simulated server. A sequence is
//! played again with `DIFFERENTIAL_SEED=n DIFFERENTIAL_SEQUENCES=1`.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

mod bodies;
mod controllers;
mod normal;
mod odd;
mod operations;
mod player;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, stream};
use kube::Client;
use serde_json::{Value, json};
use simulated_api::{ApiServer, Config, random::Random, resources::table};
use testbed::Testbed;

use crate::{
    operations::{Action, Operation, operation},
    player::Player,
};

/// Sequences, unless `DIFFERENTIAL_SEQUENCES` says otherwise.
const SEQUENCES: u64 = 64;
/// Operations of each.
const OPERATIONS: usize = 30;
/// Sequences at the same time.
const AT_ONCE: usize = 8;
/// Differences that are shown.
const SHOWN: usize = 5;
/// The longest that one sequence takes; about a second.
const LIMIT: Duration = Duration::from_secs(60);

fn variable(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

/// The schema that the real server has of a custom resource.
async fn schema(client: &Client, plural: &str) -> Result<Value> {
    let uri = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.credentials.itwin.dev");
    let definition: Value = client.request(http::Request::get(uri).body(Vec::new())?).await?;
    Ok(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone())
}

async fn simulated(real: &Client, seed: u64) -> Result<ApiServer> {
    let mut resources = table();
    for resource in &mut resources {
        if resource.group == "credentials.itwin.dev" {
            *resource = resource.clone().with_schema(schema(real, &resource.plural).await?);
        }
    }
    let clock = Arc::new(|| chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap_or_default());
    Ok(ApiServer::new(Config { resources, ..Config::new(seed, clock) }))
}

/// Field managers, more than are recorded separately, in the order in which they write.
const MANAGERS: [&str; 14] =
    ["m00", "m01", "m02", "m03", "m04", "m05", "m06", "m07", "m08", "m09", "m10", "m11", "m12", "m13"];

#[tokio::test]
async fn oldest_of_many_field_managers_are_joined_in_both() -> Result<()> {
    let real = Testbed::current()?.client().await?;
    let server = simulated(&real, 1).await?;
    let fake = Client::new(server.client_service("test"), "default");
    let namespace = format!("differential-{}-managers", std::process::id());
    let mut players = [Player::new(fake, &namespace), Player::new(real.clone(), &namespace)];
    let mut operations = vec![Operation::namespace(&namespace)];
    let secret = |manager, action| Operation {
        collection: format!("/api/v1/namespaces/{namespace}/secrets"),
        name: "a".to_owned(),
        action,
        manager,
        partial: false,
    };
    operations.push(secret(MANAGERS[0], Action::Create(json!({"metadata": {"name": "a"}}))));
    operations.extend(MANAGERS.map(|manager| {
        let patch = json!({"metadata": {"annotations": {format!("example.com/{manager}"): "x"}}});
        secret(manager, Action::Patch { subresource: "", patch })
    }));
    for operation in &operations {
        let [fake, real] = &mut players;
        let (fake, real) = (fake.play(operation).await?, real.play(operation).await?);
        assert_eq!(fake, real, "{operation}\n{}", normal::difference(&fake, &real));
    }
    Ok(())
}

/// Lists custom resources: the real server begins to cache them with the first request, and answers 410 to a watch from
/// before that.
async fn fill_caches(client: &Client) -> Result<()> {
    for plural in ["itwinservicecredentials", "itwinauthorities"] {
        let uri = format!("/apis/credentials.itwin.dev/v1alpha1/{plural}?limit=1");
        client.request::<Value>(http::Request::get(uri).body(Vec::new())?).await?;
    }
    Ok(())
}

/// Plays one sequence on both; the difference, if there is one.
async fn play(real: &Client, seed: u64) -> Result<Option<String>> {
    let server = simulated(real, seed).await?;
    let fake = Client::new(server.client_service("test"), "default");
    let namespace = format!("differential-{}-{seed}", std::process::id());
    let mut random = Random::new(seed);
    let mut players = [Player::new(fake, &namespace), Player::new(real.clone(), &namespace)];
    for number in 0..OPERATIONS {
        let operation = if number == 0 { Operation::namespace(&namespace) } else { operation(&mut random, &namespace) };
        let mut answers = Vec::new();
        for player in &mut players {
            answers.push(player.play(&operation).await.with_context(|| format!("seed {seed}: {operation}"))?);
        }
        if answers[0] != answers[1] {
            let (fake, real) = (&answers[0], &answers[1]);
            return Ok(Some(format!(
                "DIFFERENTIAL_SEED={seed}, operation {number}: {operation}\n{}",
                normal::difference(fake, real)
            )));
        }
    }
    let [fake, real] = players;
    ensure!(fake.order() == real.order(), "seed {seed}: versions are in another order");
    Ok(None)
}

#[tokio::test]
async fn simulated_server_answers_as_the_real_one() -> Result<()> {
    let real = Testbed::current()?.client().await?;
    fill_caches(&real).await?;
    let first = variable("DIFFERENTIAL_SEED", 1);
    let seeds = first..first + variable("DIFFERENTIAL_SEQUENCES", SEQUENCES);
    let played = stream::iter(seeds).map(|seed| {
        let real = real.clone();
        async move {
            match tokio::time::timeout(LIMIT, play(&real, seed)).await {
                Ok(result) => result,
                Err(_) => Ok(Some(format!("DIFFERENTIAL_SEED={seed} takes too long"))),
            }
        }
    });
    let results: Vec<Result<Option<String>>> = played.buffer_unordered(AT_ONCE).collect().await;
    let mut differences = Vec::new();
    for result in results {
        differences.extend(result?);
    }
    let shown = differences.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n\n");
    assert!(differences.is_empty(), "{} sequences differ:\n{shown}", differences.len());
    Ok(())
}

#[tokio::test]
async fn simulated_controllers_leave_what_real_ones_do() -> Result<()> {
    let real = Testbed::current()?.client().await?;
    let server = simulated(&real, 1).await?;
    let client = Client::new(server.client_service("test"), "default");
    controllers::compare(&server, client, real).await
}
