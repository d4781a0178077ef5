//! The pods of the operator: their user, volumes, limits, resolver and network.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testbed::{Testbed, namespace::Namespace, project};

use crate::{chart, file, objects, of_kind, refused};

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
async fn hosts_without_proxy_are_those_of_the_values_wherever_the_proxy_is_set() -> Result<()> {
    let testbed = Testbed::current()?;
    let hosts = async |set: &str| -> Result<Vec<String>> {
        let objects = objects(&testbed, "proxied", &["--set", &format!("proxy.noProxy=.corp{set}")]).await?;
        let env = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["env"];
        let named = env.as_array().into_iter().flatten().filter(|variable| variable["name"] == "NO_PROXY");
        Ok(named.filter_map(|variable| variable["value"].as_str().map(str::to_owned)).collect())
    };
    let secret = "extraEnv[0].valueFrom.secretKeyRef.name=proxy,extraEnv[0].valueFrom.secretKeyRef.key=url";
    let none: [&str; 0] = [];
    assert_eq!(hosts("").await?, none, "without a proxy");
    assert_eq!(hosts(",proxy.httpsProxy=http://proxy.example.com:3128").await?, [".corp"]);
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        let set = format!(",extraEnv[0].name={name},{secret}");
        assert_eq!(hosts(&set).await?, [".corp"], "{name}");
        let upper = format!("{set},extraEnv[1].name=NO_PROXY,extraEnv[1].value=.svc");
        assert_eq!(hosts(&upper).await?, [".svc"], "{name}, and NO_PROXY of the user");
        let lower = format!("{set},extraEnv[1].name=no_proxy,extraEnv[1].value=.svc");
        assert_eq!(hosts(&lower).await?, none, "{name}, and no_proxy of the user");
    }
    Ok(())
}

#[tokio::test]
async fn long_names_give_the_pod_of_helm_test_a_label_of_its_own() -> Result<()> {
    let testbed = Testbed::current()?;
    let label = "app.kubernetes.io/name";
    for length in [57, 58, 59, 62, 63, 64] {
        let set = format!("nameOverride={}", "a".repeat(length));
        let objects = objects(&testbed, "long", &["--set", &set]).await?;
        let of_test = of_kind(&objects, "Pod")[0]["metadata"]["labels"][label].as_str().context("no label")?;
        assert!(of_test.len() <= 63 && of_test.ends_with("a-test"), "{length}: {of_test}");
        let selected = &of_kind(&objects, "Deployment")[0]["spec"]["selector"]["matchLabels"][label];
        assert_ne!(selected, of_test, "{length}");
    }
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
