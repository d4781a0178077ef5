//! Gateways that add the token: the Secret that they take it from, and Envoy, which watches it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testbed::process::{Process, bound_to_us};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::{api::Api, publish};
use crate::fixture::{Fixture, NAME, PATIENCE};

/// The key of the Secret for a gateway.
const KEY: &str = "credential";

/// A credential that is Ready, whose Secret a gateway can use.
async fn ready(prefix: &str) -> Result<Fixture> {
    let fixture = Fixture::new(prefix).await?;
    let data = json!({KEY: "{{ token_type }} {{ access_token }}"});
    fixture.apply_credential(&json!({"secretTemplate": {"data": data}})).await?;
    fixture.wait_ready().await?;
    Ok(fixture)
}

/// Renews the token, and returns the new one.
async fn renewed(fixture: &Fixture, old: &str) -> Result<String> {
    fixture.renew_now(NAME, "1").await?;
    fixture.wait_token_other_than(old, PATIENCE).await
}

#[tokio::test]
async fn secret_of_a_gateway_holds_the_whole_header_after_each_renewal() -> Result<()> {
    let fixture = ready("gateway").await?;
    let first = fixture.token().await?;
    assert_eq!(fixture.data().await?[KEY], format!("Bearer {first}"));
    let second = renewed(&fixture, &first).await?;
    assert_eq!(fixture.data().await?[KEY], format!("Bearer {second}"));
    assert_eq!(fixture.secret().await?.context("no Secret")?["type"], "Opaque");
    Ok(())
}

/// An Envoy that adds the header of a file to all requests, which it sends to the API.
struct Envoy {
    _process: Process,
    socket: PathBuf,
}

impl Envoy {
    fn start(program: &Path, folder: &Path, credential: &Path, api: &Api) -> Result<Self> {
        let (socket, config, secrets) =
            (folder.join("envoy.sock"), folder.join("envoy.json"), folder.join("secrets.json"));
        std::fs::write(&secrets, secret(credential).to_string())?;
        std::fs::write(&config, bootstrap(&socket, &secrets, api)?.to_string())?;
        let mut command = bound_to_us(program);
        command.arg("--config-path").arg(config).args(["--disable-hot-restart", "--concurrency", "1"]);
        Ok(Self { _process: Process::start("envoy", command, folder)?, socket })
    }

    /// The first line of the answer to a request with a token of its own.
    async fn call(&self) -> Result<String> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        let request = "GET /envoy HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer of-the-workload\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.context("no answer")??;
        answer.lines().next().map(str::to_owned).context("an empty answer")
    }
}

/// The secret for Envoy: the file, which it reads again when the folder changes.
fn secret(credential: &Path) -> Value {
    json!({"resources": [{
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": KEY,
        "generic_secret": {"secret": {"filename": credential, "watched_directory": {"path": credential.parent()}}},
    }]})
}

/// The filter that Envoy Gateway configures for `credentialInjection`, with a secret of a file in place of one of the
/// gateway's server.
fn bootstrap(socket: &Path, secrets: &Path, api: &Api) -> Result<Value> {
    let port: u16 = api.url.rsplit(':').next().unwrap_or_default().parse()?;
    let filter = |name: &str, config: Value| json!({"name": name, "typed_config": config});
    let of = |kind: &str| format!("type.googleapis.com/envoy.extensions.{kind}");
    let generic = json!({
        "@type": of("http.injected_credentials.generic.v3.Generic"),
        "credential": {"name": KEY, "sds_config": {"path_config_source": {"path": secrets}}},
    });
    let injector = json!({
        "@type": of("filters.http.credential_injector.v3.CredentialInjector"),
        "overwrite": true,
        "credential": filter("envoy.http.injected_credentials.generic", generic),
    });
    let router = json!({"@type": of("filters.http.router.v3.Router")});
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "api", "host_rewrite_literal": "localhost"}});
    let manager = json!({
        "@type": of("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "workload",
        "route_config": {"virtual_hosts": [{"name": "api", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            filter("envoy.filters.http.credential_injector", injector),
            filter("envoy.filters.http.router", router),
        ],
    });
    let tls = json!({
        "@type": of("transport_sockets.tls.v3.UpstreamTlsContext"),
        "sni": "localhost",
        "common_tls_context": {"validation_context": {"trusted_ca": {"filename": api.ca}}},
    });
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    Ok(json!({
        "node": {"id": "gateway", "cluster": "gateway"},
        "static_resources": {
            "listeners": [{
                "name": "workload",
                "address": {"pipe": {"path": socket}},
                "filter_chains": [{"filters": [filter("envoy.filters.network.http_connection_manager", manager)]}],
            }],
            "clusters": [{
                "name": "api",
                "type": "STATIC",
                "load_assignment": {
                    "cluster_name": "api",
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
                },
                "transport_socket": filter("envoy.transport_sockets.tls", tls),
            }],
        },
    }))
}

#[tokio::test]
async fn envoy_adds_the_token_and_takes_over_a_renewed_one_without_a_restart() -> Result<()> {
    let fixture = ready("envoy").await?;
    let testbed = &fixture.namespace.testbed;
    let program = match &testbed.envoy {
        Ok(program) => program,
        Err(why) => return testbed.skip("Envoy with a renewed token", why),
    };
    let folder = tempfile::tempdir()?;
    let volume = folder.path().join("volume");
    std::fs::create_dir(&volume)?;
    let api = Api::start(folder.path())?;
    let first = fixture.token().await?;
    api.accept(&[&first]);
    publish(&volume, 0, KEY, &fixture.data().await?[KEY])?;
    let envoy = Envoy::start(program, folder.path(), &volume.join(KEY), &api)?;
    let works = async || envoy.call().await.ok().filter(|answer| answer.contains(" 200 "));
    let last = || api.state().calls.get("envoy").and_then(|tokens| tokens.last()).cloned();
    fixture.eventually("a call through Envoy", PATIENCE, async || works().await).await?;
    assert_eq!(last().as_ref(), Some(&first), "in place of that of the workload");

    let second = renewed(&fixture, &first).await?;
    api.accept(&[&first, &second]);
    publish(&volume, 1, KEY, &fixture.data().await?[KEY])?;
    fixture
        .eventually("a call with the new token", PATIENCE, async || {
            works().await?;
            last().filter(|token| *token == second)
        })
        .await?;
    api.accept(&[&second]);
    assert!(works().await.is_some(), "the server accepts the new token alone");
    let state = api.state();
    assert_eq!((&state.rejected, state.calls["envoy"].len()), (&Vec::new(), 2));
    Ok(())
}
