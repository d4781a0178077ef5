//! Discovery documents, key sets and tokens of any bytes: nothing panics, and no unsigned token is trusted.

use itwin_oauth::{discovery, key_set::KeySet, sensitive::Sensitive};

use super::on_small_stack;

const ISSUER: &str = "https://ims.example.com";
/// A public key whose private half was never kept.
const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"1","use":"sig",
    "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

/// Reads the bytes as each of them.
pub fn run(data: &[u8]) {
    on_small_stack(|| parsed(data));
}

fn parsed(data: &[u8]) {
    if let Ok(endpoints) = discovery::endpoints(data, ISSUER, None, None, true) {
        assert_eq!(endpoints.token.origin(), url::Url::parse(ISSUER).expect("a URL").origin());
    }
    let _ = KeySet::parse(data);
    if let Ok(token) = std::str::from_utf8(data) {
        let keys = KeySet::parse(KEYS.as_bytes()).expect("a key set");
        assert!(keys.verify(&Sensitive::new(token.to_owned()), ISSUER, &[]).is_err());
    }
}
