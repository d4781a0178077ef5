//! What completes the last word: names are read with a short deadline, and without them there is nothing to complete.

use std::time::Duration;

use clap::CommandFactory;
use itwin_credential_operator::runtime::kubeconfig;
use serde_json::Value;

use crate::{
    args::Cli,
    completion::{self, Candidates, Wanted},
    connection::{Connection, Password, Token, extra},
    output,
    session::{Session, path},
};

/// A shell waits for so long.
const DEADLINE: Duration = Duration::from_secs(2);

/// Prints the candidates for the last word.
pub async fn run(words: &[String]) {
    let current = words.last().map(String::as_str).unwrap_or_default();
    let (candidates, takes_files) = match completion::candidates(&Cli::command(), words) {
        Candidates::Known(known) => (known, false),
        Candidates::Files => (Vec::new(), true),
        Candidates::Names(wanted) => {
            let names = tokio::time::timeout(DEADLINE, names(words, wanted)).await.unwrap_or_default();
            (names.into_iter().map(|name| (name, String::new())).collect(), false)
        }
    };
    output::print(&completion::answer(&candidates, current, takes_files));
}

async fn names(words: &[String], wanted: Wanted) -> Vec<String> {
    let connection = connection(words);
    if wanted == Wanted::Contexts {
        let read = kubeconfig::read(connection.kubeconfig.as_deref());
        return read
            .map(|config| config.contexts.into_iter().map(|context| context.name).collect())
            .unwrap_or_default();
    }
    let Ok(session) = Session::new(&connection) else { return Vec::new() };
    let path = match wanted {
        Wanted::Namespaces => "/api/v1/namespaces".to_owned(),
        _ => path::credentials(Some(&session.namespace)),
    };
    let objects: Vec<Value> = session.list_metadata(&path, &[]).await.unwrap_or_default();
    objects.iter().filter_map(|object| object["metadata"]["name"].as_str().map(str::to_owned)).collect()
}

/// The flags of the unfinished command line that say which cluster and namespace.
fn connection(words: &[String]) -> Connection {
    let value = |names: &[&str]| {
        let (mut found, mut words) = (None, words.iter());
        while let Some(word) = words.next() {
            for name in names {
                if word == name {
                    found = words.clone().next().cloned();
                } else if let Some(value) = word.strip_prefix(&format!("{name}=")) {
                    found = Some(value.to_owned());
                }
            }
        }
        found.filter(|value| !value.is_empty())
    };
    let insecure = ["--insecure-skip-tls-verify", "--insecure-skip-tls-verify=true"];
    let is_insecure = words.iter().any(|word| insecure.contains(&word.as_str()));
    Connection {
        kubeconfig: value(&["--kubeconfig"]).map(Into::into),
        context: value(&["--context"]),
        cluster: value(&["--cluster"]),
        user: value(&["--user"]),
        namespace: value(&["-n", "--namespace"]),
        server: value(&["-s", "--server"]),
        certificate_authority: value(&["--certificate-authority"]).map(Into::into),
        insecure_skip_tls_verify: is_insecure.then_some(true),
        tls_server_name: value(&["--tls-server-name"]),
        proxy_url: value(&["--proxy-url"]),
        disable_compression: None,
        client_certificate: value(&["--client-certificate"]).map(Into::into),
        client_key: value(&["--client-key"]).map(Into::into),
        username: value(&["--username"]),
        password: value(&["--password"]).map(|password| Password::new(&password)),
        token: value(&["--token"]).map(|token| Token::new(&token)),
        as_user: value(&["--as"]),
        as_group: value(&["--as-group"]).into_iter().collect(),
        as_uid: value(&["--as-uid"]),
        as_user_extra: value(&["--as-user-extra"]).and_then(|pair| extra(&pair).ok()).into_iter().collect(),
        request_timeout: Some(DEADLINE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_an_unfinished_command_line_are_obeyed() {
        let words = ["check", "-n", "team", "--context=dev", "-s", "https://a", "--as", ""].map(str::to_owned);
        let connection = connection(&words);
        assert_eq!(connection.namespace.as_deref(), Some("team"));
        assert_eq!(connection.server.as_deref(), Some("https://a"));
        assert_eq!((connection.context.as_deref(), connection.as_user), (Some("dev"), None));
    }
}
