//! A pod that reads its token from the mounted file each second, and what it read.

use std::{collections::BTreeSet, fmt};

use anyhow::{Context, Result};
use serde_json::json;
use testbed::{eventually, namespace::Namespace, node::runtime::BUSYBOX};

use crate::PATIENCE;

/// Each second it prints a line: the time of the reading, and when the token was issued and expires, by its claims;
/// or what was wrong. It does not print the token.
const SCRIPT: &str = r#"
file=/var/run/secrets/itwin/access_token
while true; do
  if [ ! -e $file ]; then
    echo "$(date +%s) missing"
  else
    body=$(cut -d. -f2 $file | tr -- '-_' '+/')
    now=$(date +%s)
    case $((${#body} % 4)) in
      2) body="$body==" ;;
      3) body="$body=" ;;
    esac
    claims=$(echo "$body" | base64 -d)
    claim() { echo "$claims" | sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p"; }
    if [ ! -s $file ]; then echo "$now empty"; else echo "$now $(claim iat) $(claim exp)"; fi
  fi
  sleep 1
done
"#;

/// The kubelet of the testbed syncs its pods every 5 s and up to half as much more; the rest is for a busy machine.
const IN_FILE_WITHIN: i64 = 20;
/// The longest time between two lines on a busy machine, in seconds.
const LONGEST_GAP: i64 = 10;

pub struct Reader<'a> {
    namespace: &'a Namespace,
    name: String,
}

impl<'a> Reader<'a> {
    pub async fn start(namespace: &'a Namespace, name: &str, secret: &str) -> Result<Self> {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 0,
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "reader",
                    "image": BUSYBOX,
                    "imagePullPolicy": "Never",
                    "command": ["/bin/sh", "-c", SCRIPT],
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "readOnlyRootFilesystem": true,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/itwin", "readOnly": true}],
                }],
                "volumes": [{"name": "token", "secret": {"secretName": secret}}],
            },
        });
        namespace.apply(&pod).await?;
        Ok(Self { namespace, name: name.to_owned() })
    }

    /// Waits until the kubelet reports that there is no such Secret to mount.
    pub async fn waits_for_its_secret(&self) -> Result<()> {
        let pod = format!("involvedObject.name={}", self.name);
        let events = ["get", "events", "--field-selector", &pod, "-o", "jsonpath={.items[*].reason}"];
        eventually("a pod that waits for its Secret", PATIENCE, async || {
            self.namespace.kubectl(&events).await.ok()?.contains("FailedMount").then_some(())
        })
        .await
    }

    /// Waits until the pod has read a token.
    pub async fn runs(&self) -> Result<()> {
        let reads = eventually("a pod that reads its token", PATIENCE, async || {
            let log = self.log().await.ok()?;
            (!log.is_empty()).then_some(())
        });
        let description = async { self.namespace.kubectl(&["describe", "pod", &self.name]).await.unwrap_or_default() };
        match reads.await {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(description.await)),
        }
    }

    pub async fn log(&self) -> Result<String> {
        self.namespace.kubectl(&["logs", &self.name]).await
    }
}

/// What a pod read.
#[derive(Debug, Default)]
pub struct Observed {
    /// From the first line to the last.
    pub seconds: i64,
    readings: usize,
    tokens: usize,
    /// Lines without a token, verbatim.
    wrong: Vec<String>,
    /// The shortest remaining validity of a token, in seconds.
    least: i64,
    /// The longest time from the issue of a token until it was in the file.
    slowest: i64,
    longest_gap: i64,
}

impl Observed {
    pub fn of(log: &str) -> Self {
        let mut observed = Self { least: i64::MAX, ..Self::default() };
        let mut tokens = BTreeSet::new();
        let (mut first, mut last) = (None, None);
        for line in log.lines() {
            observed.readings += 1;
            let Ok([now, issued, expires]) = numbers(line) else {
                observed.wrong.push(line.to_owned());
                continue;
            };
            observed.least = observed.least.min(expires - now);
            // the first token may have waited for the pod
            if tokens.insert(issued) && tokens.len() > 1 {
                observed.slowest = observed.slowest.max(now - issued);
            }
            observed.longest_gap = observed.longest_gap.max(now - last.unwrap_or(now));
            last = Some(now);
            observed.seconds = now - *first.get_or_insert(now);
        }
        observed.tokens = tokens.len();
        observed
    }

    /// Never missing, never empty, never expired, and read all the time.
    pub fn assert_always_valid(&self) {
        assert!(self.wrong.is_empty(), "the pod read {:?}", self.wrong);
        assert!(self.readings > 0 && self.least > 0, "an expired token: {self:?}");
        assert!(self.longest_gap <= LONGEST_GAP, "the pod read nothing for a while: {self:?}");
        assert!(self.slowest <= IN_FILE_WITHIN, "a new token reached the file late: {self:?}");
    }
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} readings in {} s, {} tokens, wrong {}, valid for at least {} s more, a new one in the file within {} s",
            self.readings,
            self.seconds,
            self.tokens,
            self.wrong.len(),
            self.least,
            self.slowest
        )
    }
}

fn numbers(line: &str) -> Result<[i64; 3]> {
    let numbers: Vec<i64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    numbers.try_into().ok().context("three numbers are expected")
}
