//! `token`: the claims of a token, or the token alone.

use chrono::{DateTime, Utc};
use itwin_api::{secret_keys, time};
use itwin_credential_operator::observe::target;
use itwin_oauth::jwt;

use super::common;
use crate::{
    claims::{self, Claims},
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
    let token = target::token(&secret).ok_or_else(|| {
        Problem::new(format!(
            "Secret {secret_ref} has no usable key access_token: 'kubectl itcred check {name}' says why"
        ))
    })?;
    let text = |key: &str| {
        let value = secret.data.as_ref().and_then(|data| data.get(key));
        value.and_then(|value| std::str::from_utf8(&value.0).ok()).unwrap_or_default().to_owned()
    };
    let parts = jwt::read(&token);
    let expires_at = time::from_rfc3339(&text(secret_keys::EXPIRES_AT)).or(parts.as_ref().and_then(claims::expiry));
    let now = session.now();
    let is_expired = expires_at.is_some_and(|at| at <= now);
    if is_expired {
        output::progress(&format!("the token has expired; 'kubectl itcred check {name}' says why there is no other"));
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
            output::progress("Nothing of this is verified here; 'kubectl itcred check' verifies it.");
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
