//! The programs of `examples/workloads`, which read the token from a file as a pod does, and gateways that add it.

mod api;
mod gateway;
mod programs;

use std::{fs::File, path::Path, process::Stdio};

use anyhow::{Result, ensure};
use tokio::process::Child;

use self::api::Api;
use crate::fixture::{Fixture, NAME, PATIENCE};

/// Replaces the file of a volume as the kubelet does: by a link to a folder with all files.
fn publish(volume: &Path, version: u32, key: &str, value: &str) -> Result<()> {
    let folder = volume.join(format!("..{version}"));
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join(key), value)?;
    let link = volume.join("..data_tmp");
    std::os::unix::fs::symlink(&folder, &link)?;
    std::fs::rename(link, volume.join("..data"))?;
    if version == 0 {
        std::os::unix::fs::symlink(format!("..data/{key}"), volume.join(key))?;
    } else {
        std::fs::remove_dir_all(volume.join(format!("..{}", version - 1)))?;
    }
    Ok(())
}

/// What stands in the file in place of a token.
const WRONG: &str = "s3cr3t-of-the-file";

/// The file with what a program says.
fn said(folder: &Path, path: &str) -> Result<File> {
    Ok(File::options().create(true).append(true).open(folder.join(format!("{path}.txt")))?)
}

#[tokio::test]
async fn workloads_of_the_examples_use_a_renewed_token_without_a_rejected_call() -> Result<()> {
    let fixture = Fixture::ready("workloads").await?;
    let folder = tempfile::tempdir()?;
    let volume = folder.path().join("volume");
    std::fs::create_dir(&volume)?;
    let api = Api::start(folder.path())?;
    let mut token = fixture.token().await?;
    api.accept(&[&token]);
    publish(&volume, 0, "access_token", &token)?;

    let mut running: Vec<(&str, Child)> = Vec::new();
    for (path, mut command) in programs::commands(&fixture.namespace.testbed, folder.path(), &api.ca).await? {
        command.env("ITWIN_ACCESS_TOKEN_FILE", volume.join("access_token")).env("INTERVAL_SECONDS", "0.2");
        command.env("ITWIN_URL", format!("{}/{path}", api.url));
        command.env("NO_PROXY", "localhost").env("no_proxy", "localhost");
        for trust in ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"] {
            command.env(trust, &api.ca);
        }
        command.stdout(said(folder.path(), path)?).stderr(said(folder.path(), path)?);
        running.push((path, command.stdin(Stdio::null()).kill_on_drop(true).spawn()?));
    }
    ensure!(!running.is_empty(), "this machine has none of the toolchains");
    // each calls with the token; then with the next one, before the server stops to accept the first
    for version in 1..=3 {
        let limit = if version == 1 { programs::SLOW } else { PATIENCE };
        fixture
            .eventually("a call of each program with the token in the file", limit, async || {
                let state = api.state();
                let is_used = |path: &str| state.calls.get(path).and_then(|calls| calls.last()) == Some(&token);
                running.iter().all(|(path, _)| is_used(path)).then_some(())
            })
            .await?;
        api.accept(&[&token]);
        if version == 3 {
            break;
        }
        let renew = format!("credentials.itwin.dev/renew={version}");
        fixture.namespace.kubectl(&["annotate", "itcred", NAME, &renew, "--overwrite"]).await?;
        let next = fixture.wait_token_other_than(&token, PATIENCE).await?;
        api.accept(&[&token, &next]);
        publish(&volume, version, "access_token", &next)?;
        token = next;
    }
    {
        let state = api.state();
        assert_eq!(state.rejected, Vec::<String>::new());
        assert!(state.calls.values().all(|calls| calls.len() == 3), "two renewals: {:?}", state.calls.keys());
    }
    // what is no token fails each call, and is not printed
    publish(&volume, 3, "access_token", &format!("{WRONG}\nin two lines"))?;
    for (path, program) in &mut running {
        let file = folder.path().join(format!("{path}.txt"));
        let text = fixture
            .eventually("a failed call of each program", PATIENCE, async || {
                std::fs::read_to_string(&file).ok().filter(|text| text.contains("The call failed"))
            })
            .await?;
        ensure!(!text.contains(WRONG), "{path} printed it: {text}");
        ensure!(program.try_wait()?.is_none(), "{path} ended: {text}");
        program.kill().await?;
    }
    Ok(())
}
