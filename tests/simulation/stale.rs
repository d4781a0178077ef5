//! An authority that issues tokens, while its metadata and keys cannot be fetched for hours.

use std::time::Duration;

use serde_json::Value;

use crate::{authority::Behavior, cluster::Cluster, replica::Mode};

const AUTHORITY: &str = "signed";
const MINUTE: Duration = Duration::from_secs(60);

struct Player(Cluster);

impl Player {
    /// Lets so many minutes pass.
    async fn pass(&mut self, minutes: u32) {
        self.0.pass(MINUTE * minutes).await;
    }

    fn get(&self, resource: &str, namespace: &str, name: &str) -> Value {
        self.0.api.as_user("test").get(resource, namespace, name).expect("it is there")
    }

    /// Status, reason and message of `Ready` of the authority.
    fn ready(&self) -> (String, String, String) {
        let authority = self.get("itwinauthorities", "", AUTHORITY);
        let text = |field: &str| authority["status"]["conditions"][0][field].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"), text("message"))
    }

    fn last_refresh(&self) -> String {
        let authority = self.get("itwinauthorities", "", AUTHORITY);
        authority["status"]["lastRefreshTime"].as_str().unwrap_or_default().to_owned()
    }

    fn assert_credential_is_ready(&self) {
        let credential = self.get("itwinservicecredentials", "alpha", "agent-0");
        for condition in credential["status"]["conditions"].as_array().expect("conditions") {
            assert_eq!(condition["status"], "True", "{condition}");
        }
    }

    fn status_writes(&self) -> usize {
        let requests = self.0.api.requests();
        let path = format!("itwinauthorities/{AUTHORITY}/status");
        requests.iter().filter(|entry| entry.path.contains(&path)).count()
    }

    fn events(&self) -> Vec<String> {
        let mut events = self.0.api.as_user("test").list("events", "default");
        events.retain(|event| event["regarding"]["name"] == AUTHORITY);
        events.sort_by_key(|event| event["eventTime"].as_str().unwrap_or_default().to_owned());
        events.iter().map(|event| event["reason"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// Plays it; what must hold is asserted.
pub async fn play() {
    let mut cluster = Cluster::new(1, Mode { leader_election: false, watch_secrets: true }, false, None);
    cluster.start();
    cluster.create_credential(AUTHORITY);
    let mut player = Player(cluster);
    player.pass(25).await;
    assert_eq!(player.ready().0, "True");
    assert_eq!(player.status_writes(), 1, "refreshes that succeed cost no write");

    player.0.servers.behave(AUTHORITY, Behavior::WithoutMetadata);
    player.pass(50).await;
    // the written time of the last refresh is an hour old by now, and was written again
    assert_eq!((player.ready().0.as_str(), player.status_writes()), ("True", 2));
    player.pass(25).await;
    let (status, reason, message) = player.ready();
    let refreshed = player.last_refresh();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ServerError"));
    assert!(message.contains(&refreshed) && !refreshed.is_empty(), "{message}");
    player.pass(120).await;
    assert_eq!(player.ready().2, message, "time alone changes nothing");
    assert_eq!(player.status_writes(), 3);
    // tokens of 20 minutes were issued all the time
    player.assert_credential_is_ready();

    // a process that starts knows nothing, and says when its predecessor did
    player.0.replicas.pop().expect("a replica").crash().await;
    player.0.start();
    player.pass(2).await;
    let (status, _, message) = player.ready();
    assert_eq!((status.as_str(), player.last_refresh()), ("False", refreshed.clone()));
    assert!(message.contains(&refreshed), "{message}");

    player.0.servers.recover();
    player.pass(3).await;
    assert_eq!(player.ready().0, "True");
    assert!(player.last_refresh() > refreshed);
    player.assert_credential_is_ready();
    assert_eq!(player.events(), ["AuthorityReady", "AuthorityNotReady", "AuthorityReady"]);
    assert_eq!(player.0.oracle.violations.all(), Vec::<String>::new());
}
