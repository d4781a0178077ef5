//! What several commands read, against an API server that answers as it is asked to.

use std::cell::Cell;

use itwin_api::secret_keys;
use serde_json::json;

use super::*;
use crate::{
    fake::{self, Answer},
    view::tests::credential,
};

/// What is said of a Secret that `older` wrote, if the server answers this about `older`.
async fn said(answer: impl Fn() -> Answer + Send + Sync + 'static) -> String {
    let secret = json!({"metadata": {
        "name": "shared", "namespace": "team-a", "uid": "uid-secret", "resourceVersion": "1",
        "annotations": {secret_keys::OWNER_UID: "uid-older", secret_keys::OWNER: "team-a/older"},
        "ownerReferences": [{"apiVersion": "credentials.itwin.dev/v1alpha1", "kind": "ITwinServiceCredential",
                             "name": "older", "uid": "uid-older", "controller": true}],
    }});
    let session = fake::session(move |asked| {
        if asked.path.ends_with("/secrets/shared") {
            fake::object(&secret)
        } else if asked.path.ends_with("/itwinservicecredentials/older") {
            answer()
        } else {
            fake::failure(500, "InternalError")
        }
    });
    let younger = credential("younger", &json!({"spec": {"secretName": "shared"}}));
    token_secret(&session, &younger).await.expect_err("it is that of another one").to_string()
}

#[tokio::test]
async fn calls_are_made_together_within_a_bound_and_answered_in_order() {
    const COUNT: usize = 3 * AT_ONCE;
    let (open, most) = (&Cell::new(0_usize), &Cell::new(0_usize));
    let call = |number: usize| async move {
        open.set(open.get() + 1);
        most.set(open.get().max(most.get()));
        // the later ones end first
        for _ in number..COUNT {
            tokio::task::yield_now().await;
        }
        open.set(open.get() - 1);
        number
    };
    let answers: Vec<usize> = each(0..COUNT, call).collect().await;
    assert_eq!(answers, (0..COUNT).collect::<Vec<_>>());
    assert_eq!((open.get(), most.get()), (0, AT_ONCE));
}

#[tokio::test]
async fn credentials_that_are_named_twice_are_read_once_in_the_order_of_their_names() {
    let session = fake::session(|asked| {
        let name = asked.path.rsplit('/').next().unwrap_or_default();
        fake::object(&serde_json::to_value(credential(name, &json!({}))).expect("JSON"))
    });
    let names = ["b", "a", "b", "c", "a"].map(str::to_owned);
    let found = named(&session, &names).await.expect("credentials");
    let found: Vec<String> = found.iter().map(|credential| key(credential).name).collect();
    assert_eq!(found, ["b", "a", "c"]);
}

#[tokio::test]
async fn secret_of_a_credential_that_exists_is_not_to_be_deleted() {
    let older = |uid: &'static str| move || fake::object(&json!({"metadata": {"name": "older", "uid": uid}}));
    let exists = said(older("uid-older")).await;
    assert!(exists.contains("belongs to ITwinServiceCredential older, which exists"), "{exists}");
    for code in [(403, "Forbidden"), (500, "InternalError")] {
        let unknown = said(move || fake::failure(code.0, code.1)).await;
        assert!(unknown.contains("ITwinServiceCredential older") && !unknown.contains("delete"), "{unknown}");
    }
    for gone in [said(|| fake::failure(404, "NotFound")).await, said(older("another")).await] {
        assert!(gone.contains("does not exist in this namespace: delete the Secret"), "{gone}");
    }
}

#[tokio::test]
async fn check_of_a_secret_that_does_not_exist_is_recommended_in_its_namespace() {
    let session = fake::session(|_| fake::failure(404, "NotFound"));
    let agent = credential("agent", &json!({"metadata": {"namespace": "team-b"}}));
    let why = token_secret(&session, &agent).await.expect_err("there is none").to_string();
    assert!(why.contains("'kubectl itcred check agent -n team-b'"), "{why}");
}
