//! `status`: whose token is in danger, the first to be lost first.

use super::common;
use crate::{
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
    let in_danger: Vec<&View> = views.iter().filter(|view| view.state.is_danger()).collect();
    if let Some(first) = in_danger.first() {
        let flag = if all_namespaces { format!(" -n {}", first.namespace) } else { String::new() };
        output::progress(&format!(
            "{} of {} in danger; 'kubectl itcred check {}{flag}' says why the first one is.",
            in_danger.len(),
            views.len(),
            first.name
        ));
    }
    Ok(Outcome::found(!in_danger.is_empty() || !invalid.is_empty()))
}
