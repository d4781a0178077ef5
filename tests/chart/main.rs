//! The chart, with real Helm and a real API server: what it renders is accepted, grants no more than documented, and
//! wrong values are rejected.

#![allow(missing_docs)]

mod changes;
mod monitoring;
mod permissions;
mod pods;
mod policy;
mod values;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use testbed::{INSTALLATION, Testbed, eventually, namespace::Namespace, project};

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
    // the namespaces of the example and of the odd names; they may exist already
    for example in ["team-a", "2024"] {
        let _ = namespace.kubectl(&["create", "namespace", example]).await;
    }
    let accepted = async |rendered: &str| {
        let (known, _) = split(rendered);
        let apply = ["apply", "--dry-run=server", "-f", "-"];
        namespace.testbed.kubectl_with(&apply, Some(&known.join("\n---"))).await
    };
    for values in values()? {
        let values = values.map(|file| format!("--values={}", file.display()));
        let arguments: Vec<&str> = values.as_deref().into_iter().collect();
        let rendered = template(&namespace.testbed, &namespace.name, &arguments).await?;
        accepted(&rendered).await.with_context(|| format!("with {values:?}"))?;
    }
    // the pod of `helm test` needs the account that Kubernetes creates in a new namespace
    let account = ["get", "serviceaccount", "default", "--namespace", "2024"];
    eventually("the account", SOON, async || namespace.testbed.kubectl(&account).await.ok()).await?;
    let (chart, numbers) = (chart(), file("numbers.yaml")?);
    let rendered = namespace.testbed.helm(&["template", "7", &chart, "--namespace", "2024", &numbers]).await?;
    accepted(&rendered).await.context("a release that is called 7")?;
    let (_, monitors) = split(&rendered);
    let monitor: Value = serde_saphyr::from_str(monitors.first().context("no ServiceMonitor")?)?;
    assert_eq!(monitor["spec"]["namespaceSelector"]["matchNames"], json!(["2024"]), "{monitor}");
    assert_eq!(monitor["spec"]["selector"]["matchLabels"]["app.kubernetes.io/instance"], "7", "{monitor}");
    Ok(())
}

/// The YAML of a strict program, such as the one that Flux runs after Helm; and an apply on the server, which refuses two
/// variables of one name.
#[tokio::test]
async fn nothing_is_rendered_twice() -> Result<()> {
    assert!(serde_saphyr::from_str::<Value>("{key: 1, key: 2}").is_err(), "this parser is strict");
    let testbed = Testbed::current()?;
    for values in values()? {
        let values = values.map(|file| format!("--values={}", file.display()));
        let arguments: Vec<&str> = values.as_deref().into_iter().collect();
        let rendered = template(&testbed, "twice", &arguments).await?;
        let documents: Vec<Value> = serde_saphyr::from_multiple(&rendered).with_context(|| format!("{values:?}"))?;
        let containers = documents.iter().map(|document| &document["spec"]["template"]["spec"]["containers"][0]);
        for variables in containers.filter_map(|container| container["env"].as_array()) {
            let mut names: Vec<&str> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
            names.sort_unstable();
            assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{values:?}: {names:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_is_set_for_one_object_replaces_what_is_set_for_all() -> Result<()> {
    let testbed = Testbed::current()?;
    let objects = objects(&testbed, "twice", &[&file("twice.yaml")?]).await?;
    let label = |kind: &str, label: &str| of_kind(&objects, kind)[0]["metadata"]["labels"][label].clone();
    assert_eq!(label("Deployment", "team"), "platform");
    assert_eq!(label("Service", "team"), "metrics");
    assert_eq!(label("Service", "app.kubernetes.io/instance"), "twice", "a ServiceMonitor selects it");
    assert_eq!(label("ConfigMap", "team"), "", "an empty value is a value");
    let template = &of_kind(&objects, "Deployment")[0]["spec"]["template"];
    assert_eq!(template["metadata"]["labels"]["team"], "pods");
    let variable = |name: &str, value: &str| json!({"name": name, "value": value});
    let expected = [
        variable("HTTPS_PROXY", "http://other.example.com:3129"),
        variable("NO_PROXY", ".svc"),
        variable("RES_OPTIONS", "timeout:3"),
    ];
    assert_eq!(template["spec"]["containers"][0]["env"], json!(expected));
    // the port of the proxy that is used
    let egress = of_kind(&objects, "NetworkPolicy")[0]["spec"]["egress"].as_array().context("no egress")?;
    assert_eq!(egress.last().context("no rule")?["ports"][0]["port"], 3129, "{egress:?}");
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
        assert!(first.contains("meta.helm.sh/release-name: \"first\""), "{first}");
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

#[tokio::test]
async fn names_that_no_service_may_have_are_refused_where_there_is_one() -> Result<()> {
    let testbed = Testbed::current()?;
    for release in ["1st", "a.b"] {
        let said = refused(release, template(&testbed, release, &[])).await?;
        assert!(said.contains("must be the name of a Service") && said.contains("set fullnameOverride"), "{said}");
        for set in ["fullnameOverride=tokens", "metrics.service.enabled=false"] {
            template(&testbed, release, &["--set", set]).await.with_context(|| format!("{release} with {set}"))?;
        }
    }
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
    let number =
        notes(&["--set", "authorities.bentley-ims=null,authorities.no.issuer=https://ims.example.com"]).await?;
    assert!(number.contains("authorityRef:\n      name: \"no\"\n"), "a name, and not what YAML reads: {number}");
    Ok(())
}
