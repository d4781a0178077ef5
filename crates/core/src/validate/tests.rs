//! Which token responses give a token that is worth writing.

use super::*;

const SKEW: TimeDelta = TimeDelta::seconds(60);

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
}

/// A token response, and the claims of its token.
type Answer = (TokenResponse, Option<VerifiedClaims>);

fn answer(exp: i64, expires_in: Option<u64>) -> Answer {
    let response = TokenResponse {
        access_token: Sensitive::new("token".into()),
        token_type: "Bearer".into(),
        expires_in,
        scope: Some(vec!["itwin-platform".into()]),
        sent_at: at(0),
    };
    (response, Some(VerifiedClaims { exp: at(exp).timestamp(), nbf: None, scope: None }))
}

fn claims(answer: &mut Answer) -> &mut VerifiedClaims {
    answer.1.as_mut().expect("a JWT")
}

fn validated_for(
    (response, claims): Answer,
    scopes: &[String],
    held: Option<&TokenMetadata>,
) -> Result<IssuedToken, ValidationError> {
    validate(response, claims.as_ref(), Expected { scopes, held, record: None, skew: SKEW, now: at(1) })
}

fn validated(answer: Answer) -> Result<IssuedToken, ValidationError> {
    validated_for(answer, &["itwin-platform".to_owned()], None)
}

fn missing() -> Option<ValidationError> {
    Some(ValidationError::ScopeReduced { missing: vec!["itwin-platform".to_owned()] })
}

fn held(expires: i64) -> TokenMetadata {
    TokenMetadata {
        request: "".into(),
        issuer: "".into(),
        authority: Some("ims".into()),
        client_reference: Some("client/keys".into()),
        client_version: "".into(),
        issued_at: at(-100),
        expires_at: at(expires),
    }
}

#[test]
fn earlier_of_claim_and_answer_counts() {
    assert_eq!(validated(answer(3600, Some(1800))).ok().map(|issued| issued.expires_at), Some(at(1800)));
    assert_eq!(validated(answer(1800, Some(3600))).ok().map(|issued| issued.expires_at), Some(at(1800)));
}

#[test]
fn missing_or_absurd_expires_in_leaves_the_claim() {
    for expires_in in [None, Some(1 << 63), Some(u64::MAX)] {
        assert_eq!(validated(answer(3600, expires_in)).ok().map(|issued| issued.expires_at), Some(at(3600)));
    }
}

#[test]
fn opaque_token_without_usable_expires_in_is_malformed() {
    for expires_in in [None, Some(1 << 63)] {
        let mut answer = answer(0, expires_in);
        answer.1 = None;
        assert_eq!(validated(answer).err(), Some(ValidationError::UnknownLifetime));
    }
}

#[test]
fn zero_lifetime_and_expired_tokens_are_rejected() {
    let expired = |second| Some(ValidationError::Expired { expires_at: at(second), now: at(1) });
    assert_eq!(validated(answer(3600, Some(0))).err(), expired(0));
    assert_eq!(validated(answer(1, None)).err(), expired(1));
}

#[test]
fn token_of_the_future_is_rejected_beyond_the_skew() {
    let with_nbf = |nbf: i64| {
        let mut answer = answer(3600, None);
        claims(&mut answer).nbf = Some(at(nbf).timestamp());
        validated(answer).err()
    };
    assert_eq!(with_nbf(61), None);
    assert_eq!(with_nbf(62), Some(ValidationError::NotYetValid));
}

#[test]
fn token_type_is_compared_without_case_and_written_as_bearer() {
    let mut lower = answer(3600, None);
    lower.0.token_type = "bearer".into();
    assert_eq!(validated(lower).ok().map(|issued| issued.token_type), Some("Bearer".to_owned()));
    let mut other = answer(3600, None);
    other.0.token_type = "DPoP".into();
    assert_eq!(validated(other).err(), Some(ValidationError::NotABearerToken));
}

#[test]
fn narrower_scope_is_refused_wherever_it_is_named() {
    let mut by_response = answer(3600, None);
    by_response.0.scope = Some(vec!["other".into()]);
    assert_eq!(validated(by_response).err(), missing());
    let mut by_claim = answer(3600, None);
    by_claim.0.scope = None;
    claims(&mut by_claim).scope = Some(vec!["other".into()]);
    assert_eq!(validated(by_claim).err(), missing());
}

#[test]
fn granted_scopes_are_bounded_wherever_they_are_named() {
    let long = |size: usize| Some(vec!["itwin-platform".to_owned(), "x".repeat(size - "itwin-platform".len() - 2)]);
    for (size, expected) in [(SCOPE_MAX, None), (SCOPE_MAX + 1, Some(ValidationError::ScopesTooLong))] {
        let mut by_response = answer(3600, None);
        by_response.0.scope = long(size);
        assert_eq!(validated(by_response).err(), expected);
        let mut by_claim = answer(3600, None);
        by_claim.0.scope = None;
        claims(&mut by_claim).scope = long(size);
        assert_eq!(validated(by_claim).err(), expected);
        let mut by_none = answer(3600, None);
        by_none.0.scope = None;
        let requested = long(size).expect("scopes");
        assert_eq!(validated_for(by_none, &requested, None).err(), expected);
    }
}

#[test]
fn valid_token_is_not_replaced_by_one_that_expires_earlier() {
    let requested = ["itwin-platform".to_owned()];
    let validated = |exp, held: &TokenMetadata| validated_for(answer(exp, None), &requested, Some(held));
    let shorter = ValidationError::ShorterThanCurrent { expires_at: at(100), current: at(101) };
    assert_eq!(validated(100, &held(101)).err(), Some(shorter));
    assert!(validated(100, &held(100)).is_ok());
    assert!(validated(100, &held(0)).is_ok(), "an expired token is replaced by any valid one");
}

#[test]
fn expiry_beyond_the_calendar_is_no_date() {
    let mut far = answer(0, None);
    claims(&mut far).exp = i64::MAX;
    assert_eq!(validated(far).err(), Some(ValidationError::ExpiryOutOfRange));
}

#[test]
fn token_that_the_secret_holds_is_recognized_unless_it_lives_longer() {
    let record = Record::new(&Sensitive::new("token".into()), Default::default(), "client", None);
    let (other, held) = (Record::new(&Sensitive::new("other".into()), Default::default(), "client", None), held(3600));
    let validated = |exp, record| {
        let (response, claims) = answer(exp, None);
        let scopes = ["itwin-platform".to_owned()];
        let expected = Expected { scopes: &scopes, held: Some(&held), record, skew: SKEW, now: at(1) };
        validate(response, claims.as_ref(), expected).map(|issued| issued.expires_at)
    };
    let same = Err(ValidationError::SameToken { expires_at: at(3600) });
    assert_eq!(validated(3599, Some(&record)), same);
    assert_eq!(validated(3605, Some(&record)), same);
    assert_eq!(validated(3606, Some(&record)), Ok(at(3606)));
    assert_eq!(validated(3600, Some(&other)), Ok(at(3600)));
    assert_eq!(validated(3600, None), Ok(at(3600)));
}
