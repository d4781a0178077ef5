//! What the API server refuses by our schema, and with which words; and what it must accept.

use anyhow::Result;
use serde_json::{Value, json};
use stage::namespace::Namespace;

/// What the API server said to an object: `Ok` where it would accept it.
async fn verdict(namespace: &Namespace, object: &Value) -> Result<(), String> {
    let arguments = ["--namespace", &namespace.name, "create", "--dry-run=server", "-f", "-"];
    namespace
        .stage
        .kubectl_with(&arguments, Some(&object.to_string()))
        .await
        .map(drop)
        .map_err(|error| format!("{error:#}"))
}

/// Checks a table: what is told for each change of a good spec; `None` where it must be accepted.
async fn check(object: impl Fn(&Namespace, &Value) -> Value, table: &[(Value, Option<&str>)]) -> Result<()> {
    let namespace = Namespace::new("admission").await?;
    for (spec, expected) in table {
        match (verdict(&namespace, &object(&namespace, spec)).await, expected) {
            (Ok(()), None) => {}
            (Err(told), Some(expected)) => {
                assert!(told.contains(expected), "{spec}: expected '{expected}', was told: {told}")
            }
            (Ok(()), Some(expected)) => panic!("{spec} was accepted, expected '{expected}'"),
            (Err(told), None) => panic!("{spec} was refused: {told}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn credential_rules() -> Result<()> {
    let long_list: Vec<String> = (0..65).map(|n| format!("scope-{n}")).collect();
    check(
        |namespace, spec| namespace.credential("agent", spec),
        &[
            (json!({}), None),
            (json!({"renewBefore": "20m"}), None),
            (json!({"renewBefore": "1h30m"}), None),
            (json!({"renewBeforePercentage": 50}), None),
            (json!({"scopes": ["itwin-platform", "imodels:read"], "resources": ["https://api.example.com", "urn:x:y"]}), None),
            (json!({"deletionPolicy": "Retain", "suspend": true, "secretName": "other"}), None),
            (json!({"secretTemplate": {"labels": {"team": "a"}, "annotations": {"team": "a"}}}), None),
            (json!({"renewBefore": "20m", "renewBeforePercentage": 20}), Some("set at most one of renewBefore and renewBeforePercentage")),
            (json!({"renewBefore": "1m"}), Some("raise renewBefore or lower minimumValidity")),
            (json!({"renewBefore": "1m", "minimumValidity": "30s"}), None),
            (json!({"renewBefore": "100ms", "minimumValidity": "0s"}), Some("renewBefore must be at least 1s")),
            (json!({"renewBefore": "soon"}), Some("spec.renewBefore")),
            (json!({"renewBeforePercentage": 51}), Some("spec.renewBeforePercentage")),
            (json!({"renewBeforePercentage": 0}), Some("spec.renewBeforePercentage")),
            (json!({"minimumValidity": "25h"}), Some("minimumValidity must be at most 24h")),
            (json!({"minimumValidity": "-1s"}), Some("spec.minimumValidity")),
            (json!({"scopes": []}), Some("spec.scopes")),
            (json!({"scopes": ["a", "a"]}), Some("Duplicate")),
            (json!({"scopes": ["a b"]}), Some("spec.scopes[0]")),
            (json!({"scopes": ["a\"b"]}), Some("spec.scopes[0]")),
            (json!({"scopes": long_list}), Some("must have at most 64 items")),
            (json!({"resources": ["/relative"]}), Some("spec.resources[0]")),
            (json!({"resources": ["https://api.example.com#fragment"]}), Some("spec.resources[0]")),
            (json!({"secretName": "agent-client"}), Some("the token would be written into the client Secret itself")),
            (json!({"clientCredentialsRef": {"name": "agent"}}), Some("the token would be written into the client Secret itself")),
            (json!({"clientCredentialsRef": null}), Some("spec.clientCredentialsRef")),
            (json!({"clientCredentialsRef": {"name": "Not A Name"}}), Some("spec.clientCredentialsRef.name")),
            (json!({"clientCredentialsRef": {"clientIdKey": "a/b"}}), Some("spec.clientCredentialsRef.clientIdKey")),
            (json!({"secretName": "UPPER"}), Some("spec.secretName")),
            (json!({"deletionPolicy": "Orphan"}), Some("spec.deletionPolicy")),
            (json!({"grantType": "implicit"}), Some("spec.grantType")),
            (json!({"secretTemplate": {"labels": {"app.kubernetes.io/managed-by": "me"}}}), Some("are the operator's own")),
            (json!({"secretTemplate": {"labels": {"credentials.itwin.dev/credential": "x"}}}), Some("are the operator's own")),
            (json!({"secretTemplate": {"annotations": {"credentials.itwin.dev/owner-uid": "x"}}}), Some("is the operator's own")),
            (json!({"grantType": "password"}), None),
            (json!({"secretTemplate": {"data": {"a": "b"}}}), None),
            (json!({"secretTemplate": {"data": {"access_token": "b"}}}), Some("are always written, use other keys")),
            (json!({"secretTemplate": {"data": {"a/b": "b"}}}), Some("a key of a Secret consists of")),
            (json!({"rolloutRestartTargets": [{"kind": "Deployment", "name": "a"}]}), None),
            (json!({"rolloutRestartTargets": [{"kind": "Job", "name": "a"}]}), Some("spec.rolloutRestartTargets[0].kind")),
            // what a tenant must never be able to say
            (json!({"tokenEndpoint": "https://evil.example.com"}), Some("unknown field")),
            (json!({"clientCredentialsRef": {"namespace": "kube-system"}}), Some("unknown field")),
        ],
    )
    .await
}

#[tokio::test]
async fn authority_rules() -> Result<()> {
    check(
        |namespace, spec| namespace.authority(spec),
        &[
            (json!({"issuer": "https://ims.example.com"}), None),
            (json!({"issuer": "https://ims.example.com:8443/tenant/"}), None),
            (json!({"tokenEndpoint": "https://other.example.com/connect/token?tenant=1", "jwksUri": "https://other.example.com/keys"}), None),
            (json!({"clientAuthentication": "client_secret_basic", "accessTokenFormat": "opaque", "audiences": ["a"]}), None),
            (json!({"allowedNamespaces": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}, "allowedScopes": []}), None),
            (json!({"requestTimeout": "60s", "maxConcurrentRequests": 256, "requestsPerMinute": 1, "clockSkew": "10m"}), None),
            (json!({"issuer": "http://ims.example.com"}), Some("issuer must be an https URL")),
            (json!({"issuer": "https://user@ims.example.com"}), Some("issuer must be an https URL")),
            (json!({"issuer": "https://ims.example.com?x=1"}), Some("issuer must be an https URL")),
            (json!({"issuer": "https://ims.example.com/#x"}), Some("issuer must be an https URL")),
            (json!({"issuer": "ims.example.com"}), Some("issuer must be an https URL")),
            (json!({"issuer": null}), Some("spec.issuer")),
            (json!({"tokenEndpoint": "http://ims.example.com/t"}), Some("tokenEndpoint must be an https URL")),
            (json!({"tokenEndpoint": "https://a@ims.example.com/t"}), Some("tokenEndpoint must be an https URL")),
            (json!({"jwksUri": "https://ims.example.com/keys#x"}), Some("jwksUri must be an https URL")),
            (json!({"caBundle": "-----BEGIN"}), Some("spec.caBundle")),
            (json!({"accessTokenFormat": "paseto"}), Some("spec.accessTokenFormat")),
            (json!({"requestTimeout": "61s"}), Some("requestTimeout must be between 1s and 60s")),
            (json!({"requestTimeout": "500ms"}), Some("requestTimeout must be between 1s and 60s")),
            (json!({"clockSkew": "11m"}), Some("clockSkew must be at most 10m")),
            (json!({"maxConcurrentRequests": 0}), Some("spec.maxConcurrentRequests")),
            (json!({"requestsPerMinute": 0}), Some("spec.requestsPerMinute")),
            (json!({"allowedGrantTypes": []}), Some("spec.allowedGrantTypes")),
            (json!({"allowedGrantTypes": ["client_credentials", "password"]}), None),
            (json!({"clientAuthentication": "private_key_jwt"}), None),
        ],
    )
    .await
}

#[tokio::test]
async fn immutable_fields_stay() -> Result<()> {
    let namespace = Namespace::new("immutable").await?;
    namespace.apply(&namespace.credential("agent", &json!({}))).await?;
    let refused = namespace.apply(&namespace.credential("agent", &json!({"secretName": "other"}))).await;
    assert!(refused.is_err_and(|error| format!("{error:#}").contains("spec.secretName is immutable")));
    // the default, said aloud, is no change
    namespace.apply(&namespace.credential("agent", &json!({"secretName": "agent"}))).await?;

    namespace.apply(&namespace.authority(&json!({"issuer": "https://127.0.0.1:9"}))).await?;
    namespace.apply(&namespace.authority(&json!({"issuer": "https://127.0.0.1:9/"}))).await?;
    let refused = namespace.apply(&namespace.authority(&json!({"issuer": "https://127.0.0.2:9"}))).await;
    assert!(refused.is_err_and(|error| format!("{error:#}").contains("issuer is immutable")));
    namespace.kubectl(&["delete", "itauth", &namespace.name]).await.map(drop)
}

#[tokio::test]
async fn defaults_are_those_of_the_contract() -> Result<()> {
    let namespace = Namespace::new("defaults").await?;
    let plain = json!({
        "apiVersion": "credentials.itwin.dev/v1alpha1",
        "kind": "ITwinServiceCredential",
        "metadata": {"name": "agent"},
        "spec": {"clientCredentialsRef": {"name": "client"}},
    });
    namespace.apply(&plain).await?;
    let credential = namespace.get("itcred", "agent").await?.unwrap_or_default();
    assert_eq!(
        credential["spec"],
        json!({
            "authorityRef": {"name": "bentley-ims"},
            "clientCredentialsRef": {
                "name": "client",
                "clientIdKey": "client_id",
                "clientSecretKey": "client_secret",
                "privateKeyKey": "private_key",
                "usernameKey": "username",
                "passwordKey": "password",
            },
            "grantType": "client_credentials",
            "scopes": ["itwin-platform"],
            "minimumValidity": "300s",
            "deletionPolicy": "Delete",
            "suspend": false,
        })
    );
    Ok(())
}

#[tokio::test]
async fn explain_tells_every_field() -> Result<()> {
    let namespace = Namespace::new("explain").await?;
    for kind in ["itcred", "itauth"] {
        for path in [".spec", ".status"] {
            let text = namespace.kubectl(&["explain", &format!("{kind}{path}")]).await?;
            assert!(!text.contains("<no description>"), "{text}");
        }
    }
    let text = namespace.kubectl(&["explain", "itcred.spec.minimumValidity"]).await?;
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(joined.contains("the length of its longest call. Below it the credential is not Ready."), "{text}");
    // kubectl fills its lines; a short one within a paragraph would be a line end of ours
    let description: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("DESCRIPTION")).skip(1).collect();
    assert!(description.first().is_some_and(|line| line.len() > 60), "{text}");
    Ok(())
}
