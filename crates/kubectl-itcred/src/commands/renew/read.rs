//! How the credentials are read while their renewals are awaited.

use std::collections::BTreeMap;

use futures::StreamExt;
use itwin_api::credential::ITwinServiceCredential;
use itwin_core::object::ObjectKey;
use serde_json::Value;

use crate::{
    commands::common,
    problem::Problem,
    session::{Session, path},
};

/// From so many credentials on, they are read as a list.
const MANY: usize = 4;

/// A credential, `None` where it was deleted, or why it could not be read.
pub(super) type Read = Result<Option<ITwinServiceCredential>, Problem>;

/// Reads the credentials, each by its name or with the others of its namespace.
pub(super) async fn read(session: &Session, keys: &[ObjectKey]) -> Vec<(ObjectKey, Read)> {
    let mut by_namespace: BTreeMap<&str, Vec<&ObjectKey>> = BTreeMap::new();
    for key in keys {
        by_namespace.entry(&key.namespace).or_default().push(key);
    }
    let read: Vec<_> =
        common::each(by_namespace, |(namespace, keys)| read_namespace(session, namespace, keys)).collect().await;
    read.into_iter().flatten().collect()
}

async fn read_namespace(session: &Session, namespace: &str, keys: Vec<&ObjectKey>) -> Vec<(ObjectKey, Read)> {
    if keys.len() >= MANY {
        return read_all(session, namespace, &keys).await;
    }
    let mut found = Vec::new();
    for key in keys {
        found.push((key.clone(), read_one(session, key).await));
    }
    found
}

async fn read_one(session: &Session, key: &ObjectKey) -> Read {
    let read = session.get_if_any::<Value>(&path::credential(&key.namespace, &key.name)).await;
    let failed = |error| common::failed_to_read(&format!("ITwinServiceCredential {key}"), &error);
    read.map_err(failed)?.map(common::decoded).transpose()
}

async fn read_all(session: &Session, namespace: &str, keys: &[&ObjectKey]) -> Vec<(ObjectKey, Read)> {
    let (all, invalid) = match common::credentials(session, Some(namespace), None).await {
        Ok(read) => read,
        Err(problem) => return keys.iter().map(|key| ((*key).clone(), Err(problem.clone()))).collect(),
    };
    let mut all: BTreeMap<_, _> = all.into_iter().map(|credential| (common::key(&credential), credential)).collect();
    let mut of = |key: &ObjectKey| match (all.remove(key), invalid.first()) {
        // it may be the one that could not be decoded
        (None, Some(problem)) => Err(problem.clone()),
        (found, _) => Ok(found),
    };
    keys.iter().map(|key| ((*key).clone(), of(key))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{fake, view::tests::credential};

    #[tokio::test]
    async fn credential_that_is_in_no_list_was_deleted_unless_one_could_not_be_decoded() {
        let keys: Vec<ObjectKey> = (0..MANY).map(|number| ObjectKey::new("team-a", format!("a{number}"))).collect();
        let listed = |items: Value| fake::session(move |_| fake::object(&json!({"metadata": {}, "items": items})));
        let gone = read(&listed(json!([credential("a0", &json!({}))])), &keys).await;
        let is_there: Vec<bool> = gone.iter().map(|(_, read)| matches!(read, Ok(Some(_)))).collect();
        assert_eq!(is_there, [true, false, false, false]);
        assert!(gone.iter().all(|(_, read)| read.is_ok()));
        let undecoded = json!([credential("a0", &json!({})), {"metadata": {"name": "a1"}, "spec": 5}]);
        let unread = read(&listed(undecoded), &keys).await;
        assert_eq!(unread.iter().filter(|(_, read)| read.is_err()).count(), MANY - 1);
    }
}
