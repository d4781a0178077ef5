//! The metrics of each credential, the only ones whose number grows with the cluster.
//!
//! They are stored as numbers and encoded page by page during a scrape. Ten thousand credentials have fifty thousand
//! series. As metrics of the library, which stores name, help and labels for each, they took as much memory as all
//! other data about credentials.

use std::{
    collections::BTreeMap,
    fmt::Write,
    hash::{DefaultHasher, Hash, Hasher},
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The number of series in one page of text, with about 100 bytes each.
const PAGE: usize = 256;

/// The labels of one credential's series, and which credential of that name it is.
#[derive(Clone, Copy)]
pub struct CredentialLabels<'a> {
    /// Its UID.
    pub uid: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// The authority that it names.
    pub authority: &'a str,
}

/// The values of one credential. Times are in Unix seconds; `None` if there is no token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CredentialGauges {
    /// When the token expires.
    pub expires_at: Option<f64>,
    /// When the next attempt is due.
    pub renew_at: Option<f64>,
    /// When the client's credentials expire, where the client Secret says so.
    pub client_expires_at: Option<f64>,
    /// Whether it is Ready.
    pub ready: bool,
    /// Whether it is suspended.
    pub suspended: bool,
    /// Consecutive failed attempts.
    pub failures: u32,
}

struct Family {
    name: &'static str,
    help: &'static str,
    value: fn(&CredentialGauges) -> Option<f64>,
}

const FAMILIES: [Family; 6] = [
    Family {
        name: "itwin_credential_expiration_timestamp_seconds",
        help: "When the token in the Secret expires.",
        value: |gauges| gauges.expires_at,
    },
    Family {
        name: "itwin_credential_renewal_timestamp_seconds",
        help: "When the next attempt to get a token is due.",
        value: |gauges| gauges.renew_at,
    },
    Family {
        name: "itwin_client_secret_expiration_timestamp_seconds",
        help: "When the client's credentials expire, where the client Secret says so.",
        value: |gauges| gauges.client_expires_at,
    },
    Family {
        name: "itwin_credential_ready",
        help: "1 while the credential is Ready, else 0.",
        value: |gauges| Some(f64::from(u8::from(gauges.ready))),
    },
    Family {
        name: "itwin_credential_consecutive_failures",
        help: "Failed renewals since the last token; 0 while the credential is suspended.",
        value: |gauges| Some(f64::from(gauges.failures)),
    },
    Family {
        name: "itwin_credential_suspended",
        help: "1 while the credential is suspended, else 0.",
        value: |gauges| Some(f64::from(u8::from(gauges.suspended))),
    },
];

/// Namespace and name.
type Key = (Box<str>, Box<str>);

/// The series of a credential that exists.
struct Series {
    /// A digest of its UID, which takes less memory.
    uid: u64,
    /// Authority and values, once it was reconciled.
    values: Option<(Box<str>, CredentialGauges)>,
}

fn digest(uid: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    hasher.finish()
}

/// The series of all credentials.
#[derive(Default)]
pub(super) struct CredentialSeries(Mutex<BTreeMap<Key, Series>>);

/// The position of a scrape.
#[derive(Default)]
pub(super) struct Cursor {
    family: usize,
    after: Option<Key>,
    /// Whether the header of the family has been written.
    has_header: bool,
}

impl CredentialSeries {
    /// A credential exists. Only then does it have series, so that a reconcile that ends after its deletion adds none.
    pub fn expect(&self, namespace: &str, name: &str, uid: &str) {
        let uid = digest(uid);
        let mut all = self.all();
        let series = all.entry((namespace.into(), name.into())).or_insert(Series { uid, values: None });
        if series.uid != uid {
            *series = Series { uid, values: None };
        }
    }

    /// Sets the values of a credential that exists.
    pub fn set(&self, labels: CredentialLabels<'_>, gauges: CredentialGauges) {
        let key: Key = (labels.namespace.into(), labels.name.into());
        if let Some(series) = self.all().get_mut(&key).filter(|series| series.uid == digest(labels.uid)) {
            let authority = match series.values.take() {
                Some((authority, _)) if *authority == *labels.authority => authority,
                _ => labels.authority.into(),
            };
            series.values = Some((authority, gauges));
        }
    }

    /// Removes the values of a credential until they are set again.
    pub fn hide(&self, labels: CredentialLabels<'_>) {
        let key: Key = (labels.namespace.into(), labels.name.into());
        if let Some(series) = self.all().get_mut(&key).filter(|series| series.uid == digest(labels.uid)) {
            series.values = None;
        }
    }

    /// A credential is gone.
    pub fn forget(&self, namespace: &str, name: &str, uid: &str) {
        let key = (namespace.into(), name.into());
        let mut all = self.all();
        if all.get(&key).is_some_and(|series| series.uid == digest(uid)) {
            all.remove(&key);
        }
    }

    /// The next page of text, in the text format of Prometheus 0.0.4; `None` after the last.
    pub fn page(&self, cursor: &mut Cursor) -> Option<String> {
        let family = FAMILIES.get(cursor.family)?;
        let mut page = String::new();
        let all = self.all();
        let start = cursor.after.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = all.range((start, Bound::Unbounded));
        for (key, series) in rest.by_ref().take(PAGE) {
            if let Some((authority, gauges)) = &series.values
                && let Some(value) = (family.value)(gauges)
            {
                let (namespace, name) = key;
                // writing to a string cannot fail, and names of objects need no escaping
                if !std::mem::replace(&mut cursor.has_header, true) {
                    let _ = writeln!(page, "# HELP {0} {1}\n# TYPE {0} gauge", family.name, family.help);
                }
                let _ = writeln!(
                    page,
                    r#"{}{{authority="{authority}",name="{name}",namespace="{namespace}"}} {value}"#,
                    family.name
                );
            }
            cursor.after = Some(key.clone());
        }
        if rest.next().is_none() {
            *cursor = Cursor { family: cursor.family + 1, ..Cursor::default() };
        }
        Some(page)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Key, Series>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_exposed_once_for_any_number_of_pages() {
        for count in [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE] {
            let series = CredentialSeries::default();
            for number in 0..count {
                let name = format!("agent-{number}");
                let labels = CredentialLabels { namespace: "team", name: &name, uid: "uid", authority: "ims" };
                let gauges = CredentialGauges {
                    expires_at: Some(2.5),
                    renew_at: None,
                    client_expires_at: Some(7.5),
                    ready: true,
                    suspended: false,
                    failures: 3,
                };
                series.expect("team", &name, "uid");
                series.set(labels, gauges);
            }
            let mut cursor = Cursor::default();
            let text: String = std::iter::from_fn(|| series.page(&mut cursor)).collect();
            let lines = |what: &str| text.lines().filter(|line| line.starts_with(what)).count();
            assert_eq!(lines("itwin_credential_expiration_timestamp_seconds{"), count);
            assert_eq!(lines("itwin_credential_renewal_timestamp_seconds{"), 0, "no time is set");
            assert_eq!(lines("itwin_credential_ready{"), count);
            assert_eq!(lines("itwin_credential_consecutive_failures{"), count);
            assert_eq!(lines("itwin_credential_suspended{"), count);
            assert_eq!(lines("itwin_client_secret_expiration_timestamp_seconds{"), count);
            // the five families that have a series
            assert_eq!(lines("# TYPE "), if count > 0 { 5 } else { 0 }, "{count} credentials");
            if count > 0 {
                let line = r#"itwin_credential_expiration_timestamp_seconds{authority="ims",name="agent-0",namespace="team"} 2.5"#;
                assert_eq!(lines(line), 1);
            }
        }
    }
}
