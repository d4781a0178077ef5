//! The digests in the annotations of a Secret, which prove its token once others have removed the annotations. A process
//! that starts trusts a Secret and does not read it, so that it knows no other proof.

use std::sync::Arc;

use itwin_api::digest::hex;
use itwin_core::{last_held::Sealed, token::Description};

/// The number of bytes of a digest.
const DIGEST: usize = 32;

/// The digest of the client's credentials, and that of the data and of the annotations that describe it. Each Secret has
/// them, so that they are kept as bytes.
#[derive(Clone, Debug)]
pub(super) struct Seal(Box<[[u8; DIGEST]; 2]>);

impl Seal {
    /// `None` where these are no digests: the operator did not write them.
    pub(super) fn new(client: &str, content: &str) -> Option<Self> {
        Some(Self(Box::new([bytes(client)?, bytes(content)?])))
    }

    /// With what else the annotations say.
    pub(super) fn with(&self, description: Description, renewed_for: Option<Arc<str>>) -> Sealed {
        let [client_fingerprint, digest] = self.0.each_ref().map(|digest| hex(digest).into());
        Sealed { description, client_fingerprint, renewed_for, digest }
    }
}

/// The bytes of a digest in hexadecimal.
fn bytes(digest: &str) -> Option<[u8; DIGEST]> {
    let mut bytes = [0; DIGEST];
    if digest.len() != 2 * DIGEST {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(digest.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_digest_seals_nothing() {
        let digest = "0f".repeat(DIGEST);
        let longer = format!("{digest}0");
        let other = format!("{}ä", &digest[2..]);
        assert!(Seal::new(&digest, &digest).is_some());
        for wrong in ["", "fingerprint", &digest[1..], &longer, &other] {
            assert!(Seal::new(wrong, &digest).is_none() && Seal::new(&digest, wrong).is_none(), "{wrong}");
        }
    }
}
