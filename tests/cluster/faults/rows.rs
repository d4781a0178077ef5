//! The rows.

use anyhow::Result;
use futures::{StreamExt, stream};
use serde_json::{Value, json};

use crate::faults::row::{Row, RowFixture};

/// Rows that are played at the same time: what two cores and one Node process can serve.
const AT_ONCE: usize = 6;

fn behaviour(name: &str) -> Value {
    json!({"name": name})
}

fn with(name: &str, value: Value) -> Value {
    json!({"name": name, "value": value})
}

fn oauth_error(status: u16, error: &str) -> Value {
    with("oauthError", json!({"status": status, "error": error}))
}

fn rate_limited(retry_after: Option<&str>) -> Value {
    let headers = retry_after.map_or(json!({}), |value| json!({"retry-after": value}));
    with("status", json!({"status": 429, "headers": headers}))
}

pub async fn play(prefix: &str, rows: Vec<Row>) -> Result<()> {
    let fixture = RowFixture::new(prefix).await?;
    let fixture = &fixture;
    let results: Vec<_> =
        stream::iter(&rows).map(async |row| row.play(fixture).await).buffer_unordered(AT_ONCE).collect().await;
    let failures: Vec<String> = results.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    assert!(failures.is_empty(), "{} of {} rows:\n{}", failures.len(), rows.len(), failures.join("\n"));
    let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
    fixture.assert_nothing_leaked(&names).await
}

#[tokio::test]
async fn error_responses_are_reported_by_their_cause() -> Result<()> {
    play(
        "errors",
        vec![
            Row::new("invalid-client-400", oauth_error(400, "invalid_client"), "InvalidClient"),
            Row::new("invalid-client-401", oauth_error(401, "invalid_client"), "InvalidClient"),
            Row::new("invalid-scope", oauth_error(400, "invalid_scope"), "InvalidScope"),
            Row::new("unauthorized-client", oauth_error(400, "unauthorized_client"), "UnauthorizedClient"),
            Row::new("access-denied-401", oauth_error(401, "access_denied"), "UnauthorizedClient")
                .with_text("client_id and client_secret"),
            Row::new("access-denied-403", oauth_error(403, "access_denied"), "RequestRejected")
                .with_text("spec.audience"),
            Row::new("unsupported-grant-type", oauth_error(400, "unsupported_grant_type"), "UnsupportedGrantType"),
            Row::new("invalid-request", oauth_error(400, "invalid_request"), "RequestRejected"),
            Row::new("unknown-error", oauth_error(400, "ATTACKER_error"), "RequestRejected"),
            Row::new("not-found", with("status", json!({"status": 404})), "RequestRejected"),
            Row::new(
                "forbidden-html",
                with("status", json!({"status": 403, "body": "<html>ATTACKER</html>"})),
                "RequestRejected",
            ),
            Row::new("internal-error", with("status", json!({"status": 500})), "ServerError"),
            Row::new("invalid-client-500", oauth_error(500, "invalid_client"), "InvalidClient"),
            Row::new("unknown-error-500", oauth_error(500, "ATTACKER_error"), "ServerError"),
            Row::new(
                "error-code-500",
                with("status", json!({"status": 500, "body": {"errorCode": "ATTACKER_0009"}})),
                "ServerError",
            ),
            Row::new(
                "error-code-401",
                with("status", json!({"status": 401, "body": {"errorCode": "invalid_client"}})),
                "InvalidClient",
            ),
            Row::new(
                "error-code-capitalized",
                with("status", json!({"status": 401, "body": {"ErrorCode": "invalid_client", "Error": "ATTACKER"}})),
                "InvalidClient",
            ),
            Row::new("status-401", with("status", json!({"status": 401})), "RequestRejected")
                .with_text("check client_id and client_secret in Secret"),
            Row::new(
                "name-of-status-401",
                with("status", json!({"status": 401, "body": {"status": 401, "error": "Unauthorized"}})),
                "RequestRejected",
            )
            .with_text("HTTP 401 without a known OAuth error: check client_id and client_secret in Secret"),
            Row::new(
                "name-of-status-404",
                with("status", json!({"status": 404, "body": {"error": "Could not find resource ATTACKER"}})),
                "RequestRejected",
            )
            .with_text("HTTP 404 without a known OAuth error: check token_endpoint in its discovery document"),
            Row::new("name-of-status-403", oauth_error(403, "forbidden"), "RequestRejected")
                .with_text("HTTP 403 without a known OAuth error"),
            Row::new(
                "forbidden-large",
                with("status", json!({"status": 403, "body": "x".repeat(100_000)})),
                "RequestRejected",
            )
            .with_text("HTTP 403, and its body could not be read"),
            Row::new("unauthorized-slow-body", with("slowBody", json!(401)), "RequestRejected")
                .with_text("HTTP 401, and its body could not be read: check client_id and client_secret in Secret"),
            Row::new("unauthorized-slow-body-60-s", with("slowBody", json!(401)), "RequestRejected")
                .with_text("HTTP 401, and its body could not be read")
                .with_authority(json!({"requestTimeout": "60s"})),
            Row::new(
                "unauthorized-body-after-2-s",
                with("lateError", json!({"status": 401, "error": "invalid_client", "after": 2000})),
                "InvalidClient",
            )
            .with_authority(json!({"requestTimeout": "10s"})),
            Row::new("forbidden-reset-mid-body", with("resetMidBody", json!(403)), "RequestRejected")
                .with_text("HTTP 403, and its body could not be read"),
            Row::new("bad-gateway", with("status", json!({"status": 502})), "ServerError"),
            Row::new(
                "unavailable",
                with("status", json!({"status": 503, "headers": {"retry-after": "1"}})),
                "ServerError",
            ),
            Row::new("rate-limited", rate_limited(None), "RateLimited"),
            Row::new("rate-limited-seconds", rate_limited(Some("2")), "RateLimited"),
            Row::new("rate-limited-date", with("rateLimitedUntil", json!(3000)), "RateLimited"),
            Row::new("rate-limited-past-date", rate_limited(Some("Sun, 06 Nov 1994 08:49:37 GMT")), "RateLimited"),
            Row::new("rate-limited-invalid-client", oauth_error(429, "invalid_client"), "InvalidClient"),
            Row::new("rate-limited-own-error", oauth_error(429, "ATTACKER_error"), "RateLimited"),
            Row::new("rate-limited-nonsense", rate_limited(Some("soon")), "RateLimited"),
        ],
    )
    .await
}

#[tokio::test]
async fn invalid_responses_are_rejected() -> Result<()> {
    let malformed = |name, behaviour| Row::new(name, behaviour, "MalformedResponse");
    play(
        "nonsense",
        vec![
            malformed("endless-body", behaviour("endlessBody")),
            malformed("gzip-bomb", behaviour("gzipBomb")),
            malformed("truncated-json", behaviour("truncatedJson")),
            malformed("deep-nesting", behaviour("deepNesting")),
            malformed("duplicate-keys", behaviour("duplicateKeys")),
            malformed("byte-order-mark", behaviour("byteOrderMark")),
            malformed("trailing-garbage", behaviour("trailingGarbage")),
            malformed("html", behaviour("html")),
            malformed("wrong-content-type", behaviour("wrongContentType")),
            malformed("token-missing", with("answerWithout", json!("access_token"))),
            malformed("token-empty", with("answer", json!({"access_token": ""}))),
            malformed("token-not-text", with("answer", json!({"access_token": {"a": 1}}))),
            malformed("token-injects-header", with("answer", json!({"access_token": "a\r\nX-Injected: 1"}))),
            malformed("type-missing", with("answerWithout", json!("token_type"))),
            malformed("expires-negative", with("answer", json!({"expires_in": -1}))),
            malformed("expires-text", with("answer", json!({"expires_in": "soon"}))),
            malformed("expires-beyond-64-bits", with("answer", json!({"expires_in": 1e30}))),
            malformed("expires-list", with("answer", json!({"expires_in": [3600]}))),
            malformed("scope-number", with("answer", json!({"scope": 7}))),
            malformed("no-content", with("status", json!({"status": 204, "body": ""}))),
            Row::new("type-not-bearer", with("answer", json!({"token_type": "DPoP"})), "TokenRejected"),
            Row::new("expires-zero", with("answer", json!({"expires_in": 0})), "TokenRejected"),
            Row::new("scope-narrower", with("answer", json!({"scope": "other"})), "ScopeReduced"),
            Row::new("lifetime-shorter", with("answer", json!({"expires_in": 60})), "ShorterThanCurrent"),
        ],
    )
    .await
}

#[tokio::test]
async fn untrustworthy_tokens_are_rejected() -> Result<()> {
    let rejected = |name, behaviour| Row::new(name, behaviour, "TokenRejected");
    play(
        "tokens",
        vec![
            rejected("no-exp", with("claimsWithout", json!("exp"))),
            rejected("expired", behaviour("expiresInPast")),
            rejected("exp-as-text", with("claims", json!({"exp": "4000000000"}))).with_text("exp claim is no number"),
            rejected("kid-as-number", behaviour("kidAsNumber")).with_text("no well-formed JWT"),
            rejected("http-issuer", with("claims", json!({"iss": "http://localhost/services/trust"})))
                .with_text("accessTokenFormat of the ITwinAuthority to opaque"),
            rejected("of-the-future", with("claims", json!({"nbf": 4_000_000_000_u32}))),
            rejected("wrong-issuer", with("claims", json!({"iss": "https://evil.example.com"}))),
            rejected("wrong-audience", with("claims", json!({"aud": "https://evil.example.com"}))),
            rejected("no-audience", with("claimsWithout", json!("aud"))),
            rejected("bad-signature", behaviour("signedByStranger")),
            rejected("unknown-kid", behaviour("unknownKid")),
            rejected("algorithm-none", behaviour("algorithmNone")),
            rejected("hmac-with-public-key", behaviour("hmacWithPublicKey")),
            rejected("opaque", with("answer", json!({"access_token": "opaque"}))),
            rejected("exp-in-milliseconds", with("claimsAlone", json!({"exp": 4_102_444_800_000_u64})))
                .with_text("10 years"),
            rejected("critical-extension", behaviour("criticalExtension")).with_text("(crit)"),
            rejected("es512", with("signedWith", json!("ES512"))).with_authority(keys("algorithms")).with_text("ES512"),
            rejected("scope-beyond-allowed", with("claims", json!({"scope": ["itwin-platform", "ATTACKER"]})))
                .with_authority(json!({"allowedScopes": ["itwin-platform"]}))
                .with_text("spec.allowedScopes"),
            Row::new("scope-claim-narrower", with("claims", json!({"scope": ["ATTACKER"]})), "ScopeReduced")
                .with_text("itwin-platform"),
            rejected("clock-ahead", with("claimsShifted", json!(600))),
            Row::new("clock-behind", with("claimsShifted", json!(-600)), "ShorterThanCurrent"),
        ],
    )
    .await
}

#[tokio::test]
async fn unusual_but_valid_responses_are_accepted() -> Result<()> {
    play(
        "odd",
        vec![
            Row::harmless("type-lower-case", with("answer", json!({"token_type": "bearer"}))),
            Row::harmless("expires-missing", with("answerWithout", json!("expires_in"))),
            Row::harmless("expires-huge", with("answer", json!({"expires_in": 9_223_372_036_854_775_808_u64}))),
            // the earlier of the two counts
            Row::harmless("exp-contradicts", with("claims", json!({"exp": 2_000_000_000}))),
            Row::harmless("scope-missing", with("answerWithout", json!("scope"))),
            Row::harmless("scope-claim-as-text", with("claims", json!({"scope": "itwin-platform"}))),
            Row::harmless("unknown-fields", with("answer", json!({"refresh_token": "x", "ext": {"a": [1]}}))),
            Row::harmless("key-rotated", behaviour("rotatedKey")),
            Row::harmless("connection-closed-after-answer", behaviour("closeAfterAnswer")),
            Row::harmless("created-201", with("goodWithStatus", json!(201))),
            Row::harmless("accepted-202", with("goodWithStatus", json!(202))),
            Row::harmless("scope-as-list", with("answer", json!({"scope": ["itwin-platform"]}))),
            Row::harmless("expires-as-text", with("answer", json!({"expires_in": "3600"}))),
            Row::harmless("expires-with-fraction", with("answer", json!({"expires_in": 3600.5}))),
            Row::harmless("scope-not-named", with("answer", json!({"scope": "other"})))
                .with_authority(json!({"scopeCheck": "Lenient"})),
        ],
    )
    .await
}

#[tokio::test]
async fn scope_that_repeats_a_secret_is_not_shown() -> Result<()> {
    let redacted = |name, scopes| Row::harmless(name, behaviour(scopes)).with_text("itwin-platform [redacted]");
    play("scopes", vec![redacted("secret-in-scope", "secretInScope"), redacted("token-in-scope", "tokenInScope")]).await
}

#[tokio::test]
async fn opaque_tokens_are_accepted_as_the_server_issues_them() -> Result<()> {
    let opaque = json!({"accessTokenFormat": "opaque", "audiences": null});
    let with_default = json!({"accessTokenFormat": "opaque", "defaultTokenLifetime": "2h"});
    let token = json!({"access_token": "!opaque|token$with(visible)ASCII"});
    play(
        "opaque",
        vec![
            Row::harmless("visible-ascii", with("answer", token)).with_authority(opaque.clone()),
            Row::harmless("default-lifetime", with("answerWithout", json!("expires_in"))).with_authority(with_default),
            Row::new("no-lifetime", with("answerWithout", json!("expires_in")), "MalformedResponse")
                .with_authority(opaque)
                .with_text("defaultTokenLifetime"),
        ],
    )
    .await
}

#[tokio::test]
async fn every_way_to_publish_and_to_use_keys_is_understood() -> Result<()> {
    // names of objects are in lower case
    let algorithms = [
        ("rs384", "RS384"),
        ("rs512", "RS512"),
        ("ps256", "PS256"),
        ("ps384", "PS384"),
        ("ps512", "PS512"),
        ("es256", "ES256"),
        ("es384", "ES384"),
        ("eddsa", "EdDSA"),
    ];
    let signed = algorithms.map(|(name, algorithm)| {
        Row::harmless(name, with("signedWith", json!(algorithm))).with_authority(keys("algorithms"))
    });
    let sets = [
        Row::harmless("last-of-100-keys", behaviour("good")).with_authority(keys("many")),
        Row::harmless("numbers-after-zeros", behaviour("good")).with_authority(keys("zeros")),
        Row::harmless("padded-numbers", behaviour("good")).with_authority(keys("padded")),
        Row::harmless("keys-without-kid", behaviour("good")).with_authority(keys("withoutKid")),
        Row::harmless("token-without-kid", behaviour("withoutKid")).with_authority(keys("many")),
        Row::harmless("two-keys-of-one-kid", behaviour("good")).with_authority(keys("sameKid")),
        Row::harmless("new-key-under-the-old-kid", behaviour("replacedKey")).with_authority(keys("replaced")),
    ];
    play("keys", signed.into_iter().chain(sets).collect()).await
}

/// The key set of this name, in place of the server's own.
fn keys(set: &str) -> Value {
    let issuer = testbed::Testbed::current().map(|testbed| testbed.faults.issuer.clone()).unwrap_or_default();
    json!({"jwksUri": format!("{issuer}/keys?set={set}")})
}

#[tokio::test]
async fn deadline_that_ran_out_is_named() -> Result<()> {
    let testbed = testbed::Testbed::current()?;
    let faults = &testbed.faults;
    let at = |port: u16| format!("https://localhost:{port}/connect/token");
    play(
        "deadlines",
        vec![
            Row::new("of-the-request", behaviour("slowHeader"), "Timeout").with_text("within 2s (requestTimeout)"),
            Row::way(
                "of-the-connection",
                json!({
                    "tokenEndpoint": at(faults.black_hole),
                    "jwksUri": format!("{}/keys", faults.issuer),
                    "connectTimeout": "500ms",
                }),
                "Timeout",
            )
            .with_text("within 500ms (connectTimeout)"),
        ],
    )
    .await
}

#[tokio::test]
async fn unreachable_servers_are_reported_by_their_cause() -> Result<()> {
    let testbed = testbed::Testbed::current()?;
    let (faults, keys) = (&testbed.faults, format!("{}/keys", testbed.faults.issuer));
    let [closed] = testbed::process::free_ports()?;
    let at = |port: u16| json!({"tokenEndpoint": format!("https://localhost:{port}/connect/token"), "jwksUri": keys});
    let redirected_before = faults.counts().await?.redirected;
    play(
        "ways",
        vec![
            Row::new("slow-header", behaviour("slowHeader"), "Timeout"),
            Row::new("slow-body", behaviour("slowBody"), "Timeout"),
            Row::new("reset-mid-body", behaviour("resetMidBody"), "ConnectionFailed"),
            Row::new("redirect-301", with("redirect", json!(301)), "RedirectRefused"),
            Row::new("redirect-302", with("redirect", json!(302)), "RedirectRefused"),
            Row::new("redirect-307", with("redirect", json!(307)), "RedirectRefused"),
            Row::new("redirect-308", with("redirect", json!(308)), "RedirectRefused"),
            Row::way("connection-refused", at(closed), "ConnectionFailed"),
            Row::way("black-hole", at(faults.black_hole), "Timeout"),
            Row::way(
                "unknown-name",
                json!({"tokenEndpoint": "https://no-such-host.invalid/connect/token", "jwksUri": keys}),
                "ConnectionFailed",
            ),
        ],
    )
    .await?;
    assert_eq!(faults.counts().await?.redirected, redirected_before, "no redirect was followed");
    Ok(())
}
