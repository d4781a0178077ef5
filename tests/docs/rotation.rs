//! The steps that rotate a client secret have the order in which no token is lost, wherever they are written.

use crate::{none, project, read};

/// A request for a token, and what waits for its result.
const RENEWAL: [&str; 2] = ["credentials.itwin.dev/renew=\"$now\"", "--for=condition=Renewed"];

/// Where the steps are, the heading of their section, and what stands there in this order.
///
/// The old secret may end when there is a new one. So tokens are renewed first, for the longest time until they expire;
/// only then the secret is replaced; and the rotation ends with a token that was requested with the new one.
const ORDERS: [(&str, Option<&str>, &[&str]); 3] = [
    (
        "docs/operating.md",
        Some("Rotate a client secret"),
        &[
            "1. Renew now",
            "Go on only if the renewal succeeds",
            RENEWAL[0],
            RENEWAL[1],
            "2. Regenerate the secret",
            "the token stays",
            "3. Write the new secret into the client Secret",
            "kubectl replace -f -",
            "4. Request a token with the new secret",
            RENEWAL[0],
            RENEWAL[1],
            "have the new one issued first, continue with step 3, and revoke the old one at the end",
        ],
    ),
    (
        "docs/kubectl-itcred.md",
        Some("rotate: replace a client secret"),
        &[
            "1. It checks that you may write the client Secret",
            "it renews the tokens of all credentials",
            "2. It says until when there is time",
            "Regenerate the secret now",
            "3. It writes the new secret into the client Secret",
            "4. It waits until each credential has a token that was requested with the new secret",
        ],
    ),
    (
        "crates/kubectl-itcred/src/commands/rotate.rs",
        None,
        &[
            "plan.may_write(",
            "Step 1 of 4: renew",
            "renew::request(",
            "renew::wait(",
            "Step 2 of 4: regenerate",
            "secret_input::read(",
            "Step 3 of 4: write",
            "plan.write(",
            "Step 4 of 4: wait",
            "plan.wait(",
        ],
    ),
];

/// The first of these phrases that does not follow those before it, if there is one.
fn out_of_order<'a>(text: &str, phrases: &[&'a str]) -> Option<&'a str> {
    let mut rest = text;
    for &phrase in phrases {
        let Some((_, after)) = rest.split_once(phrase) else { return Some(phrase) };
        rest = after;
    }
    None
}

#[test]
fn client_secret_is_rotated_in_the_order_in_which_no_token_is_lost() {
    let mut wrong = Vec::new();
    for (file, heading, phrases) in ORDERS {
        let text = read(project().join(file));
        let section = heading.map_or(Some(text.as_str()), |heading| {
            text.split("\n## ").find(|section| section.starts_with(&format!("{heading}\n")))
        });
        // sentences continue in the next line
        let section = section.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        let missing = out_of_order(&section, phrases);
        wrong.extend(missing.map(|phrase| format!("{file}: {phrase:?} is not there, or not after what precedes it")));
    }
    none(&wrong);
}

#[test]
fn step_that_comes_too_early_is_found() {
    assert_eq!(out_of_order("renew, regenerate, write", &["renew", "regenerate", "write"]), None);
    assert_eq!(out_of_order("regenerate, renew, write", &["renew", "regenerate", "write"]), Some("regenerate"));
    assert_eq!(out_of_order("renew, write", &["renew", "renew"]), Some("renew"), "once more");
}
