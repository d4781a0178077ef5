//! What Helm refuses, in which words, and which values reach the operator.

use anyhow::{Context, Result};
use serde_json::json;
use testbed::Testbed;

use crate::{chart, objects, of_kind, refused, template};

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
        ("serviceMonitor.scrapeTimeout=31s", "serviceMonitor.scrapeTimeout must be at most 30s"),
        ("podMonitor.scrapeTimeout=1d", "podMonitor.scrapeTimeout must be at most 30s"),
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
async fn authority_that_is_false_is_left_out_by_both_versions_of_helm() -> Result<()> {
    let testbed = Testbed::current()?;
    let chart = chart();
    for program in [&testbed.helm, &testbed.helm3] {
        let render = async |value: &str| {
            let set = format!("authorities.bentley-ims{value}");
            let render = ["template", "out", &chart, "--kube-version=1.30.0", "--set", &set];
            testbed.helm_with(program, &render).await
        };
        let authority = "name: \"bentley-ims\"";
        assert!(render(".requestsPerMinute=60").await?.contains(authority));
        assert!(!render("=false").await?.contains(authority));
        let said = refused("true", render("=true")).await?;
        assert!(said.contains("bentley-ims': value must be false"), "{said}");
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
async fn values_that_are_zero_or_empty_are_values() -> Result<()> {
    let testbed = Testbed::current()?;
    let constraint = json!({
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {},
    });
    let everywhere = format!("topologySpreadConstraints=[{constraint}]");
    let set = "revisionHistoryLimit=0,terminationGracePeriodSeconds=0,podDisruptionBudget.maxUnavailable=0";
    let objects = objects(&testbed, "zero", &["--set", set, "--set-json", &everywhere]).await?;
    let spec = &of_kind(&objects, "Deployment")[0]["spec"];
    let pod = &spec["template"]["spec"];
    assert_eq!(spec["revisionHistoryLimit"], 0);
    assert_eq!(pod["terminationGracePeriodSeconds"], 0);
    assert_eq!(pod["containers"][0]["livenessProbe"]["initialDelaySeconds"], 0);
    assert_eq!(pod["topologySpreadConstraints"][0]["labelSelector"], json!({}), "it counts all pods");
    assert_eq!(of_kind(&objects, "PodDisruptionBudget")[0]["spec"]["maxUnavailable"], 0);
    // an empty variable is no proxy, and its port is not elsewhere
    let (chart, policy) = (chart(), "networkPolicy.enabled=true,extraEnv[0].name=HTTPS_PROXY,extraEnv[0].value=");
    let notes = testbed.helm(&["install", "zero", &chart, "--dry-run=client", "--set", policy]).await?;
    assert!(!notes.contains("does not know the port of the proxy"), "{notes}");
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
