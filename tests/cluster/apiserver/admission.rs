//! What the API server rejects because of the schema, and with which messages; and what it must accept.

use anyhow::Result;
use serde_json::{Value, json};
use testbed::{eventually, namespace::Namespace, version::has_selectable_fields};

use crate::environment::PATIENCE;

/// The response of the API server to an object: `Ok` if it would accept it.
async fn verdict(namespace: &Namespace, object: &Value) -> Result<(), String> {
    let arguments = ["--namespace", &namespace.name, "create", "--dry-run=server", "-f", "-"];
    namespace
        .testbed
        .kubectl_with(&arguments, Some(&object.to_string()))
        .await
        .map(drop)
        .map_err(|error| format!("{error:#}"))
}

/// Checks a table: the message for each change of a valid spec; `None` if it must be accepted.
async fn check(object: impl Fn(&Namespace, &Value) -> Value, table: &[(Value, Option<&str>)]) -> Result<()> {
    let namespace = Namespace::new("admission").await?;
    for (spec, expected) in table {
        match (verdict(&namespace, &object(&namespace, spec)).await, expected) {
            (Ok(()), None) => {}
            (Err(reported), Some(expected)) => {
                assert!(reported.contains(expected), "{spec}: expected '{expected}', reported: {reported}");
                // as older versions of Kubernetes write it
                let reported = reported.replace("Invalid value: \"null\"", "Invalid value: null");
                // neither a regular expression nor a rule without a field; one such line is of Kubernetes itself
                let ours = reported.replace("<nil>: Invalid value: null: some validation rules were not checked", "");
                assert!(!ours.contains("<nil>") && !ours.contains("should match"), "{spec}: {reported}");
            }
            (Ok(()), Some(expected)) => panic!("{spec} was accepted, expected '{expected}'"),
            (Err(reported), None) => panic!("{spec} was refused: {reported}"),
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
            (json!({"renewBefore": "1m"}), None),
            (json!({"renewBefore": "1m", "minimumValidity": "5m"}), Some("spec.renewBefore: Invalid value")),
            (json!({"renewBefore": "1m", "minimumValidity": "5m"}), Some("raise renewBefore or lower minimumValidity")),
            (json!({"renewBefore": "1m", "minimumValidity": "30s"}), None),
            (json!({"renewBefore": "100ms", "minimumValidity": "0s"}), Some("renewBefore must be at least 1s")),
            (json!({"renewBefore": "soon"}), Some("spec.renewBefore")),
            (json!({"renewBefore": "1d"}), Some("must be a duration such as 90s, 20m or 1h30m")),
            (json!({"renewBefore": "1d"}), Some("a day is 24h")),
            (json!({"renewBeforePercentage": 51}), Some("spec.renewBeforePercentage")),
            (json!({"renewBeforePercentage": 0}), Some("spec.renewBeforePercentage")),
            (json!({"minimumValidity": "25h"}), Some("minimumValidity must be at most 24h")),
            (json!({"minimumValidity": "-1s"}), Some("must be a duration such as 90s, 20m or 1h30m")),
            (json!({"scopes": []}), None),
            (json!({"audience": "https://api.example.com/"}), None),
            (json!({"audience": "https://a https://b"}), None),
            (json!({"audience": ""}), Some("spec.audience")),
            (json!({"audience": " https://a"}), Some("audience: write the identifier of the API")),
            (json!({"clientCredentialsRef": {"keyIdKey": "kid", "certificateKey": "tls.crt"}}), None),
            (json!({"scopes": ["a", "a"]}), Some("Duplicate")),
            (json!({"scopes": ["a b"]}), Some("spec.scopes[0]")),
            (json!({"scopes": ["a b"]}), Some("write several scopes as several items")),
            (json!({"scopes": ["a\\b"]}), Some("must be one scope")),
            (json!({"scopes": ["a/b:c!#[]~"]}), None),
            (json!({"scopes": ["a\"b"]}), Some("spec.scopes[0]")),
            (json!({"scopes": long_list}), Some("must have at most 64 items")),
            (json!({"resources": ["/relative"]}), Some("must be an absolute URI without a fragment")),
            (json!({"resources": ["https://api.example.com#fragment"]}), Some("spec.resources[0]")),
            (json!({"secretName": "agent-client"}), Some("spec.secretName: Invalid value")),
            (json!({"secretName": "agent-client"}), Some("the token would be written into the client Secret itself")),
            (json!({"clientCredentialsRef": {"name": "agent"}}), Some("the token would be written into the client Secret itself")),
            (json!({"clientCredentialsRef": null}), Some("spec.clientCredentialsRef")),
            (json!({"clientCredentialsRef": {"name": "Not A Name"}}), Some("spec.clientCredentialsRef.name")),
            (json!({"clientCredentialsRef": {"name": "Not A Name"}}), Some("must be the name of an object: lower case")),
            (json!({"secretName": "a.b-c.0"}), None),
            (json!({"secretName": "a..b"}), Some("on both sides of each '.'")),
            (json!({"clientCredentialsRef": {"name": "a.-b"}}), Some("on both sides of each '.'")),
            (json!({"authorityRef": {"name": "a-.b"}}), Some("on both sides of each '.'")),
            (json!({"clientCredentialsRef": {"clientIdKey": "a/b"}}), Some("must be a key of a Secret: letters")),
            (json!({"clientCredentialsRef": {"clientIdKey": "db", "clientSecretKey": "db"}}), Some("spec.clientCredentialsRef.clientIdKey: Invalid value")),
            (json!({"clientCredentialsRef": {"clientIdKey": "password"}}), Some("clientIdKey names the key of a secret")),
            (json!({"clientCredentialsRef": {"clientIdKey": "private_key"}}), Some("name the key of the client identifier")),
            (json!({"clientCredentialsRef": {"clientIdKey": "username", "clientSecretKey": "password"}}), None),
            (json!({"secretName": "UPPER"}), Some("spec.secretName")),
            (json!({"deletionPolicy": "Orphan"}), Some("spec.deletionPolicy")),
            (json!({"grantType": "implicit"}), Some("spec.grantType")),
            (json!({"secretTemplate": {"labels": {"app.kubernetes.io/managed-by": "me"}}}), Some("are reserved for the operator")),
            (json!({"secretTemplate": {"labels": {"credentials.itwin.dev/credential": "x"}}}), Some("are reserved for the operator")),
            (json!({"secretTemplate": {"annotations": {"credentials.itwin.dev/owner-uid": "x"}}}), Some("is reserved for the operator")),
            (json!({"grantType": "password"}), None),
            (json!({"secretTemplate": {"data": {"a": "b"}}}), None),
            (json!({"secretTemplate": {"data": {"access_token": "b"}}}), Some("are always written, use other keys")),
            (json!({"secretTemplate": {"data": {"a/b": "b"}}}), Some("a key of a Secret consists of")),
            (json!({"secretTemplate": {"data": {".a": "b", "a..b": "b", ".a.": "b"}}}), None),
            (json!({"secretTemplate": {"data": {".": "b"}}}), Some("does not begin with '..', begin the key with")),
            (json!({"secretTemplate": {"data": {"..": "b"}}}), Some("does not begin with '..', begin the key with")),
            (json!({"secretTemplate": {"data": {"..data": "b"}}}), Some("does not begin with '..', begin the key with")),
            (json!({"rolloutRestartTargets": [{"kind": "Deployment", "name": "a"}]}), None),
            (json!({"rolloutRestartTargets": [{"kind": "Rollout", "name": "a"}], "rolloutRestartDelay": "0s"}), None),
            (json!({"rolloutRestartDelay": "1h0.001s"}), Some("rolloutRestartDelay must be at most 1h")),
            (json!({"rolloutRestartDelay": "soon"}), Some("must be a duration such as 90s, 20m or 1h30m")),
            (json!({"rolloutRestartTargets": [{"kind": "Job", "name": "a"}]}), Some("spec.rolloutRestartTargets[0].kind")),
            // a tenant must never be able to set these
            (json!({"tokenEndpoint": "https://evil.example.com"}), Some("unknown field")),
            (json!({"clientCredentialsRef": {"namespace": "kube-system"}}), Some("unknown field")),
        ],
    )
    .await
}

/// Texts under numbered keys: `count` of them, with `total` bytes including their keys.
fn texts(count: usize, total: usize, key: impl Fn(usize) -> String) -> Value {
    let keys: Vec<String> = (0..count).map(key).collect();
    let text = total - keys.iter().map(String::len).sum::<usize>();
    let sized = |number| text / count + usize::from(number < text % count);
    let entries = keys.into_iter().enumerate();
    entries.map(|(number, key)| (key, Value::from("x".repeat(sized(number))))).collect::<serde_json::Map<_, _>>().into()
}

#[tokio::test]
async fn largest_credential_is_accepted_and_one_byte_more_is_rejected() -> Result<()> {
    let key = |number| format!("{}/{number:x>63}", "d".repeat(200));
    let name = |number: usize| format!("{number:x>100}");
    let labels = || -> Value {
        let pairs = (0..16).map(|number| (format!("example.com/{number:x>63}"), Value::from("v".repeat(63))));
        pairs.collect::<serde_json::Map<_, _>>().into()
    };
    let size = |map: Value| -> usize {
        let map = map.as_object().cloned().unwrap_or_default();
        map.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum()
    };
    let annotations = |total: usize| texts(32, total - size(labels()), key);
    let scopes = |total: usize| -> Vec<String> {
        let sized = |number: usize| total / 64 - 1 + usize::from(number < total % 64);
        (0..64).map(|number| format!("{number:x>width$}", width = sized(number))).collect()
    };
    let resources = |total: usize| -> Vec<String> {
        (0..16)
            .map(|number| format!("urn:{number:x>width$}", width = total / 16 - 4 + usize::from(number < total % 16)))
            .collect()
    };
    let targets: Vec<Value> =
        (0..16).map(|number| json!({"kind": "StatefulSet", "name": format!("{number:x>253}")})).collect();
    let largest = json!({
        "clientCredentialsRef": {
            "name": "x".repeat(253),
            "clientIdKey": "i".repeat(253), "clientSecretKey": "k".repeat(253), "privateKeyKey": "k".repeat(253),
            "usernameKey": "k".repeat(253), "passwordKey": "k".repeat(253), "expiresAtKey": "k".repeat(253),
        },
        "authorityRef": {"name": "a".repeat(253)},
        "grantType": "client_credentials",
        "secretName": "s".repeat(253),
        "scopes": scopes(8192),
        "resources": resources(8192),
        "renewBefore": "2562046.000000000h000000000.00ms",
        "minimumValidity": "0.000000001h0.000000001s0000000s",
        "secretTemplate": {
            "labels": labels(),
            "annotations": annotations(12_288),
            "data": texts(16, 16_384, name),
        },
        "rolloutRestartTargets": targets,
        "rolloutRestartDelay": "0.000000001h0.000000001s0000000s",
    });
    let with = |pointer: &str, value: Value| {
        let mut spec = largest.clone();
        *spec.pointer_mut(pointer).expect("there") = value;
        spec
    };
    assert!(largest.to_string().len() > 50_000, "{}", largest.to_string().len());
    check(
        |namespace, spec| namespace.credential("agent", spec),
        &[
            (largest.clone(), None),
            (with("/scopes", json!(scopes(8193))), Some("scopes: they have more than 8192 bytes in total")),
            (with("/resources", json!(resources(8193))), Some("resources: they have more than 8192 bytes")),
            (
                with("/secretTemplate/annotations", annotations(12_289)),
                Some("labels and annotations with their keys have more than 12288 bytes"),
            ),
            (
                with("/secretTemplate/data", texts(16, 16_385, name)),
                Some("the templates and their keys have more than 16384 bytes"),
            ),
        ],
    )
    .await
}

#[tokio::test]
async fn labels_annotations_and_templates_have_rules() -> Result<()> {
    let many = |count: usize| texts(count, 10 * count, |number| format!("k{number}"));
    let label = |key: &str, value: &str| json!({"secretTemplate": {"labels": {key: value}}});
    let annotation = |key: &str, value: &str| json!({"secretTemplate": {"annotations": {key: value}}});
    let data = |text: &str| json!({"secretTemplate": {"data": {"key": text}}});
    let (domain, name) = ("d".repeat(253), "n".repeat(63));
    let key_rule = Some("a key has at most 63 letters, digits");
    let value_rule = Some("secretTemplate.labels: a value has at most 63 letters, digits");
    check(
        |namespace, spec| namespace.credential("agent", spec),
        &[
            (label(&format!("{domain}/{name}"), &name), None),
            (label("a", ""), None),
            (label("a", "A_b.c-9"), None),
            (label("Example.com/a", "b"), key_rule),
            (label(&format!("d{domain}/a"), "b"), key_rule),
            (label(&format!("{name}n"), "b"), key_rule),
            (label("a/b/c", "b"), key_rule),
            (label("-a", "b"), key_rule),
            (label("a b", "b"), key_rule),
            (label("/a", "b"), key_rule),
            (label("a", "-b"), value_rule),
            (label("a", "b c"), value_rule),
            (label("a", "b\n"), value_rule),
            (label("a", "ä"), value_rule),
            (label("a", &format!("{name}n")), Some("spec.secretTemplate.labels.a: Too long")),
            (json!({"secretTemplate": {"labels": many(32)}}), None),
            (json!({"secretTemplate": {"labels": many(33)}}), Some("spec.secretTemplate.labels: Too many")),
            (annotation("Example.com/A", "any text\nä {{"), None),
            (annotation("a b", ""), key_rule),
            (annotation(&format!("d{domain}/a"), "b"), key_rule),
            (annotation("a", &"b".repeat(4096)), None),
            (annotation("a", &"b".repeat(4097)), Some("spec.secretTemplate.annotations.a: Too long")),
            (json!({"secretTemplate": {"annotations": many(32)}}), None),
            (json!({"secretTemplate": {"annotations": many(33)}}), Some("spec.secretTemplate.annotations: Too many")),
            // the condition of the credential reports errors in a template
            (data("{% not a template"), None),
            (data(&"x".repeat(4096)), None),
            (data(&"x".repeat(4097)), Some("spec.secretTemplate.data.key: Too long")),
            (data(&"ä".repeat(2049)), Some("secretTemplate.data: a template has more than 4096 bytes")),
            (json!({"secretTemplate": {"data": many(16)}}), None),
            (json!({"secretTemplate": {"data": many(17)}}), Some("spec.secretTemplate.data: Too many")),
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
            (json!({"caBundle": "-----BEGIN CERTIFICATE-----\nAAAA\n"}), Some("write the output of `base64 < ca.crt")),
            (json!({"requestTimeout": "1d"}), Some("must be a duration such as 90s, 20m or 1h30m")),
            (json!({"clockSkew": "1d"}), Some("must be a duration such as 90s, 20m or 1h30m")),
            (json!({"accessTokenFormat": "paseto"}), Some("spec.accessTokenFormat")),
            (json!({"requestTimeout": "61s"}), Some("requestTimeout must be between 1s and 60s")),
            (json!({"requestTimeout": "500ms"}), Some("requestTimeout must be between 1s and 60s")),
            (json!({"clockSkew": "11m"}), Some("clockSkew must be at most 10m")),
            (json!({"maxConcurrentRequests": 0}), Some("spec.maxConcurrentRequests")),
            (json!({"requestsPerMinute": 0}), Some("spec.requestsPerMinute")),
            (json!({"allowedGrantTypes": []}), Some("spec.allowedGrantTypes")),
            (json!({"allowedGrantTypes": ["client_credentials", "password"]}), None),
            (json!({"clientAuthentication": "private_key_jwt"}), None),
            (json!({"clientAuthentication": "private_key_jwt", "clientAssertion": {}}), None),
            (
                json!({
                    "clientAuthentication": "private_key_jwt",
                    "clientAssertion": {"audience": "tokenEndpoint", "algorithm": "PS256"},
                }),
                None,
            ),
            (
                json!({
                    "clientAuthentication": "private_key_jwt",
                    "clientAssertion": {"audience": "two words"},
                }),
                Some("clientAssertion.audience: write issuer, tokenEndpoint"),
            ),
            (
                json!({"clientAuthentication": "private_key_jwt", "clientAssertion": {"algorithm": "HS256"}}),
                Some("spec.clientAssertion.algorithm"),
            ),
            (json!({"clientAssertion": {}}), Some("set clientAuthentication to private_key_jwt")),
            (json!({"clientAuthentication": "none"}), Some("set allowedGrantTypes to [password]")),
            (json!({"clientAuthentication": "none", "allowedGrantTypes": ["password"]}), None),
            (json!({"scopeCheck": "Lenient", "allowedAudiences": ["https://api.example.com"]}), None),
            (json!({"scopeCheck": "off"}), Some("spec.scopeCheck")),
            (json!({"allowedAudiences": []}), None),
            (json!({"caBundleRef": {"kind": "ConfigMap", "name": "ca", "key": "ca.crt"}, "caBundle": null}), None),
            (
                json!({"caBundleRef": {"kind": "Secret", "name": "ca", "key": "ca.crt"}, "caBundle": "QQ=="}),
                Some("set at most one of caBundle and caBundleRef"),
            ),
            (
                json!({"caBundleRef": {"kind": "Pod", "name": "ca", "key": "ca.crt"}, "caBundle": null}),
                Some("spec.caBundleRef.kind"),
            ),
            (json!({"caBundleRef": {"kind": "Secret", "name": "ca"}, "caBundle": null}), Some("spec.caBundleRef.key")),
            (
                json!({"caBundleRef": {"kind": "ConfigMap", "name": "ca", "key": "a/b"}, "caBundle": null}),
                Some("must be a key of a ConfigMap or Secret"),
            ),
            (json!({"connectTimeout": "10s", "requestTimeout": "60s"}), None),
            (json!({"connectTimeout": "61s"}), Some("connectTimeout must be between 100ms and 60s")),
            (json!({"connectTimeout": "0s"}), Some("connectTimeout must be between 100ms and 60s")),
            (json!({"accessTokenFormat": "opaque", "defaultTokenLifetime": "30m"}), None),
            (json!({"defaultTokenLifetime": "30m"}), Some("set accessTokenFormat to opaque")),
            (
                json!({"accessTokenFormat": "opaque", "defaultTokenLifetime": "1s"}),
                Some("defaultTokenLifetime must be between 10s and 8760h"),
            ),
        ],
    )
    .await
}

#[tokio::test]
async fn credentials_are_selected_by_their_authority_and_secret() -> Result<()> {
    let namespace = Namespace::new("selected").await?;
    if !has_selectable_fields(&namespace.testbed).await? {
        return namespace.testbed.skip("field selectors of credentials", "Kubernetes has them from 1.31 on");
    }
    for (name, secret) in [("one", "first"), ("two", "second")] {
        namespace.apply(&namespace.credential(name, &json!({"secretName": secret}))).await?;
    }
    let selected = async |selector: &str| {
        let names = ["-o", "jsonpath={.items[*].metadata.name}"];
        namespace.kubectl(&[&["get", "itcred", "--field-selector", selector], &names[..]].concat()).await
    };
    assert_eq!(selected("spec.secretName=second").await?, "two");
    assert_eq!(selected(&format!("spec.authorityRef.name={}", namespace.name)).await?, "one two");
    assert_eq!(selected("spec.authorityRef.name=another").await?, "");
    Ok(())
}

#[tokio::test]
async fn immutable_fields_cannot_change() -> Result<()> {
    let namespace = Namespace::new("immutable").await?;
    namespace.apply(&namespace.credential("agent", &json!({}))).await?;
    let refused = namespace.apply(&namespace.credential("agent", &json!({"secretName": "other"}))).await;
    assert!(refused.is_err_and(|error| format!("{error:#}").contains("spec.secretName is immutable")));
    // setting the default explicitly is no change
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
    let plain =
        namespace.credential("agent", &json!({"authorityRef": null, "clientCredentialsRef": {"name": "client"}}));
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
                "expiresAtKey": "expires_at",
                "keyIdKey": "key_id",
                "certificateKey": "certificate",
            },
            "grantType": "client_credentials",
            "scopes": ["itwin-platform"],
            "rolloutRestartDelay": "10s",
            "deletionPolicy": "Delete",
            "suspend": false,
        })
    );
    Ok(())
}

#[tokio::test]
async fn explain_describes_every_field() -> Result<()> {
    let namespace = Namespace::new("explain").await?;
    // the API server publishes the schema of a custom resource some time after it serves the resource
    let described = async || namespace.kubectl(&["explain", "itcred.spec"]).await.ok();
    eventually("kubectl explain", PATIENCE, described).await?;
    for kind in ["itcred", "itauth"] {
        for path in [".spec", ".status"] {
            let text = namespace.kubectl(&["explain", &format!("{kind}{path}")]).await?;
            assert!(!text.contains("<no description>"), "{text}");
        }
    }
    let text = namespace.kubectl(&["explain", "itcred.spec.minimumValidity"]).await?;
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(joined.contains("the duration of the workload's longest call. While the token is valid for less, the credential is not Ready."), "{text}");
    // kubectl fills its lines; a short one within a paragraph would be a line break in the description
    let description: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("DESCRIPTION")).skip(1).collect();
    assert!(description.first().is_some_and(|line| line.len() > 60), "{text}");
    Ok(())
}
