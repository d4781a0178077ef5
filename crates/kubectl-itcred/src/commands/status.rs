//! `status`: whose token is in danger, the first to be lost first.

use itwin_core::object::ObjectKey;

use super::common;
use crate::{
    hint,
    output::{self, Form, Structured},
    problem::{Outcome, Problem},
    session::Session,
    view::{self, StatusList, View},
};

/// Shows the credentials with these names, or with these labels, or all.
///
/// # Errors
/// Why they could not be read.
pub async fn run(
    session: &Session,
    names: &[String],
    selector: Option<&str>,
    all_namespaces: bool,
    form: Form,
) -> Result<Outcome, Problem> {
    let (credentials, invalid) = if names.is_empty() {
        let namespace = (!all_namespaces).then_some(session.namespace.as_str());
        common::credentials(session, namespace, selector).await?
    } else {
        (common::named(session, names).await?, Vec::new())
    };
    let now = session.now();
    let mut views: Vec<View> = credentials.iter().map(|credential| View::new(credential, now)).collect();
    view::sort(&mut views);
    let list = StatusList { items: views };
    let views = &list.items;
    match form {
        Form::Json | Form::Yaml => list.print(form)?,
        Form::Table | Form::Wide if views.is_empty() => {
            let place =
                if all_namespaces { "the cluster".to_owned() } else { format!("namespace {}", session.namespace) };
            output::progress(&format!("No ITwinServiceCredentials found in {place}."));
        }
        Form::Table | Form::Wide => {
            let table = view::table(views, now, all_namespaces, form == Form::Wide);
            output::print(&table.render(form.width(), output::is_colored()));
        }
    }
    for problem in &invalid {
        output::progress(&problem.to_string());
    }
    let danger = danger(views);
    if let Some(danger) = &danger {
        output::progress(danger);
    }
    Ok(Outcome::found(danger.is_some() || !invalid.is_empty()))
}

/// How many credentials are in danger, and what to do about the first; `None` if none is.
fn danger(views: &[View]) -> Option<String> {
    let in_danger: Vec<&View> = views.iter().filter(|view| view.state.is_danger()).collect();
    let first = in_danger.first()?;
    let check = hint::command("check", &ObjectKey::new(&first.namespace, &first.name));
    Some(format!("{} of {} in danger; {check} says why the first one is.", in_danger.len(), views.len()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::view::tests::{credential, failed, merge, now};

    #[test]
    fn check_is_recommended_in_the_namespace_of_the_credential() {
        let mut fails = failed("InvalidClient", "wrong");
        merge(&mut fails, &json!({"metadata": {"namespace": "team-b"}}));
        let views = |changes: &Value| [View::new(&credential("agent", changes), now())];
        assert_eq!(
            danger(&views(&fails)).as_deref(),
            Some("1 of 1 in danger; 'kubectl itcred check agent -n team-b' says why the first one is.")
        );
        assert_eq!(danger(&views(&json!({}))), None);
    }
}
