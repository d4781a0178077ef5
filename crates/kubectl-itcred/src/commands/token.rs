//! `token`: the claims of a token, or the token alone.

use chrono::{DateTime, Utc};
use itwin_api::{secret_keys, time};
use itwin_credential_operator::observe::target;
use itwin_oauth::jwt;

use super::common;
use crate::{
    claims::{self, Claims},
    hint,
    output::{self, Form, Structured},
    problem::{Outcome, Problem},
    session::Session,
    span::relative,
    table::{Cell, Table},
};

/// Shows the token of a credential.
///
/// # Errors
/// Why there is none to show.
pub async fn run(session: &Session, name: &str, is_raw: bool, form: Form) -> Result<Outcome, Problem> {
    let credential = common::credential(session, name).await?;
    let secret = common::token_secret(session, &credential).await?;
    let secret_ref = format!("{}/{}", session.namespace, credential.target_name());
    let check = hint::command("check", &common::key(&credential));
    let token = target::token(&secret)
        .ok_or_else(|| Problem::new(format!("Secret {secret_ref} has no usable key access_token: {check} says why")))?;
    let text = |key: &str| {
        let value = secret.data.as_ref().and_then(|data| data.get(key));
        value.and_then(|value| std::str::from_utf8(&value.0).ok()).unwrap_or_default().to_owned()
    };
    let parts = jwt::read(&token);
    let expires_at = time::from_rfc3339(&text(secret_keys::EXPIRES_AT)).or(parts.as_ref().and_then(claims::expiry));
    let now = session.now();
    let is_expired = expires_at.is_some_and(|at| at <= now);
    if is_expired {
        output::progress(&format!("the token has expired; {check} says why there is no other"));
    }
    if is_raw {
        // the one command that prints a secret, because the user asked for nothing else
        output::print(token.expose());
        output::print("\n");
        return Ok(Outcome::found(is_expired));
    }
    let server =
        Opaque { secret: secret_ref, issuer: text(secret_keys::ISSUER), scope: text(secret_keys::SCOPE), expires_at };
    match (form, &parts) {
        (Form::Json | Form::Yaml, _) => {
            Claims::new(&server.secret, expires_at, is_expired, parts.as_ref()).print(form)?;
        }
        (_, Some(parts)) => {
            output::print(&claims::table(parts, now).render(form.width(), output::is_colored()));
            output::progress(&format!("Nothing of this is verified here; {check} verifies it."));
        }
        (_, None) => output::print(&server.table(now).render(form.width(), output::is_colored())),
    }
    Ok(Outcome::found(is_expired))
}

/// A token that is no JWT.
struct Opaque {
    secret: String,
    issuer: String,
    scope: String,
    expires_at: Option<DateTime<Utc>>,
}

impl Opaque {
    fn table(&self, now: DateTime<Utc>) -> Table {
        let expires =
            self.expires_at.map_or_else(String::new, |at| format!("{} ({})", time::to_rfc3339(at), relative(at, now)));
        let rows = [
            ("format", "opaque: it has no claims".to_owned()),
            ("secret", self.secret.clone()),
            ("issuer", self.issuer.clone()),
            ("scope", self.scope.clone()),
            ("expires", expires),
        ];
        let rows = rows.into_iter().map(|(name, value)| vec![Cell::new(name), Cell::new(value)]).collect();
        Table { heads: vec!["TOKEN", "VALUE"], rows }
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde_json::json;

    use super::*;
    use crate::{fake, view::tests::credential};

    /// What `token --raw` ends with if the Secret of the credential, in this namespace, holds this.
    async fn raw(namespace: &str, token: &str) -> Result<Outcome, Problem> {
        let secret = json!({
            "metadata": {
                "name": "agent", "namespace": namespace, "uid": "uid-secret", "resourceVersion": "1",
                "annotations": {secret_keys::OWNER_UID: "uid-agent", secret_keys::OWNER: format!("{namespace}/agent")},
                "ownerReferences": [{"apiVersion": "credentials.itwin.dev/v1alpha1", "kind": "ITwinServiceCredential",
                                     "name": "agent", "uid": "uid-agent", "controller": true}],
            },
            "data": {secret_keys::ACCESS_TOKEN: STANDARD.encode(token)},
        });
        let agent = serde_json::to_value(credential("agent", &json!({"metadata": {"namespace": namespace}})));
        let agent = agent.expect("JSON");
        let mut session =
            fake::session(move |asked| fake::object(if asked.path.contains("/secrets/") { &secret } else { &agent }));
        session.namespace = namespace.to_owned();
        run(&session, "agent", true, Form::Table).await
    }

    #[tokio::test]
    async fn token_that_a_terminal_or_a_header_obeys_is_not_printed() {
        assert_eq!(raw("team-a", "eyJ.a-b_c").await, Ok(Outcome::Fine));
        for hostile in ["a\u{1b}]52;c;aGk=\u{7}", "a\r\nX-Admin: yes", "a\n", "a b", "a\u{202e}b"] {
            let problem = raw("team-a", hostile).await.expect_err("no token").to_string();
            assert!(problem.starts_with("Secret team-a/agent has no usable key access_token"), "{problem}");
        }
    }

    #[tokio::test]
    async fn check_is_recommended_in_the_namespace_of_the_credential() {
        let problem = raw("team-b", "a b").await.expect_err("no token").to_string();
        assert!(problem.contains("'kubectl itcred check agent -n team-b'"), "{problem}");
    }
}
