//! The chart, with real Helm and a real API server: what it renders is accepted, grants no more than documented, and
//! wrong values are rejected.

#![allow(missing_docs)]

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use testbed::{INSTALLATION, Testbed, eventually, namespace::Namespace, objects, project};

/// How long the API server may take to enforce a new policy or role.
const SOON: Duration = Duration::from_secs(60);

fn chart() -> String {
    project().join("charts").join(INSTALLATION).display().to_string()
}

/// The files with values that are tested, and `None` for the defaults.
fn values() -> Result<Vec<Option<PathBuf>>> {
    let mut files: Vec<Option<PathBuf>> = vec![None];
    for entry in std::fs::read_dir(project().join("tests/chart/values"))? {
        files.push(Some(entry?.path()));
    }
    files.push(Some(project().join("charts/values/single-namespace.yaml")));
    files.push(Some(project().join("charts/values/openshift.yaml")));
    Ok(files)
}

fn file(name: &str) -> Result<String> {
    Ok(format!("--values={}", project().join("tests/chart/values").join(name).display()))
}

/// What the chart renders for a release of this name, in a namespace of the same name.
async fn template(testbed: &Testbed, release: &str, arguments: &[&str]) -> Result<String> {
    let chart = chart();
    testbed.helm(&[&["template", release, &chart, "--namespace", release], arguments].concat()).await
}

/// The documents of a rendered chart; those of the Prometheus Operator, whose CRDs no testbed has, are separate.
fn split(rendered: &str) -> (Vec<&str>, Vec<&str>) {
    let documents = rendered.split("\n---").filter(|document| document.contains("\nkind:"));
    documents.partition(|document| !document.contains("apiVersion: monitoring.coreos.com"))
}

/// The objects that the chart renders.
async fn objects(testbed: &Testbed, release: &str, arguments: &[&str]) -> Result<Vec<Value>> {
    let rendered = template(testbed, release, arguments).await?;
    let (known, _) = split(&rendered);
    let create = ["create", "--dry-run=client", "--validate=false", "-o", "json", "-f", "-"];
    let text = testbed.kubectl_with(&create, Some(&known.join("\n---"))).await?;
    Ok(serde_json::Deserializer::from_str(&text).into_iter().collect::<Result<_, _>>()?)
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// The verbs that a role allows on a resource.
fn verbs(role: &Value, resource: &str) -> Vec<String> {
    let rules = role["rules"].as_array().into_iter().flatten();
    let rules = rules.filter(|rule| rule["resources"].as_array().is_some_and(|names| names.contains(&json!(resource))));
    let verbs = rules.flat_map(|rule| rule["verbs"].as_array().into_iter().flatten());
    verbs.filter_map(|verb| verb.as_str().map(str::to_owned)).collect()
}

async fn refused(what: &str, result: impl Future<Output = Result<String>>) -> Result<String> {
    match result.await {
        Ok(said) => bail!("{what} was accepted: {said}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

#[tokio::test]
async fn chart_is_clean_with_all_kinds_of_values() -> Result<()> {
    let testbed = Testbed::current()?;
    for values in values()? {
        let values = values.map(|file| format!("--values={}", file.display()));
        let chart = chart();
        let mut arguments = vec!["lint", "--strict", &chart];
        arguments.extend(values.as_deref());
        testbed.helm(&arguments).await?;
    }
    Ok(())
}

#[tokio::test]
async fn rendered_objects_are_accepted_by_the_api_server() -> Result<()> {
    let namespace = Namespace::new("chart-accepted").await?;
    // the namespace of the example; it may exist already
    let _ = namespace.kubectl(&["create", "namespace", "team-a"]).await;
    for values in values()? {
        let values = values.map(|file| format!("--values={}", file.display()));
        let arguments: Vec<&str> = values.as_deref().into_iter().collect();
        let rendered = template(&namespace.testbed, &namespace.name, &arguments).await?;
        let (known, _) = split(&rendered);
        let apply = ["apply", "--dry-run=server", "-f", "-"];
        let accepted = namespace.testbed.kubectl_with(&apply, Some(&known.join("\n---"))).await;
        accepted.with_context(|| format!("with {values:?}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn ca_bundles_that_the_values_name_may_be_read_and_no_others() -> Result<()> {
    let testbed = Testbed::current()?;
    let ca_roles = async |arguments: &[&str]| -> Result<Vec<Value>> {
        let objects = objects(&testbed, "roles", arguments).await?;
        let roles = of_kind(&objects, "Role").into_iter().cloned();
        Ok(roles
            .filter(|role| role["metadata"]["name"].as_str().is_some_and(|name| name.ends_with("-ca-bundles")))
            .collect())
    };
    assert!(ca_roles(&[]).await?.is_empty(), "no authority refers to any");
    let roles = ca_roles(&[&file("everything.yaml")?]).await?;
    let [role] = &roles[..] else { bail!("one Role: {roles:?}") };
    assert_eq!(role["metadata"]["namespace"], "roles");
    let rule = |resource: &str, names: Value| json!({"apiGroups": [""], "resources": [resource], "resourceNames": names, "verbs": ["get"]});
    let expected = [rule("configmaps", json!(["corporate-ca", "other-ca"])), rule("secrets", json!(["ca"]))];
    assert_eq!(role["rules"], json!(expected));
    Ok(())
}

#[tokio::test]
async fn openshift_may_choose_the_user() -> Result<()> {
    let testbed = Testbed::current()?;
    let values = format!("--values={}", project().join("charts/values/openshift.yaml").display());
    let objects = objects(&testbed, "openshift", &[&values]).await?;
    let deployment = *of_kind(&objects, "Deployment").first().context("a Deployment")?;
    let pod = &deployment["spec"]["template"]["spec"];
    for context in [&pod["securityContext"], &pod["containers"][0]["securityContext"]] {
        for field in ["runAsUser", "runAsGroup", "fsGroup", "supplementalGroups"] {
            assert!(context[field].is_null(), "{field}: {context}");
        }
    }
    // what the restricted Pod Security Standard demands stays
    assert_eq!(pod["securityContext"], json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}));
    assert_eq!(pod["containers"][0]["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"], json!(false));
    Ok(())
}

#[tokio::test]
async fn unknown_and_ill_typed_values_are_refused() -> Result<()> {
    let testbed = Testbed::current()?;
    for (wrong, named) in [
        ("replicas=2", "replicas"),
        ("replicaCount=two", "replicaCount"),
        ("image.name=x", "name"),
        ("authorities.mine.isuer=https://ims.example.com", "isuer"),
        ("authorities.bentley-ims.maxConcurrentRequests=0", "maxConcurrentRequests"),
        ("authorities.bentley-ims.scopeCheck=lenient", "scopeCheck"),
        ("authorities.bentley-ims.clientAssertion.alg=ES256", "clientAssertion"),
        ("watchNamespaces=team-a", "watchNamespaces"),
        ("watchSecrets=maybe", "watchSecrets"),
        ("leaderElection.enable=true", "enable"),
        ("concurrency=257", "concurrency"),
        ("logLevel=trace", "logLevel"),
        ("logFormat=xml", "logFormat"),
        ("networkPolicy.egress.apiServer.ports={https}", "ports"),
        ("podAntiAffinity=medium", "podAntiAffinity"),
        ("livenessProbe.httpGet.path=/", "httpGet"),
        ("metrics.port=80", "port"),
        ("prometheusRule.enabled=yes", "enabled"),
        ("validatingAdmissionPolicy.actions={Refuse}", "actions"),
    ] {
        let said = refused(wrong, template(&testbed, "wrong", &["--set", wrong])).await?;
        assert!(said.contains("don't meet the specifications") && said.contains(named), "{wrong}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn invalid_values_are_refused_in_words_by_both_versions_of_helm() -> Result<()> {
    let testbed = Testbed::current()?;
    let chart = chart();
    // this build of Helm 3 does not know for which Kubernetes it is
    let render = ["template", "wrong", &chart, "--kube-version=1.30.0", "--set"];
    let (duration, object) = ("must be a duration such as 90s, 20m or 1h30m", "must be the name of an object");
    for (wrong, says) in [
        ("authorities.mine.issuer=http://ims.example.com", "authorities.mine.issuer must be an https URL"),
        ("authorities.bentley-ims.tokenEndpoint=ims.example.com", "tokenEndpoint must be an https URL"),
        ("authorities.bentley-ims.jwksUri=https://me@ims.example.com", "jwksUri must be an https URL"),
        ("authorities.Foo_x.issuer=https://ims.example.com", object),
        ("authorities.-x.issuer=https://ims.example.com", object),
        ("authorities.bentley-ims.clockSkew=1d", duration),
        ("authorities.bentley-ims.connectTimeout=5 s", duration),
        ("authorities.bentley-ims.requestTimeout=soon", duration),
        ("authorities.bentley-ims.defaultTokenLifetime=1d", duration),
        ("authorities.bentley-ims.caBundle=-----BEGIN CERTIFICATE-----", "write the output of `base64 < ca.crt"),
        (
            "authorities.ims.issuer=https://a.example.com,authorities.ims.caBundleRef.kind=Secret,\
             authorities.ims.caBundleRef.name=A_b,authorities.ims.caBundleRef.key=ca",
            object,
        ),
        (
            "authorities.ims.issuer=https://a.example.com,authorities.ims.caBundleRef.kind=Secret,\
             authorities.ims.caBundleRef.name=ca,authorities.ims.caBundleRef.key=a/b",
            "caBundleRef.key must be a key of a ConfigMap or Secret",
        ),
        ("authorities.bentley-ims.requestTimeout=5m", "requestTimeout must be between 1s and 60s"),
        ("authorities.bentley-ims.requestTimeout=0s", "requestTimeout must be between 1s and 60s"),
        ("authorities.bentley-ims.requestTimeout=60s1ms", "requestTimeout must be between 1s and 60s"),
        ("authorities.bentley-ims.connectTimeout=10ms", "connectTimeout must be between 100ms and 60s"),
        ("authorities.bentley-ims.connectTimeout=999999999h", "connectTimeout must be between 100ms and 60s"),
        ("authorities.bentley-ims.clockSkew=11m", "clockSkew must be at most 10m"),
        (
            "authorities.bentley-ims.accessTokenFormat=opaque,authorities.bentley-ims.defaultTokenLifetime=1s",
            "defaultTokenLifetime must be between 10s and 8760h",
        ),
        (
            "authorities.bentley-ims.accessTokenFormat=opaque,authorities.bentley-ims.defaultTokenLifetime=8760.1h",
            "defaultTokenLifetime must be between 10s and 8760h",
        ),
        ("authorities.bentley-ims.allowedScopes={a b}", "no spaces, double quotes or backslashes"),
        ("authorities.bentley-ims.allowedScopes={ü}", "allowedScopes must consist of printable ASCII characters"),
        (
            "authorities.bentley-ims.clientAuthentication=private_key_jwt,\
             authorities.bentley-ims.clientAssertion.audience=",
            "clientAssertion.audience: write issuer, tokenEndpoint, or the audience",
        ),
        ("authorities.bentley-ims.caBundle=", "caBundle must be base64 of a PEM file"),
        ("authorities.bentley-ims.jwksUri=https://[::1/keys", "jwksUri must name its server"),
        ("authorities.bentley-ims.tokenEndpoint=https://a%41.example.com", "tokenEndpoint must name its server"),
        ("authorities.bentley-ims.tokenEndpoint=https://a.example.com/%4", "'%' only before two hexadecimal digits"),
        ("authorities.bentley-ims.allowedNamespaces.matchLabels.a b=c", "must be the key of a label"),
        ("authorities.bentley-ims.allowedNamespaces.matchLabels.a=b c", "matchLabels.a must be the value of a label"),
        (
            "authorities.bentley-ims.allowedNamespaces.matchExpressions[0].key=-a,\
             authorities.bentley-ims.allowedNamespaces.matchExpressions[0].operator=Exists",
            "must be the key of a label",
        ),
        (
            "authorities.bentley-ims.allowedNamespaces.matchExpressions[0].key=a,\
             authorities.bentley-ims.allowedNamespaces.matchExpressions[0].operator=In",
            "In and NotIn need values",
        ),
        ("authorities.bentley-ims.clientAssertion.algorithm=ES256", "set clientAuthentication to private_key_jwt"),
        ("authorities.bentley-ims.clientAuthentication=none", "set allowedGrantTypes to [password]"),
        ("authorities.bentley-ims.defaultTokenLifetime=1h", "set accessTokenFormat to opaque"),
        ("authorities.bentley-ims.issuer=https://ims.example.com:https", "must have a port that is a number"),
        ("proxy.httpsProxy=http://proxy.example.com:http", "proxy.httpsProxy must have a port that is a number"),
        ("proxy.httpsProxy=proxy.example.com:65536", "proxy.httpsProxy must have a port that is a number"),
        ("extraEnv[0].name=ALL_PROXY,extraEnv[0].value=http://p:x1", "ALL_PROXY in extraEnv must have a port"),
        ("proxy.httpProxy=http://proxy.example.com:3128", "set proxy.httpsProxy"),
        ("nameOverride=My_App", "nameOverride must be a part of a name"),
        ("fullnameOverride=a.b", "fullnameOverride must be the name of a Service"),
        ("serviceAccount.name=Robot", object),
        ("watchNamespaces={Team A}", "must be the name of a namespace"),
        ("image.digest=latest", "a tag such as latest belongs in image.tag"),
        ("podDisruptionBudget.minAvailable=many", "or a percentage such as 50%"),
        ("serviceMonitor.interval=soon", "must be a duration of Prometheus such as 30s"),
        ("grafanaDashboard.namespace=Grafana_1", "must be the name of a namespace"),
        ("prometheusRule.runbookBaseUrl=docs", "must be an http or https URL"),
    ] {
        for program in [&testbed.helm, &testbed.helm3] {
            let said = refused(wrong, testbed.helm_with(program, &[&render[..], &[wrong]].concat())).await?;
            assert!(said.contains(says), "{wrong}: {said}");
            assert!(!said.contains("does not match pattern"), "{wrong}: {said}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn longest_and_shortest_values_of_an_authority_are_accepted_and_longer_ones_refused() -> Result<()> {
    let testbed = Testbed::current()?;
    let set = async |set: &str| {
        let set = format!("authorities.bentley-ims.{set}");
        template(&testbed, "bounds", &["--set", &set]).await
    };
    for accepted in [
        "requestTimeout=1s",
        "requestTimeout=60s",
        "requestTimeout=0.5m30000ms",
        "connectTimeout=100ms",
        "connectTimeout=0.1s",
        "clockSkew=0s",
        "clockSkew=9m60s",
        "accessTokenFormat=opaque,authorities.bentley-ims.defaultTokenLifetime=8760h",
        "allowedNamespaces.matchLabels.example\\.com/team=",
        "issuer=https://[2001:db8::1]:8443/a%20b",
    ] {
        set(accepted).await.with_context(|| accepted.to_owned())?;
    }
    for (field, length) in [("audiences", 2048), ("allowedScopes", 256), ("allowedAudiences", 2048)] {
        set(&format!("{field}={{{}}}", "a".repeat(length))).await.with_context(|| field.to_owned())?;
        let said = refused(field, set(&format!("{field}={{{}}}", "a".repeat(length + 1)))).await?;
        assert!(said.contains(field) && said.contains("maxLength"), "{field}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn password_of_a_proxy_is_in_no_error() -> Result<()> {
    let testbed = Testbed::current()?;
    let wrong = "networkPolicy.enabled=true,proxy.httpsProxy=http://user:pa%ssword@proxy.example.com:http";
    let said = refused(wrong, template(&testbed, "wrong", &["--set", wrong])).await?;
    // after the command itself, which holds it
    let (_, said) = said.split_once(" ended with ").context("an error of Helm")?;
    assert!(said.contains("proxy.httpsProxy must have a port") && !said.contains("ssword"), "{said}");
    Ok(())
}

#[tokio::test]
async fn settings_that_contradict_each_other_are_refused() -> Result<()> {
    let testbed = Testbed::current()?;
    for (wrong, says) in [
        ("serviceMonitor.enabled=true,metrics.service.enabled=false", "metrics.service.enabled"),
        ("serviceMonitor.enabled=true,podMonitor.enabled=true", "twice"),
        ("prometheusRule.enabled=true,prometheusRule.disabledAlerts={Nothing}", "there is no alert Nothing"),
    ] {
        let said = refused(wrong, template(&testbed, "wrong", &["--set", wrong])).await?;
        assert!(said.contains(says), "{wrong}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn settings_reach_the_command_line() -> Result<()> {
    let testbed = Testbed::current()?;
    let set = "watchNamespaces={a,b},watchSecrets=false,leaderElection.enabled=false,perCredentialMetrics=false,\
               concurrency=3,logLevel=warn,logFormat=text,metrics.port=9000,extraArgs={--lease-namespace=x}";
    let rendered = template(&testbed, "flags", &["--set", set]).await?;
    for argument in [
        "--namespaces=a,b",
        "--watch-secrets=false",
        "--leader-election=false",
        "--per-credential-metrics=false",
        "--concurrency=3",
        "--log-level=warn",
        "--log-format=text",
        "--metrics-address=[::]:9000",
        "--lease-namespace=x",
    ] {
        assert!(rendered.contains(&format!("- {argument}\n")), "{argument} is missing");
    }
    Ok(())
}

#[tokio::test]
async fn addresses_of_metrics_of_ip_version_6_need_no_brackets() -> Result<()> {
    let testbed = Testbed::current()?;
    for (address, argument) in [("::", "[::]:8080"), ("[::1]", "[::1]:8080"), ("0.0.0.0", "0.0.0.0:8080")] {
        let rendered = template(&testbed, "flags", &["--set", &format!("metrics.bindAddress={address}")]).await?;
        assert!(rendered.contains(&format!("- --metrics-address={argument}\n")), "{argument} is missing");
    }
    Ok(())
}

#[tokio::test]
async fn crash_journal_is_a_bounded_memory_volume_besides_those_of_the_user() -> Result<()> {
    let testbed = Testbed::current()?;
    for (arguments, count) in [(vec![], 1), (vec![file("everything.yaml")?], 2)] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let objects = objects(&testbed, "journal", &arguments).await?;
        let pod = &of_kind(&objects, "Deployment").first().context("no Deployment")?["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let mount = &container["volumeMounts"][0];
        let argument = format!("--state-dir={}", mount["mountPath"].as_str().context("no mountPath")?);
        assert!(container["args"].as_array().is_some_and(|args| args.contains(&json!(argument))), "{argument}");
        let volume = json!({"name": mount["name"], "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}});
        assert_eq!(pod["volumes"][0], volume);
        let lengths = [&pod["volumes"], &container["volumeMounts"]].map(|list| list.as_array().map(Vec::len));
        assert_eq!(lengths, [Some(count); 2]);
    }
    Ok(())
}

#[tokio::test]
async fn listed_namespaces_are_the_only_ones_with_permissions_on_secrets() -> Result<()> {
    let namespace = Namespace::new("chart-scoped").await?;
    let (testbed, name) = (&namespace.testbed, &namespace.name);
    let set = format!("watchNamespaces={{{name},default}}");
    let objects = objects(testbed, name, &["--set", &set]).await?;
    for role in of_kind(&objects, "ClusterRole") {
        assert!(verbs(role, "secrets").is_empty(), "{} allows Secrets everywhere", role["metadata"]["name"]);
        assert!(verbs(role, "namespaces").is_empty());
    }
    let roles = of_kind(&objects, "Role");
    let with_secrets: Vec<&str> = roles
        .iter()
        .filter(|role| !verbs(role, "secrets").is_empty())
        .filter_map(|role| role["metadata"]["namespace"].as_str())
        .collect();
    assert_eq!(with_secrets, [name.as_str(), "default"]);
    let of_events = |role: &&&Value| verbs(role, "events") == ["create", "patch"];
    assert_eq!(roles.iter().filter(of_events).count(), 2, "the Role of `default` covers events about authorities");

    // and from the point of view of the API server
    let chart = chart();
    let set = format!("watchNamespaces={{{name}}},crds.enabled=false,replicaCount=0,authorities.bentley-ims=null");
    testbed.helm(&["install", name, &chart, "--namespace", name, "--set", &set]).await?;
    let user = format!("--as=system:serviceaccount:{name}:{name}-{INSTALLATION}");
    let may = async |arguments: &[&str]| {
        // it ends with an error if the answer is no
        let answer = testbed.kubectl(&[&["auth", "can-i", &user], arguments].concat()).await;
        answer.is_ok_and(|answer| answer.starts_with("yes"))
    };
    eventually("the permissions", SOON, async || may(&["list", "secrets", "--namespace", name]).await.then_some(()))
        .await?;
    assert!(may(&["get", &format!("namespaces/{name}"), "--namespace", name]).await);
    assert!(may(&["list", "itwinauthorities.credentials.itwin.dev"]).await);
    assert!(may(&["patch", "itwinauthorities.credentials.itwin.dev", "--subresource=status"]).await);
    // events about authorities, which have no namespace
    for verb in ["create", "patch"] {
        assert!(may(&[verb, "events.events.k8s.io", "--namespace", "default"]).await);
        assert!(!may(&[verb, "events.events.k8s.io", "--namespace", "kube-system"]).await);
    }
    assert!(!may(&["list", "secrets", "--namespace", "default"]).await);
    assert!(!may(&["list", "secrets", "--all-namespaces"]).await);
    assert!(!may(&["delete", "secrets", "--namespace", name]).await);
    assert!(!may(&["list", "itwinservicecredentials.credentials.itwin.dev", "--all-namespaces"]).await);
    testbed.helm(&["uninstall", name, "--namespace", name]).await?;
    Ok(())
}

#[tokio::test]
async fn permissions_follow_what_is_switched_on() -> Result<()> {
    let testbed = Testbed::current()?;
    let role = async |set: &str| -> Result<(Value, usize)> {
        let objects = objects(&testbed, INSTALLATION, &["--set", set]).await?;
        let named = |kind: &str| {
            let found = of_kind(&objects, kind).into_iter().filter(|role| role["metadata"]["name"] == INSTALLATION);
            found.cloned().collect::<Vec<Value>>()
        };
        Ok((named("ClusterRole").pop().context("no ClusterRole")?, named("Role").len()))
    };
    let (all, leases) = role("replicaCount=2").await?;
    assert_eq!(verbs(&all, "secrets"), ["get", "list", "watch", "create", "patch"]);
    assert!(verbs(&all, "deployments").is_empty());
    assert_eq!(leases, 1);
    let (unwatched, leases) =
        role("watchSecrets=false,leaderElection.enabled=false,rolloutRestart.enabled=true").await?;
    assert_eq!(verbs(&unwatched, "secrets"), ["get", "create", "patch"]);
    assert_eq!(verbs(&unwatched, "deployments"), ["get", "patch"]);
    assert_eq!(verbs(&unwatched, "rollouts"), ["get", "patch"]);
    assert_eq!(leases, 0);
    let none = objects(&testbed, INSTALLATION, &["--set", "rbac.create=false"]).await?;
    assert!(of_kind(&none, "ClusterRole").is_empty() && of_kind(&none, "RoleBinding").is_empty());
    Ok(())
}

#[tokio::test]
async fn cluster_roles_of_users_include_credentials_and_protect_authorities() -> Result<()> {
    let namespace = Namespace::new("chart-people").await?;
    for role in ["view", "edit", "admin"] {
        let (binding, user) = (format!("--clusterrole={role}"), format!("--user={role}-of-{}", namespace.name));
        namespace.kubectl(&["create", "rolebinding", role, &binding, &user]).await?;
    }
    let may = async |role: &str, verb: &str| {
        let user = format!("--as={role}-of-{}", namespace.name);
        let resource = "itwinservicecredentials.credentials.itwin.dev";
        namespace.kubectl(&["auth", "can-i", verb, resource, &user]).await.is_ok_and(|answer| answer.starts_with("yes"))
    };
    for (role, verb) in [("view", "watch"), ("edit", "create"), ("admin", "create")] {
        eventually("the aggregated roles", SOON, async || may(role, verb).await.then_some(())).await?;
    }
    for (role, reads, writes) in [("view", true, false), ("edit", true, true), ("admin", true, true)] {
        for verb in ["get", "list", "watch"] {
            assert_eq!(may(role, verb).await, reads, "{role} {verb}");
        }
        for verb in ["create", "update", "patch", "delete"] {
            assert_eq!(may(role, verb).await, writes, "{role} {verb}");
        }
    }
    for kind in ["clusterrole/view", "clusterrole/edit", "clusterrole/admin"] {
        let role: Value = serde_json::from_str(&namespace.kubectl(&["get", kind, "-o", "json"]).await?)?;
        let verbs = verbs(&role, "itwinauthorities");
        assert!(verbs.iter().all(|verb| ["get", "list", "watch"].contains(&verb.as_str())), "{kind}: {verbs:?}");
    }
    Ok(())
}

#[tokio::test]
async fn pods_meet_the_restricted_standard() -> Result<()> {
    let namespace = Namespace::new("chart-restricted").await?;
    let enforce = "pod-security.kubernetes.io/enforce=restricted";
    namespace.kubectl(&["label", "namespace", &namespace.name, enforce]).await?;
    // the account that the pod names; in a real installation the same release creates it
    namespace.kubectl(&["create", "serviceaccount", "given"]).await?;
    let pods = async |set: &str| -> Result<Vec<Value>> {
        let set = format!("serviceAccount.create=false,serviceAccount.name=given{set}");
        let objects = objects(&namespace.testbed, &namespace.name, &["--set", &set]).await?;
        let template = &of_kind(&objects, "Deployment").first().context("no Deployment")?["spec"]["template"];
        let metadata = json!({"name": "replica", "labels": template["metadata"]["labels"]});
        let replica = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]});
        let test = of_kind(&objects, "Pod").first().copied().cloned().context("no test")?;
        Ok(vec![replica, test])
    };
    let create = async |pod: &Value| {
        let arguments = ["--namespace", &namespace.name, "create", "--dry-run=server", "-f", "-"];
        namespace.testbed.kubectl_with(&arguments, Some(&pod.to_string())).await
    };
    for pod in pods("").await? {
        create(&pod).await?;
    }
    // the standard is really enforced
    for pod in pods(",securityContext.allowPrivilegeEscalation=true").await? {
        let said = refused("a pod that may escalate", create(&pod)).await?;
        assert!(said.contains("violates PodSecurity"), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn authorities_come_after_their_crd_and_helm_deletes_none() -> Result<()> {
    let testbed = Testbed::current()?;
    let kind = "--api-versions=credentials.itwin.dev/v1alpha1/ITwinAuthority";
    let chart = chart();
    // this build of Helm 3 does not know for which Kubernetes it is
    let show = ["--show-only", "templates/authorities.yaml", "--kube-version=1.30.0"];
    let render = [&["template", "first", &chart], &show[..]].concat();
    for (program, is_4) in [(&testbed.helm, true), (&testbed.helm3, false)] {
        let first = testbed.helm_with(program, &render).await?;
        // Helm looks up every CRD before it creates an object of it
        assert!(first.contains("helm.sh/hook: post-install") && !first.contains("before-hook-creation"), "{first}");
        assert!(first.contains("meta.helm.sh/release-name: first"), "{first}");
        let later = testbed.helm_with(program, &[&render[..], &[kind]].concat()).await?;
        // Helm 4 waits for ordinary objects, and Helm 3 fails to create a hook again
        assert_eq!(later.contains("helm.sh/hook: post-install,post-upgrade,post-rollback"), is_4, "{later}");
        for rendered in [first, later] {
            assert!(rendered.contains("helm.sh/resource-policy: keep"), "{rendered}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn names_do_not_repeat_the_beginning_of_the_release() -> Result<()> {
    let testbed = Testbed::current()?;
    for (release, name) in [
        ("itwin-credential-operator", "itwin-credential-operator"),
        ("itwin", "itwin-credential-operator"),
        ("itwin-credential", "itwin-credential-operator"),
        ("prod-itwin-credential-operator", "prod-itwin-credential-operator"),
        ("prod", "prod-itwin-credential-operator"),
        ("it", "it-itwin-credential-operator"),
    ] {
        let objects = objects(&testbed, release, &[]).await?;
        assert_eq!(of_kind(&objects, "Deployment")[0]["metadata"]["name"], name, "{release}");
    }
    Ok(())
}

/// The ports of the egress rules of the network policy.
async fn egress(testbed: &Testbed, set: &str) -> Result<Vec<Vec<u64>>> {
    let objects = objects(testbed, "network", &["--set", "networkPolicy.enabled=true", "--set", set]).await?;
    let policy = *of_kind(&objects, "NetworkPolicy").first().context("no NetworkPolicy")?;
    let rules = policy["spec"]["egress"].as_array().context("no egress")?;
    let ports = |rule: &Value| {
        let ports = rule["ports"].as_array().into_iter().flatten().filter(|port| port["protocol"] == "TCP");
        ports.filter_map(|port| port["port"].as_u64()).collect()
    };
    Ok(rules.iter().map(ports).collect())
}

#[tokio::test]
async fn network_policy_allows_the_ports_of_authorities_and_proxies() -> Result<()> {
    let testbed = Testbed::current()?;
    let (dns, server) = (vec![53], vec![443, 6443]);
    for (set, expected) in [
        ("replicaCount=2", vec![vec![443]]),
        ("authorities.mine.issuer=https://ims.example.com:8443/realm", vec![vec![443, 8443]]),
        (
            "authorities.mine.issuer=https://ims.example.com:8443,authorities.mine.tokenEndpoint=https://a.example.com:9443/t,\
             authorities.mine.jwksUri=https://[2001:db8::1]:10443/k,authorities.bentley-ims=null",
            vec![vec![10443, 8443, 9443]],
        ),
        ("networkPolicy.egress.authorities.ports={8444}", vec![vec![443, 8444]]),
        ("authorities.bentley-ims=null", vec![vec![443]]),
        ("proxy.httpsProxy=http://proxy.example.com:3128", vec![vec![443], vec![3128]]),
        ("proxy.httpsProxy=proxy.example.com", vec![vec![443], vec![80]]),
        ("proxy.httpsProxy=http://user:pass%word@proxy.example.com:3128", vec![vec![443], vec![3128]]),
        ("extraEnv[0].name=ALL_PROXY,extraEnv[0].value=http://proxy.example.com:3128", vec![vec![443], vec![3128]]),
        ("extraEnv[0].name=https_proxy,extraEnv[0].value=https://user@proxy.example.com", vec![vec![443], vec![443]]),
    ] {
        let expected = [vec![dns.clone(), server.clone()], expected].concat();
        assert_eq!(egress(&testbed, set).await?, expected, "{set}");
    }
    Ok(())
}

#[tokio::test]
async fn resolver_has_the_time_limits_of_the_image_unless_the_values_set_others() -> Result<()> {
    let testbed = Testbed::current()?;
    let options = async |arguments: &[&str]| -> Result<Vec<String>> {
        let objects = objects(&testbed, "resolver", arguments).await?;
        let env = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["env"];
        let named = env.as_array().into_iter().flatten().filter(|variable| variable["name"] == "RES_OPTIONS");
        Ok(named.filter_map(|variable| variable["value"].as_str().map(str::to_owned)).collect())
    };
    let dockerfile = std::fs::read_to_string(project().join("Dockerfile"))?;
    let own = options(&["--set=extraEnv[0].name=OTHER,extraEnv[0].value=x"]).await?;
    assert!(own.len() == 1 && dockerfile.contains(&format!("\nENV RES_OPTIONS=\"{}\"\n", own[0])), "{own:?}");
    assert_eq!(options(&[]).await?, own);
    let set = "--set=extraEnv[0].name=RES_OPTIONS,extraEnv[0].value=timeout:3";
    assert_eq!(options(&[set]).await?, ["timeout:3"]);
    Ok(())
}

#[tokio::test]
async fn containers_request_and_limit_ephemeral_storage() -> Result<()> {
    let testbed = Testbed::current()?;
    let objects = objects(&testbed, "storage", &[]).await?;
    let deployment = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"];
    for pod in [deployment, &of_kind(&objects, "Pod")[0]["spec"]] {
        for part in ["requests", "limits"] {
            assert!(pod["containers"][0]["resources"][part]["ephemeral-storage"].is_string(), "{part}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn image_that_is_not_set_is_named_where_it_fails() -> Result<()> {
    let testbed = Testbed::current()?;
    let chart = chart();
    let install = ["install", "image", &chart, "--dry-run=client"];
    let notes = testbed.helm(&install).await?;
    assert!(notes.contains("image.repository is not set") && notes.contains("make image"), "{notes}");
    let set = "image.repository=registry.example.com/itwin-credential-operator";
    let notes = testbed.helm(&[&install[..], &["--set", set]].concat()).await?;
    assert!(!notes.contains("is not set") && notes.contains("cannot pull registry.example.com/"), "{notes}");
    // the kubelet quotes the name of the image that it cannot pull
    let objects = objects(&testbed, "image", &[]).await?;
    let pod = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"];
    let image = pod["containers"][0]["image"].as_str().unwrap_or_default();
    assert!(image.starts_with("set-image-repository.invalid/"), "{image}");
    Ok(())
}

#[tokio::test]
async fn authorities_are_readable_by_all_only_where_the_administrator_says_so() -> Result<()> {
    let testbed = Testbed::current()?;
    let bound = async |set: &str| -> Result<Vec<Value>> {
        let objects = objects(&testbed, "readers", &["--set", set]).await?;
        let to_all = |object: &&&Value| object["subjects"][0]["name"] == "system:authenticated";
        let bindings = of_kind(&objects, "ClusterRoleBinding");
        let names = bindings.iter().filter(to_all).map(|binding| binding["roleRef"]["name"].clone());
        let names: Vec<Value> = names.collect();
        let roles = of_kind(&objects, "ClusterRole");
        Ok(roles.into_iter().filter(|role| names.contains(&role["metadata"]["name"])).cloned().collect())
    };
    assert!(bound("replicaCount=2").await?.is_empty());
    let roles = bound("rbac.authenticatedUsersReadAuthorities=true").await?;
    assert_eq!(roles.len(), 1);
    assert_eq!(verbs(&roles[0], "itwinauthorities"), ["get", "list", "watch"]);
    assert_eq!(roles[0]["rules"].as_array().map(Vec::len), Some(1));
    Ok(())
}

#[tokio::test]
async fn notes_warn_of_what_is_risky() -> Result<()> {
    let testbed = Testbed::current()?;
    let notes = async |set: &str| {
        let chart = chart();
        testbed.helm(&["install", "notes", &chart, "--dry-run=client", "--set", set]).await
    };
    let plain = notes("replicaCount=2").await?;
    assert!(
        plain.contains("kubectl create secret generic my-client") && !plain.contains("Check these settings"),
        "{plain}"
    );
    for (set, warning) in [
        ("leaderElection.enabled=false", "Several replicas without leaderElection.enabled"),
        ("replicaCount=0", "requests and renews no token"),
        ("replicaCount=1", "no replica takes over"),
        ("rolloutRestart.enabled=true", "can run code in them"),
        ("rbac.create=false", "the operator does not work"),
        ("crds.keep=false", "an uninstall deletes every credential"),
        ("livenessProbe.enabled=false", "does not restart an operator that stalls"),
        ("terminationGracePeriodSeconds=5", "interrupted"),
        ("prometheusRule.enabled=true,perCredentialMetrics=false", "never fire"),
        ("networkPolicy.enabled=true", "networkPolicy.egress.authorities.ports"),
        (
            "networkPolicy.enabled=true,extraEnv[0].name=HTTPS_PROXY,extraEnv[0].valueFrom.secretKeyRef.name=proxy",
            "does not know the port of the proxy",
        ),
    ] {
        let said = notes(set).await?;
        assert!(said.contains("Check these settings") && said.contains(warning), "{set}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn notes_for_a_team_do_not_send_it_to_what_only_an_administrator_may_do() -> Result<()> {
    let testbed = Testbed::current()?;
    let (chart, values) = (chart(), project().join("charts/values/single-namespace.yaml").display().to_string());
    let notes = async |values: &[&str]| -> Result<String> {
        let install = ["install", "notes", &chart, "--dry-run=client", "--namespace", "team-a"];
        let said = testbed.helm(&[&install[..], values].concat()).await?;
        Ok(said.split_once("\nNOTES:").context("no notes")?.1.to_owned())
    };
    let team = notes(&["--values", &values]).await?;
    for said in ["ask an\n   administrator", "(team-a)", "an administrator applies examples/single-namespace"] {
        assert!(team.contains(said), "{said}: {team}");
    }
    // authorities are cluster-scoped
    assert!(!team.contains("kubectl get itauth"), "{team}");
    // a name that the API server refuses, so that no one takes it for a real one
    assert!(team.contains("authorityRef:\n      name: NAME_OF_AN_AUTHORITY  # replace it"), "{team}");
    let administrator = notes(&[]).await?;
    assert!(administrator.contains("kubectl get itauth bentley-ims"), "{administrator}");
    assert!(!administrator.contains("authorityRef"), "{administrator}");
    Ok(())
}

#[tokio::test]
async fn admission_policy_reserves_for_the_operator_what_it_decides_from() -> Result<()> {
    let namespace = Namespace::new("chart-policy").await?;
    let (testbed, name) = (&namespace.testbed, &namespace.name);
    // only this namespace: other tests make manual edits that this policy forbids
    let set = format!(
        "watchNamespaces={{{name}}},validatingAdmissionPolicy.enabled=true,crds.enabled=false,replicaCount=0,\
         authorities.bentley-ims=null"
    );
    let chart = chart();
    // authorities are cluster-scoped: the accounts that write their status in other tests are exempt
    let others =
        format!("validatingAdmissionPolicy.exemptUsers={{system:serviceaccount:{INSTALLATION}:{INSTALLATION}}}");
    testbed.helm(&["install", name, &chart, "--namespace", name, "--set", &set, "--set", &others]).await?;
    let operator = format!("system:serviceaccount:{name}:{name}-{INSTALLATION}");
    let impersonate = format!("--as={operator}");
    let secret = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/managed-by": INSTALLATION},
            "annotations": {"credentials.itwin.dev/owner-uid": "u", "credentials.itwin.dev/expires-at": "then"},
        }})
        .to_string()
    };
    let create = async |who: &[&str], name: &str| {
        let arguments = [&["--namespace", &namespace.name, "create", "-f", "-"], who].concat();
        testbed.kubectl_with(&arguments, Some(&secret(name))).await
    };
    eventually("the policy", SOON, async || create(&["--dry-run=server"], "forged").await.is_err().then_some(()))
        .await?;
    eventually("the operator's Secret", SOON, async || create(&[&impersonate], "token").await.ok()).await?;
    namespace.kubectl(&["create", "secret", "generic", "not-owned"]).await?;

    let annotate = async |secret: &str, annotation: &str| {
        namespace.kubectl(&["annotate", "--overwrite", "secret", secret, annotation]).await
    };
    refused("a forged time", annotate("token", "credentials.itwin.dev/expires-at=later")).await?;
    refused("a removed time", annotate("token", "credentials.itwin.dev/expires-at-")).await?;
    refused("a forged owner", annotate("not-owned", "credentials.itwin.dev/owner-uid=mine")).await?;
    // what a user may do, and the operator reverts
    annotate("not-owned", "credentials.itwin.dev/adopt=mine").await?;
    annotate("token", "team=a").await?;
    namespace.kubectl(&["label", "secret", "token", "app.kubernetes.io/managed-by-"]).await?;
    refused("a forged time without the label", annotate("token", "credentials.itwin.dev/expires-at=later")).await?;
    let data = r#"{"stringData":{"access_token":"by hand"}}"#;
    namespace.kubectl(&["patch", "secret", "token", "--type=merge", "-p", data]).await?;
    let patch_metadata = r#"{"metadata":{"annotations":{"credentials.itwin.dev/expires-at":"later"}}}"#;
    namespace.kubectl(&["patch", "secret", "token", "--type=merge", "-p", patch_metadata, &impersonate]).await?;

    // statuses
    namespace.apply(&namespace.credential("agent", &json!({}))).await?;
    let status = json!({"status": {"secretName": "somebody-elses"}});
    let manually = ["patch", "itcred", "agent", "--subresource=status", "--type=merge", "-p", &status.to_string()];
    let refused_by_policy = async || {
        let said = refused("a manual edit of a status", namespace.kubectl(&manually)).await.ok()?;
        said.contains("the status is written by itwin-credential-operator only").then_some(())
    };
    eventually("the policy about statuses", SOON, refused_by_policy).await?;
    let kubeconfig = kube::config::Kubeconfig::read_from(&testbed.kubeconfig)?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    config.auth_info.impersonate = Some(operator);
    let credentials: Api<itwin_api::credential::ITwinServiceCredential> =
        Api::namespaced(kube::Client::try_from(config)?, name);
    credentials.patch_status("agent", &PatchParams::default(), &Patch::Merge(&status)).await?;

    // garbage collection removes the owner reference, and deleted objects disappear
    let uid = credential_uid(&namespace).await?;
    let owner = json!({"metadata": {"ownerReferences": [objects::owner_reference("agent", uid)]}});
    namespace.kubectl(&["patch", "secret", "token", "--type=merge", "-p", &owner.to_string(), &impersonate]).await?;
    namespace.orphan("agent").await?;
    eventually("a Secret without owner", SOON, async || {
        let secret = namespace.get("secret", "token").await.ok()??;
        secret["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty).then_some(())
    })
    .await?;
    testbed.helm(&["uninstall", name, "--namespace", name]).await?;
    Ok(())
}

async fn credential_uid(namespace: &Namespace) -> Result<String> {
    let credential = namespace.get("itcred", "agent").await?.context("the credential is there")?;
    Ok(credential["metadata"]["uid"].as_str().context("no uid")?.to_owned())
}

#[tokio::test]
async fn alerts_fire_when_they_should_and_only_then() -> Result<()> {
    let testbed = Testbed::current()?;
    let alerts = project().join("charts").join(INSTALLATION).join("files/alerts.yaml").display().to_string();
    testbed.promtool(&["check", "rules", "--lint=all", "--lint-fatal", &alerts]).await?;
    let tests = project().join("tests/alerts/alerts.test.yaml").display().to_string();
    testbed.promtool(&["test", "rules", &tests]).await?;
    Ok(())
}

#[tokio::test]
async fn alerts_follow_a_recorded_outage_from_its_beginning_to_its_end() -> Result<()> {
    let recorded = project().join("tests/alerts/outage.test.yaml").display().to_string();
    Testbed::current()?.promtool(&["test", "rules", &recorded]).await?;
    Ok(())
}

/// The severity of each alert of the chart, by its name.
fn severities() -> Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(project().join("charts").join(INSTALLATION).join("files/alerts.yaml"))?;
    let file: Value = serde_saphyr::from_str(&text)?;
    let rules = file["groups"].as_array().into_iter().flatten().flat_map(|group| group["rules"].as_array());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(rules.flatten().map(|rule| (text(&rule["alert"]), text(&rule["labels"]["severity"]))).collect())
}

#[tokio::test]
async fn alertmanager_example_pages_once_for_each_cause() -> Result<()> {
    let testbed = Testbed::current()?;
    let file = project().join("charts").join(INSTALLATION).join("files/alertmanager.yaml");
    let path = file.display().to_string();
    testbed.amtool(&["check-config", &path]).await?;
    let severities = severities()?;
    for (alert, severity) in &severities {
        let receiver = if severity == "critical" { "pager" } else { "tickets" };
        let verify = format!("--verify.receivers={receiver}");
        let labels = [format!("alertname={alert}"), format!("severity={severity}"), "authority=ims".to_owned()];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let test = ["config", "routes", "test", "--config.file", &path, &verify];
        testbed.amtool(&[&test[..], &labels].concat()).await?;
    }
    // a credential causes at most one page; those of an authority and of the operator stand for all others
    let critical = severities.iter().filter(|(alert, severity)| alert.contains("Credential") && severity == "critical");
    assert_eq!(critical.count(), 1);

    let config: Value = serde_saphyr::from_str(&std::fs::read_to_string(file)?)?;
    let rules = config["inhibit_rules"].as_array().context("no inhibition")?;
    // whether an alert is one of `first|second|Prefix.+`
    let selects = |matchers: &Value, alert: &str| {
        let matcher = matchers[0].as_str().unwrap_or_default();
        let names = matcher.split('"').nth(1).unwrap_or_default();
        names.split('|').any(|name| name.strip_suffix(".+").map_or(name == alert, |start| alert.starts_with(start)))
    };
    let inhibits = |source: &str, target: &str, equal: Option<&str>| {
        rules.iter().any(|rule| {
            let labels = rule["equal"].as_array();
            selects(&rule["source_matchers"], source)
                && selects(&rule["target_matchers"], target)
                && labels.and_then(|labels| labels.first()).and_then(Value::as_str) == equal
        })
    };
    for credential in severities.iter().map(|(alert, _)| alert).filter(|alert| alert.starts_with("ITwinCredential")) {
        for authority in ["ITwinAuthorityFailing", "ITwinAuthorityNotReady", "ITwinAuthorityTokensAtRisk"] {
            assert!(inhibits(authority, credential, Some("authority")), "{authority} {credential}");
        }
        assert!(inhibits("ITwinOperatorAbsent", credential, None), "{credential}");
        // another operator of the cluster may have a leader
        assert!(inhibits("ITwinOperatorWithoutLeader", credential, Some("job")), "{credential}");
        assert!(!inhibits("ITwinOperatorWithoutLeader", credential, None), "{credential}");
    }
    // an outage of the API server takes the Lease from the leader, and silences the watches
    for same in ["ITwinWatchSilent", "ITwinOperatorKubernetesErrors", "ITwinOperatorRestarting"] {
        assert!(inhibits("ITwinOperatorWithoutLeader", same, Some("job")), "{same}");
    }
    for ticket in ["ITwinAuthorityFailing", "ITwinAuthorityNotReady"] {
        assert!(inhibits("ITwinAuthorityTokensAtRisk", ticket, Some("authority")), "{ticket}");
    }
    // each name of the example is that of an alert
    for rule in rules {
        for matchers in [&rule["source_matchers"], &rule["target_matchers"]] {
            let names = matchers[0].as_str().and_then(|matcher| matcher.split('"').nth(1)).context("no names")?;
            for name in names.split('|') {
                let exists = |(alert, _): &(String, String)| alert.starts_with(name.trim_end_matches(".+"));
                assert!(severities.iter().any(exists), "there is no alert {name}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn monitoring_objects_hold_what_the_files_hold() -> Result<()> {
    let namespace = Namespace::new("chart-monitoring").await?;
    let testbed = &namespace.testbed;
    let rendered = template(testbed, &namespace.name, &[&file("monitoring.yaml")?]).await?;
    let (_, monitoring) = split(&rendered);
    let rule = monitoring.iter().find(|text| text.contains("kind: PrometheusRule")).context("no PrometheusRule")?;
    assert!(rule.contains("team: platform") && rule.contains("release: prometheus"));
    assert!(rule.contains("runbook_url: https://example.com/runbooks/ITwinAuthorityFailing.md"));
    assert!(rule.contains("alert: ITwinCredentialTokenExpired") && rule.contains("name: own"));
    assert!(!rule.contains("alert: ITwinCredentialRenewalFailing"));
    let monitor = monitoring.iter().find(|text| text.contains("kind: ServiceMonitor")).context("no ServiceMonitor")?;
    assert!(monitor.contains("honorLabels: true") && monitor.contains("interval: 30s"));

    let objects = objects(testbed, &namespace.name, &[&file("monitoring.yaml")?]).await?;
    let dashboard = of_kind(&objects, "ConfigMap");
    let dashboard = dashboard.first().context("no ConfigMap")?;
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    let reported = dashboard["data"]["itwin-credential-operator.json"].as_str().unwrap_or_default();
    let file = project().join("charts").join(INSTALLATION).join("files/dashboard.json");
    assert_eq!(reported.trim_end(), std::fs::read_to_string(file)?.trim_end());
    Ok(())
}
