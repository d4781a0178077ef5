//! Which words of the API server are shown.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::*;

/// A JWT, as the data of the Secret that is written has it.
const TOKEN: &str =
    "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJodHRwczovL2ltcyIsImV4cCI6MTgwMDAwMDAwMH0.MEUCIQDx4-_Vb3";

fn quoted(text: &str) -> String {
    Quote::new(text).to_string()
}

#[test]
fn text_is_cut_and_holds_no_control_characters() {
    let quote = quoted(&"for\u{1b}[from\n".repeat(1000));
    assert_eq!(quote.chars().count(), SHOWN + 1);
    assert!(!quote.contains('\u{1b}') && !quote.contains('\n'));
    assert!(quoted(&"é".repeat(KEPT)).chars().count() <= SHOWN + 1);
}

#[test]
fn guess_of_a_part_of_the_token_is_answered_neither_way() {
    // labels that a policy quotes: the first is a part of the token
    for (right, wrong) in [("eyJhbGciO", "eyJhbGciX"), ("eyJhbGciOiJSUzI1", "eyJhbGciOiJSUzI2"), ("eyJhbGc", "eyJhbGd")]
    {
        let denied = |guess: &str| quoted(&format!("denied: Label <owner: {guess}> does not satisfy allowed regex"));
        assert_eq!(denied(right).replace(right, ""), denied(wrong).replace(wrong, ""));
        assert_eq!(denied(right).contains(right), denied(wrong).contains(wrong));
    }
}

/// A part of the token of 8 bytes, written in one of these ways, that a text shows when all but letters and digits is
/// left out of both.
fn shown_part(text: &str, ways: &[String]) -> Option<String> {
    let letters = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
    let shown: Vec<String> = text.split(REDACTED).map(letters).collect();
    let parts: Vec<String> = ways.iter().map(|way| letters(way)).collect();
    let mut parts = parts.iter().flat_map(|way| (0..=way.len() - PART).map(move |start| &way[start..start + PART]));
    parts.find(|part| shown.iter().any(|shown| shown.contains(*part))).map(str::to_owned)
}

#[test]
fn no_part_of_a_token_is_quoted_however_a_webhook_writes_it() {
    let encoded = STANDARD.encode(format!("Bearer {TOKEN}"));
    let ways = [TOKEN.to_owned(), encoded, TOKEN.to_ascii_lowercase(), TOKEN.to_ascii_uppercase()];
    let mut texts: Vec<String> = Vec::new();
    for way in &ways {
        for size in 1..=40 {
            let pieces: Vec<&str> =
                way.as_bytes().chunks(size).filter_map(|piece| std::str::from_utf8(piece).ok()).collect();
            texts.extend([" ", "-", ", ", "\" and \"", "\n"].map(|between| pieces.join(between)));
        }
        texts.extend((0..way.len() - 12).map(|start| way[start..start + 12].to_owned()));
        texts.push(format!("token={way}"));
        texts.push(format!("{{\"access_token\":\"{way}\"}}"));
    }
    for text in texts {
        for said in [
            format!("admission webhook \"a.example.com\" denied the request: not welcome: {text}, go away"),
            format!("secrets \"agent\" is forbidden: {text}"),
            text,
        ] {
            assert_eq!(shown_part(&quoted(&said), &ways), None, "{said}: {}", quoted(&said));
        }
    }
    assert!(shown_part("not welcome: eyJ-hbG ciOi", &ways).is_some(), "the check finds something");
}

#[test]
fn reason_of_a_denial_is_quoted_with_the_name_of_the_webhook_or_policy() {
    for said in [
        "admission webhook \"writes-9f8e7d6c.webhooks.example.com\" denied the request: labels are required here",
        "secrets \"render-agent-7\" is forbidden: ValidatingAdmissionPolicy 'tenant-labels.example.com' with binding \
         'tenant-labels-all' denied request: labels are immutable here",
        "secrets \"render-agent-7\" is forbidden: exceeded quota: few-secrets-per-tenant, requested: count/secrets=1, used: \
         count/secrets=12, limited: count/secrets=12",
        "secrets \"render-agent-7\" is forbidden: User \"system:serviceaccount:itwin:itwin-credential-operator\" cannot \
         patch resource \"secrets\" in API group \"\" in the namespace \"rendering\"",
        "secrets is forbidden: User \"system:serviceaccount:itwin:itwin-credential-operator\" cannot list resource \
         \"secrets\" in API group \"\" in the namespace \"rendering\"",
        "itwinauthorities.credentials.itwin.dev \"bentley-ims\" is forbidden: User \"jane@example.com\" cannot patch resource \
         \"itwinauthorities/status\" in API group \"credentials.itwin.dev\" at the cluster scope",
        "itwinauthorities.credentials.itwin.dev is forbidden: User \"jane@example.com\" cannot list resource \
         \"itwinauthorities\" in API group \"credentials.itwin.dev\" at the cluster scope",
        "Secret \"render-agent-7\" is invalid: metadata.labels: Invalid value",
        "namespaces \"rendering-tests\" not found",
        "Internal error occurred: failed calling webhook \"writes.webhooks.example.com\": failed to call webhook: x509: \
         certificate signed by unknown authority",
        "etcdserver: request timed out",
        "denied the request: [require-owner] you must provide labels: {\"owner\"}",
        "denied the request: Secrets of team-a must not be changed before 2027",
    ] {
        assert_eq!(quoted(said), said);
    }
}

#[test]
fn unknown_words_are_replaced_together() {
    let label = "denied: Label <owner: costing-guess> does not satisfy allowed regex";
    assert_eq!(quoted(label), "denied: Label <owner: [redacted]> does not satisfy allowed regex");
    assert_eq!(quoted("no Secrets, not abcdefgh, nor xyz, today"), "no Secrets, not [redacted], today");
    assert_eq!(quoted("no Secrets of agent-1 abc"), "no Secrets of agent-1 abc");
}

#[test]
fn numbers_behind_a_known_word_are_shown_unless_they_are_long_together() {
    assert_eq!(quoted("denied: code=123-4567, limit=2000"), "denied: code=123-4567, limit=2000");
    for value in ["code=1234-5678-9012-3456", "token-4711-0815-4242", "code=1234-5678"] {
        assert_eq!(quoted(&format!("denied: {value}")), "denied: [redacted]");
    }
}

#[test]
fn name_is_shown_only_where_the_api_server_writes_it() {
    for said in [
        "denied: admission webhook \"abcdefghijkl\" denied the request",
        "secrets \"agent\" was denied: ValidatingAdmissionPolicy 'abcdefghijkl' with binding 'all' denied request",
        "token \"abcdefghijkl\" is welcome",
    ] {
        assert!(!quoted(said).contains("abcdefgh"), "{said}: {}", quoted(said));
    }
}

#[test]
fn everything_that_advice_depends_on_is_kept() {
    for sign in [
        "denied the request",
        "denied request",
        "exceeded quota",
        "being terminated",
        "webhook",
        "ValidatingAdmissionPolicy",
        "policy",
        "deadline exceeded",
        "Client.Timeout",
        " timeout",
        " cannot ",
        " resource ",
    ] {
        assert!(Quote::new(&format!("abcdefghijkl {sign} abcdefghijkl")).contains(sign), "{sign:?}");
    }
}

#[test]
fn list_of_words_is_in_order_and_in_lower_case() {
    let words: Vec<&str> = words::WORDS.split_ascii_whitespace().collect();
    assert!(words.is_sorted() && words.len() == WORDS.len(), "each is there once");
    assert!(words.iter().all(|word| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())));
}
