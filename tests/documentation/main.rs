//! The commands of the documentation work: they run unchanged and in order, against their own cluster with a
//! running operator. They never call real authorities; the authority of the testbed replaces them.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

#[path = "../docs/markdown.rs"]
#[allow(dead_code, reason = "the other test binary uses the rest")]
mod markdown;

mod documents;
mod output;
mod place;

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, Result, ensure};
use testbed::{INSTALLATION, Testbed, operator::Operator, setup};

use crate::{
    documents::{NOT_RUN, OF_A_TEAM, USER, documents, of_a_team, reason_not_to_run},
    markdown::{blocks, commands},
    place::Place,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_itwin-credential-operator");

#[tokio::test]
async fn documented_commands_work() -> Result<()> {
    let (_control_plane, testbed) = setup::own_control_plane(&Testbed::current()?, "documentation").await?;
    let place = Place::new(testbed).await?;
    let documents = documents();
    for document in &documents {
        place.testbed.kubectl(&["create", "namespace", &document.namespace]).await?;
    }
    let namespaces: Vec<&str> = documents.iter().map(|document| document.namespace.as_str()).collect();
    let election = ["--leader-election=true", "--lease-namespace", INSTALLATION];
    let _operator = Operator::start(&place.testbed, Path::new(PROGRAM), &namespaces.join(","), &election).await?;

    // as the first document does it, for documents that run before it
    let install = "helm upgrade --install --reset-values itwin-credential-operator charts/itwin-credential-operator \
                   --namespace itwin-credential-operator --wait";
    let (ended_well, printed) = place.run(&documents[0], install).await?;
    ensure!(ended_well, "{printed}");

    let mut left_out = BTreeSet::new();
    let (mut run, mut wrong) = (0, Vec::new());
    let mut as_user = Vec::new();
    for document in &documents {
        if OF_A_TEAM.iter().any(|(name, _)| *name == document.name) {
            place.bind(document).await.with_context(|| document.name.clone())?;
        }
        place.prepare(document).await.with_context(|| document.name.clone())?;
        place.try_yaml(document).await?;
        for block in blocks(&document.text).iter().filter(|block| block.language == "console") {
            let of_a_team = of_a_team(document, block);
            as_user.extend(of_a_team);
            let user = of_a_team.map(|_| USER);
            for command in commands(block) {
                if let Some(begins) = reason_not_to_run(&command.text) {
                    left_out.insert(begins);
                    continue;
                }
                run += 1;
                if let Err(error) = place.try_command(document, &command, user).await {
                    wrong.push(format!("{}:{}: {}\n{error:#}", document.name, command.line, command.text));
                }
            }
        }
    }
    eprintln!("{run} commands of {} documents ran, {} of them not as documented", documents.len(), wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(as_user.len() > 20, "the user of a namespace runs {as_user:?}");
    for part in &OF_A_TEAM {
        assert!(as_user.contains(part), "the user of a namespace runs nothing of {part:?}");
    }
    place.no_client_secret_in_metadata(&documents).await?;
    let stale: Vec<&str> = NOT_RUN.iter().map(|(begins, _)| *begins).filter(|name| !left_out.contains(name)).collect();
    assert!(stale.is_empty(), "no command starts with {stale:?}");
    Ok(())
}
