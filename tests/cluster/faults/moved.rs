//! A server that moves its token endpoint: the discovery document names the new one, and the old one is gone.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::{environment::TestEnvironment, faults::row::RowFixture, fixture::Fixture};

const PATIENCE: Duration = Duration::from_secs(60);
/// Much less than the ten minutes after which the document is read anyway, on a busy machine.
const NOTICED: Duration = Duration::from_secs(40);
/// Limit for what an operator reads every 30 s.
const FOLLOWED: Duration = Duration::from_secs(90);
const NAME: &str = "agent";

#[tokio::test]
async fn discovered_token_endpoint_that_moved_is_used_within_seconds() -> Result<()> {
    let fixture = RowFixture::new("moved").await?;
    let issuer = format!("{}/moving/{}", fixture.faults().issuer, fixture.client_id(NAME));
    let authority = fixture.create_authority(NAME, &json!({"issuer": issuer, "accessTokenFormat": "opaque"})).await?;
    settle(&fixture, &authority).await?;
    endpoint_moves(&fixture).await?;
    fixture.delete_authority(&authority).await
}

#[tokio::test]
async fn token_endpoint_that_moved_is_found_while_the_ca_certificates_cannot_be_read() -> Result<()> {
    let environment = TestEnvironment::new("moved-ca").await?;
    let namespace = environment.namespace.name.clone();
    // the operator runs in this namespace, where the chart would give it this Role
    let fixture = Fixture::spawn(environment, &["--lease-namespace", &namespace])?;
    let kubectl = async |arguments: &[&str]| fixture.namespace.kubectl(arguments).await;
    kubectl(&["create", "role", "ca", "--verb=get", "--resource=configmaps", "--resource-name=ca"]).await?;
    let account = format!("--serviceaccount={0}:{0}", testbed::INSTALLATION);
    kubectl(&["create", "rolebinding", "ca", "--role=ca", &account]).await?;
    let data = json!({"ca.crt": fixture.faults().ca});
    let config_map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca"}, "data": data});
    fixture.namespace.apply(&config_map).await?;
    let issuer = format!("{}/moving/{}", fixture.faults().issuer, fixture.namespace.unique(NAME));
    let reference = json!({"kind": "ConfigMap", "name": "ca", "key": "ca.crt"});
    let spec = json!({"issuer": issuer, "accessTokenFormat": "opaque", "caBundle": null, "caBundleRef": reference});
    let authority = fixture.create_authority(NAME, &spec).await?;
    let fixture = RowFixture::of(fixture);
    settle(&fixture, &authority).await?;

    fixture.namespace.kubectl(&["delete", "configmap", "ca"]).await?;
    fixture
        .eventually("a status that says so", FOLLOWED, async || {
            let status = fixture.authorities().get(&authority).await.ok()?.status?;
            let ready = status.conditions.into_iter().find(|condition| condition.type_ == "Ready")?;
            (ready.status == "True" && ready.message.contains("/ca does not exist")).then_some(())
        })
        .await?;
    endpoint_moves(&fixture).await?;
    fixture.delete_authority(&authority).await
}

/// A credential of this authority gets its first token.
async fn settle(fixture: &RowFixture, authority: &str) -> Result<()> {
    fixture.create_client_secret(NAME).await?;
    fixture.create_credential(NAME, authority, NAME, &json!({})).await?;
    fixture.wait(NAME, "Ready", true, "TokenValid", PATIENCE).await.map(drop)
}

/// Moves the token endpoint, and waits for a token of the new one.
async fn endpoint_moves(fixture: &RowFixture) -> Result<()> {
    let client_id = fixture.client_id(NAME);
    let before = fixture.secrets().get(NAME).await?;

    fixture.faults().behave(&client_id, &json!({"name": "good", "moves": 1})).await?;
    fixture.renew_now(NAME, "1").await?;
    fixture
        .eventually("a token of the new endpoint", NOTICED, async || {
            let now = fixture.secrets().get(NAME).await.ok()?;
            (now.data != before.data).then_some(())
        })
        .await?;
    fixture.wait(NAME, "Renewed", true, "TokenIssued", PATIENCE).await.map(drop)
}
