//! Templates of any text, several of them separated by a NUL: each is rejected with a bounded message, or
//! rendered within the size limit.

use std::collections::BTreeMap;

use itwin_api::{credential::SecretTemplate, limits};
use itwin_core::template::Templates;
use k8s_openapi::ByteString;

use super::{is_bounded, on_small_stack};

/// Characters that every filter expands.
const TOKEN: &[u8] = b"\"\\\"\\\"\\\"\\";

/// One run of the target.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    on_small_stack(|| {
        let sources = text.split('\0').enumerate().map(|(number, source)| (number.to_string(), source.to_owned()));
        let template = SecretTemplate { data: sources.collect(), ..SecretTemplate::default() };
        match Templates::new(Some(&template)) {
            Err(failure) => is_bounded(&failure.message),
            Ok(templates) => {
                let keys = ["access_token", "token_type", "expires_at", "scope", "issuer"];
                let data: BTreeMap<_, _> = keys.map(|key| (key.to_owned(), ByteString(TOKEN.to_vec()))).into();
                let rendered = templates.render(&data);
                assert!(rendered.values().map(|value| value.0.len()).sum::<usize>() <= limits::RENDERED_MAX);
            }
        }
    });
}
