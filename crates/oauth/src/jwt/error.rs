//! Why a token is not trusted.

/// Why a token is not trusted. Nothing of the token is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerificationError {
    /// No key of the set has its `kid` and algorithm: the keys may have been rotated.
    #[error("signed by a key that is not in the key set")]
    UnknownKey,
    /// The key of its `kid` is in the set, and is of a kind or size that verifies nothing here.
    #[error("signed by a key that cannot be used")]
    UnusableKey,
    /// Longer than [`ACCESS_TOKEN_MAX`](crate::limits::ACCESS_TOKEN_MAX).
    #[error("too long")]
    TooLong,
    /// Header or claims are nested deeper than anything known.
    #[error("nested too deeply")]
    TooDeep,
    /// No JWT: an opaque token, for instance.
    #[error("no JWT")]
    NotAJwt,
    /// The algorithm is none that can be checked; its name, if it is one of those known to be in use.
    #[error("an algorithm that cannot be checked")]
    UnsupportedAlgorithm(Option<&'static str>),
    /// The header has `crit`: the token must not be accepted without extensions that are not known (RFC 7515 section
    /// 4.1.11).
    #[error("critical extensions")]
    CriticalExtension,
    /// The algorithm is an HMAC or none, by which anyone could sign.
    #[error("an algorithm that proves nothing")]
    SymmetricAlgorithm,
    /// The algorithm does not fit the key.
    #[error("an algorithm that does not fit the key")]
    AlgorithmMismatch,
    /// The signature does not match the key.
    #[error("wrong signature")]
    Signature,
    /// `iss` is another issuer.
    #[error("wrong iss")]
    Issuer,
    /// `aud` holds none of the wanted audiences.
    #[error("wrong aud")]
    Audience,
    /// A claim that is required is missing, or of a wrong type.
    #[error("no {0}")]
    MissingClaim(RequiredClaim),
    /// `exp` is no number.
    #[error("exp is no number")]
    ExpiryNotANumber,
    /// `nbf` is no number.
    #[error("nbf is no number")]
    NotBeforeNotANumber,
    /// A JWT whose parts are not what they must be.
    #[error("not well-formed")]
    Malformed,
}

/// A claim that is required of every token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequiredClaim {
    /// `exp`.
    Expiry,
    /// `iss`.
    Issuer,
    /// `aud`, where audiences are wanted.
    Audience,
}

impl std::fmt::Display for RequiredClaim {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Expiry => "exp",
            Self::Issuer => "iss",
            Self::Audience => "aud",
        })
    }
}
