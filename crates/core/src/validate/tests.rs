//! Which token responses give a token that is worth writing.

use itwin_oauth::{sensitive::Sensitive, shown::REDACTED};

use super::*;
use crate::last_held::Record;

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
    (response, Some(VerifiedClaims { exp: at(exp).timestamp(), nbf: None, scope: None, other_scope: None }))
}

fn claims(answer: &mut Answer) -> &mut VerifiedClaims {
    answer.1.as_mut().expect("a JWT")
}

fn validated_for(
    (response, claims): Answer,
    scopes: &[String],
    held: Option<&TokenMetadata>,
) -> Result<IssuedToken, ValidationError> {
    validate(response, claims.as_ref(), Expected { held, ..expected(scopes) })
}

fn expected(scopes: &[String]) -> Expected<'_> {
    Expected {
        scopes,
        scope_check: ScopeCheck::Strict,
        allowed_scopes: None,
        default_lifetime: None,
        held: None,
        last_held: None,
        skew: SKEW,
        now: at(1),
    }
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
fn token_type_is_compared_without_case() {
    let mut lower = answer(3600, None);
    lower.0.token_type = "bearer".into();
    assert!(validated(lower).is_ok());
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

/// A token whose signed claim and whose response name these scopes.
fn granting(claim: Option<&[&str]>, answered: Option<&[&str]>) -> Answer {
    let list = |scopes: &[&str]| scopes.iter().map(|scope| (*scope).to_owned()).collect::<Vec<_>>();
    let mut granting = answer(3600, None);
    granting.0.scope = answered.map(list);
    claims(&mut granting).scope = claim.map(list);
    granting
}

#[test]
fn signed_claim_counts_before_the_response_and_both_must_name_what_was_requested() {
    let scopes = ["a".to_owned(), "b".to_owned()];
    let granted =
        |claim, answered| validated_for(granting(claim, answered), &scopes, None).map(|issued| issued.scopes.join(" "));
    let without = |missing: &[&str]| {
        Err(ValidationError::ScopeReduced { missing: missing.iter().map(|scope| (*scope).to_owned()).collect() })
    };
    assert_eq!(granted(Some(&["a", "b", "c"]), Some(&["a", "b"])), Ok("a b [redacted]".to_owned()));
    assert_eq!(granted(None, Some(&["b", "a"])), Ok("b a".to_owned()));
    assert_eq!(granted(None, None), Ok("a b".to_owned()));
    assert_eq!(granted(None, Some(&[])), Ok("a b".to_owned()), "an empty list names nothing");
    assert_eq!(granted(Some(&["a", "b", "c"]), Some(&[])), Ok("a b [redacted]".to_owned()));
    assert_eq!(granted(Some(&["a"]), Some(&[])), without(&["b"]));
    assert_eq!(granted(Some(&["a"]), Some(&["a", "b"])), without(&["b"]));
    assert_eq!(granted(Some(&["a", "b"]), Some(&["a"])), without(&["b"]));
    assert_eq!(granted(Some(&["a"]), Some(&["b"])), without(&["a", "b"]));
    assert_eq!(granted(Some(&[]), None), without(&["a", "b"]));
}

#[test]
fn scope_that_the_server_does_not_name_is_tolerated_where_that_is_configured() {
    let scopes = ["a".to_owned(), "b".to_owned()];
    let (response, claims) = granting(Some(&["a"]), Some(&["a"]));
    let lenient = Expected { scope_check: ScopeCheck::Lenient, ..expected(&scopes) };
    let issued = validate(response, claims.as_ref(), lenient).expect("tolerated");
    assert_eq!((issued.scopes, issued.unnamed_scopes), (vec!["a".to_owned()], vec!["b".to_owned()]));
}

#[test]
fn token_that_carries_more_than_is_allowed_is_rejected_wherever_it_is_named() {
    let (scopes, allowed) = (["a".to_owned()], ["a".to_owned(), "b".to_owned()]);
    for (claim, answered, rejected) in [
        (Some(&["a", "b"][..]), Some(&["a"][..]), false),
        (Some(&["a", "c"]), Some(&["a"]), true),
        (Some(&["a"]), Some(&["a", "c"]), true),
        (None, None, false),
    ] {
        for scope_check in [ScopeCheck::Strict, ScopeCheck::Lenient] {
            let (response, claims) = granting(claim, answered);
            let expected = Expected { scope_check, allowed_scopes: Some(&allowed), ..expected(&scopes) };
            let error = validate(response, claims.as_ref(), expected).err();
            assert_eq!(error, rejected.then_some(ValidationError::ScopeNotAllowed), "{claim:?} {answered:?}");
        }
    }
}

#[test]
fn scopes_of_both_claims_must_be_allowed_and_the_first_counts_as_granted() {
    let scopes = ["a".to_owned()];
    let validated = |other: &str, allowed_scopes| {
        let (response, claims) = granting(Some(&["a"]), None);
        let claims = claims.map(|claims| VerifiedClaims { other_scope: Some(vec![other.to_owned()]), ..claims });
        validate(response, claims.as_ref(), Expected { allowed_scopes, ..expected(&scopes) })
            .map(|issued| issued.scopes)
    };
    assert_eq!(validated("admin", Some(&scopes[..])), Err(ValidationError::ScopeNotAllowed));
    assert_eq!(validated("a", Some(&scopes[..])), Ok(scopes.to_vec()));
    assert_eq!(validated("admin", None), Ok(scopes.to_vec()));
}

#[test]
fn token_whose_scopes_nothing_names_is_rejected_where_scopes_are_limited() {
    let allowed = ["a".to_owned()];
    for (claim, answered, wanted) in [
        (Some(&["a"][..]), Some(&["a"][..]), Ok(allowed.to_vec())),
        (Some(&["a"]), None, Ok(allowed.to_vec())),
        (None, Some(&["a"]), Ok(allowed.to_vec())),
        (None, None, Err(ValidationError::UnknownScopes)),
        (None, Some(&[]), Err(ValidationError::UnknownScopes)),
        (Some(&[]), None, Ok(Vec::new())),
        (Some(&[]), Some(&["b"]), Err(ValidationError::ScopeNotAllowed)),
    ] {
        let (response, claims) = granting(claim, answered);
        let expected = Expected { allowed_scopes: Some(&allowed), ..expected(&[]) };
        let scopes = validate(response, claims.as_ref(), expected).map(|issued| issued.scopes);
        assert_eq!(scopes, wanted, "{claim:?} {answered:?}");
    }
}

#[test]
fn token_whose_scopes_nothing_names_is_rejected_also_where_no_scope_is_allowed() {
    let validated = |claim: Option<&[&str]>, answered: Option<&[&str]>| {
        let (response, claims) = granting(claim, answered);
        let expected = Expected { allowed_scopes: Some(&[]), ..expected(&[]) };
        validate(response, claims.as_ref(), expected).map(|issued| issued.scopes)
    };
    assert_eq!(validated(None, None), Err(ValidationError::UnknownScopes));
    assert_eq!(validated(None, Some(&[])), Err(ValidationError::UnknownScopes));
    assert_eq!(validated(None, Some(&["a"])), Err(ValidationError::ScopeNotAllowed));
    assert_eq!(validated(Some(&["a"]), None), Err(ValidationError::ScopeNotAllowed));
    assert_eq!(validated(Some(&[]), None), Ok(Vec::new()), "the token itself says that it has none");
}

#[test]
fn token_without_requested_scopes_carries_those_that_are_granted() {
    let issued = |claim, answered| validated_for(granting(claim, answered), &[], None).map(|issued| issued.scopes);
    assert_eq!(issued(Some(&["read"]), None), Ok(vec!["read".to_owned()]));
    assert_eq!(issued(None, Some(&["write"])), Ok(vec!["write".to_owned()]));
    assert_eq!(issued(None, None), Ok(Vec::new()));
}

#[test]
fn scope_that_may_be_a_secret_is_not_shown_and_its_token_is_good() {
    let requested = ["a".to_owned(), "READ:guess".to_owned()];
    for (scopes, shown) in [
        (&["a", "READ:guess"][..], "a READ:guess"),
        (&["a", "READ:guess", "imodels:read", "offline_access"], "a READ:guess imodels:read offline_access"),
        (&["a", "READ:guess", "correct-horse-battery"], "a READ:guess [redacted]"),
        (&["correct", "a", "-horse", "pin", "READ:guess"], "[redacted] a [redacted] READ:guess"),
        (&["a", "the-token", "READ:guess", "read:guess", "read"], "a [redacted] READ:guess [redacted] read"),
    ] {
        for (claim, answered) in [(Some(scopes), Some(&["a", "READ:guess"][..])), (None, Some(scopes))] {
            let (response, claims) = granting(claim, answered);
            let issued =
                validate(response, claims.as_ref(), expected(&requested)).map(|issued| issued.scopes.join(" "));
            assert_eq!(issued.as_deref(), Ok(shown), "{claim:?} {answered:?}");
        }
    }
}

#[test]
fn what_is_not_shown_counts_as_granted() {
    let requested = ["a".to_owned(), "correct-horse-battery".to_owned()];
    let validated = |answered, scope_check, allowed_scopes| {
        let (response, claims) = granting(None, Some(answered));
        let expected = Expected { scope_check, allowed_scopes, ..expected(&requested) };
        validate(response, claims.as_ref(), expected).map(|issued| (issued.scopes.join(" "), issued.unnamed_scopes))
    };
    let (granted, other) = (&["correct-horse-battery", "a"][..], &["read", "-battery", "a"][..]);
    let complete = Ok(("correct-horse-battery a".to_owned(), Vec::new()));
    assert_eq!(validated(granted, ScopeCheck::Strict, None), complete);
    let missing = vec!["correct-horse-battery".to_owned()];
    let error = Err(ValidationError::ScopeReduced { missing: missing.clone() });
    assert_eq!(validated(other, ScopeCheck::Strict, None), error);
    let reduced = Ok(("read [redacted] a".to_owned(), missing));
    assert_eq!(validated(other, ScopeCheck::Lenient, None), reduced);
    assert_eq!(validated(other, ScopeCheck::Lenient, Some(&requested[..])), Err(ValidationError::ScopeNotAllowed));
}

#[test]
fn scope_that_a_spec_or_an_administrator_names_is_shown() {
    let named = ["correct-horse-battery".to_owned()];
    let validated = |answered, requested, allowed_scopes| {
        let (response, claims) = granting(None, answered);
        let expected = Expected { allowed_scopes, ..expected(requested) };
        validate(response, claims.as_ref(), expected).map(|issued| issued.scopes)
    };
    for answered in [None, Some(&["correct-horse-battery"][..])] {
        assert_eq!(validated(answered, &named, None), Ok(named.to_vec()), "{answered:?}");
        assert_eq!(validated(answered, &named, Some(&named[..])), Ok(named.to_vec()), "{answered:?}");
    }
    let unasked = |allowed| validated(Some(&["correct-horse-battery"]), &[], allowed);
    assert_eq!(unasked(Some(&named[..])), Ok(named.to_vec()));
    assert_eq!(unasked(None), Ok(vec![REDACTED.to_owned()]));
}

#[test]
fn expiry_more_than_ten_years_ahead_is_rejected() {
    let ten_years = 1 + 10 * 365 * 24 * 3600;
    assert!(validated(answer(ten_years, None)).is_ok());
    assert_eq!(validated(answer(ten_years + 1, None)).err(), Some(ValidationError::ExpiryTooFar));
    let mut milliseconds = answer(0, Some(3600));
    claims(&mut milliseconds).exp = at(3600).timestamp_millis();
    assert_eq!(validated(milliseconds).err(), Some(ValidationError::ExpiryTooFar));
}

#[test]
fn opaque_token_without_a_lifetime_has_that_of_the_authority() {
    let scopes = ["itwin-platform".to_owned()];
    let lifetime = |expires_in| {
        let (response, _) = answer(0, expires_in);
        let expected = Expected { default_lifetime: Some(TimeDelta::seconds(600)), ..expected(&scopes) };
        validate(response, None, expected).map(|issued| issued.expires_at)
    };
    assert_eq!(lifetime(None), Ok(at(600)));
    assert_eq!(lifetime(Some(1 << 63)), Ok(at(600)));
    assert_eq!(lifetime(Some(3600)), Ok(at(3600)), "the server knows better");
    // a JWT says itself when it expires
    let (response, claims) = answer(3600, None);
    let expected = Expected { default_lifetime: Some(TimeDelta::seconds(600)), ..expected(&scopes) };
    assert_eq!(validate(response, claims.as_ref(), expected).map(|issued| issued.expires_at), Ok(at(3600)));
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

/// What is remembered of a token of the Secret.
fn remembered(token: &str, expires: i64) -> LastHeld {
    let record = Record::new(&Sensitive::new(token.into()), Default::default(), "client", None);
    LastHeld { token_metadata: held(expires), record: Some(record), sealed: None }
}

#[test]
fn token_that_the_secret_holds_is_recognized_whatever_lifetime_is_stated() {
    let (same, other, held) = (remembered("token", 3600), remembered("other", 3600), held(3600));
    let unread = LastHeld { record: None, ..remembered("token", 3600) };
    let scopes = ["itwin-platform".to_owned()];
    let validated = |exp, is_opaque: bool, last_held| {
        let (response, claims) = answer(exp, Some(u64::try_from(exp).expect("a lifetime")));
        let expected = Expected { held: Some(&held), last_held, ..expected(&scopes) };
        validate(response, claims.filter(|_| !is_opaque).as_ref(), expected).map(|issued| issued.expires_at)
    };
    for is_opaque in [true, false] {
        for exp in [100, 3599, 3600, 3605, 3606, 7200] {
            let expected = Err(ValidationError::SameToken { expires_at: at(3600) });
            assert_eq!(validated(exp, is_opaque, Some(&same)), expected, "{exp} {is_opaque}");
        }
        assert_eq!(validated(3600, is_opaque, Some(&other)), Ok(at(3600)));
        assert_eq!(validated(3600, is_opaque, Some(&unread)), Ok(at(3600)));
        assert_eq!(validated(3600, is_opaque, None), Ok(at(3600)));
    }
}

#[test]
fn token_that_expired_is_no_new_one_and_one_that_is_written_again_keeps_its_expiry() {
    let scopes = ["itwin-platform".to_owned()];
    let validated = |learnt: i64, held: Option<&TokenMetadata>| {
        let (response, _) = answer(0, Some(3600));
        let last = remembered("token", learnt);
        let expected = Expected { held, last_held: Some(&last), ..expected(&scopes) };
        validate(response, None, expected).map(|issued| issued.expires_at)
    };
    let expired = Err(ValidationError::Expired { expires_at: at(1), now: at(1) });
    assert_eq!(validated(1, Some(&held(1))), expired);
    assert_eq!(validated(1, None), expired, "also where the Secret was deleted");
    assert_eq!(validated(60, None), Ok(at(60)), "a deleted Secret holds it again, for as long as before");
}

#[test]
fn signed_token_that_is_still_valid_is_good_although_the_lifetime_that_was_stated_is_over() {
    let scopes = ["itwin-platform".to_owned()];
    let validated = |learnt: i64| {
        let (response, claims) = answer(3600, Some(300));
        let last = remembered("token", learnt);
        let held = held(learnt);
        let expected = Expected { held: Some(&held), last_held: Some(&last), ..expected(&scopes) };
        validate(response, claims.as_ref(), expected).map(|issued| (issued.issued_at, issued.expires_at))
    };
    assert_eq!(validated(1), Ok((at(-100), at(300))), "it was issued when it was issued first");
    assert_eq!(validated(200), Err(ValidationError::SameToken { expires_at: at(200) }), "it is recognized until then");
}

#[test]
fn opaque_token_whose_lifetime_is_the_default_is_good_for_as_long_as_the_server_returns_it() {
    let scopes = ["itwin-platform".to_owned()];
    let validated = |learnt: i64, stated: Option<u64>| {
        let (response, _) = answer(0, stated);
        let (last, held) = (remembered("token", learnt), held(learnt));
        let default_lifetime = Some(TimeDelta::seconds(600));
        let expected = Expected { held: Some(&held), last_held: Some(&last), default_lifetime, ..expected(&scopes) };
        validate(response, None, expected).map(|issued| issued.expires_at)
    };
    assert_eq!(validated(200, None), Err(ValidationError::SameToken { expires_at: at(200) }));
    assert!(validated(1, None).is_ok());
    assert_eq!(validated(1, Some(600)), Err(ValidationError::Expired { expires_at: at(1), now: at(1) }));
}
