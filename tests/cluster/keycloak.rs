//! The operator with a real Keycloak: what it issues verifies, and what it refuses is reported by its cause. Each test has
//! a realm of its own. Where Keycloak is not available, the end of the run says so.

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::{Value, json};
use testbed::{
    Testbed,
    keycloak::{Keycloak, Realm},
    objects,
};
use tokio::sync::OnceCell;

use crate::fixture::{Fixture, NAME, PATIENCE, condition, key_pair};

/// Longer than anything that one request needs on a busy machine.
const ANSWERED: std::time::Duration = std::time::Duration::from_secs(60);
/// The default lifetime of Keycloak's tokens, in seconds.
const LIFETIME: i64 = 300;

/// The Keycloak of all tests of this program.
async fn keycloak() -> Result<Option<&'static Keycloak>> {
    static SHARED: OnceCell<Option<Keycloak>> = OnceCell::const_new();
    let shared = SHARED.get_or_try_init(async || Keycloak::start(&Testbed::current()?).await).await?;
    Ok(shared.as_ref())
}

/// A client scope; `named` is whether tokens name it.
fn scope(name: &str, named: bool) -> Value {
    let attributes = json!({"include.in.token.scope": named.to_string()});
    json!({"name": name, "protocol": "openid-connect", "attributes": attributes})
}

/// A client for service accounts, with a secret and these fields besides.
fn client(client_id: &str, secret: &str, fields: &Value) -> Value {
    let mut client = json!({
        "clientId": client_id,
        "secret": secret,
        "serviceAccountsEnabled": true,
        "publicClient": false,
        "standardFlowEnabled": false,
        "defaultClientScopes": [],
        "optionalClientScopes": ["itwin-platform", "silent"],
    });
    objects::merge(&mut client, fields);
    client
}

/// A namespace with an operator, and a realm with these clients.
struct RealmFixture<'a> {
    fixture: Fixture,
    realm: Realm<'a>,
}

impl<'a> RealmFixture<'a> {
    async fn new(keycloak: &'a Keycloak, prefix: &str, mut realm: Value) -> Result<Self> {
        let fixture = Fixture::bare(prefix).await?;
        realm["clientScopes"] = json!([scope("itwin-platform", true), scope("silent", false)]);
        let realm = keycloak.realm(&fixture.namespace.name, realm).await?;
        Ok(Self { fixture, realm })
    }

    /// Creates an authority for the realm; `spec` is merged into its spec.
    async fn authority(&self, name: &str, spec: &Value) -> Result<String> {
        let namespace = &self.fixture.namespace;
        let mut authority = namespace.faulty_authority(name, &self.realm.spec());
        objects::merge(&mut authority["spec"], spec);
        namespace.create(authority).await?;
        Ok(namespace.unique(name))
    }

    /// Creates a credential with its client Secret.
    async fn credential(&self, name: &str, authority: &str, client: &Value, spec: &Value) -> Result<()> {
        let namespace = &self.fixture.namespace;
        namespace.apply(&objects::secret(&format!("{name}-client"), client)).await?;
        namespace.create(objects::credential(name, authority, &format!("{name}-client"), spec)).await
    }

    async fn wait(&self, name: &str, kind: &str, status: &str, reason: &str) -> Result<String> {
        self.fixture.wait_condition_of(name, kind, status, reason, ANSWERED).await
    }

    async fn ready(&self, name: &str) -> Result<()> {
        self.wait(name, "Ready", "True", "TokenValid").await.map(drop)
    }

    /// The token of a credential, which the keys of the realm verify: the identifier of its key, and its claims.
    async fn verified(&self, name: &str) -> Result<(String, Value)> {
        let secret = self.fixture.secret_of(name).await?.context("there is no Secret")?;
        let token = testbed::namespace::data(&secret)?.remove("access_token").context("no access_token")?;
        self.realm.verify(&token).await
    }

    /// Waits for another token than that with this `jti`; returns what verifies it.
    async fn renewed(&self, name: &str, old: &Value) -> Result<(String, Value)> {
        self.fixture
            .eventually("another token that verifies", ANSWERED, async || {
                self.verified(name).await.ok().filter(|(_, claims)| claims["jti"] != old["jti"])
            })
            .await
    }
}

/// The Secret's values for a client with a secret.
fn with_secret(client_id: &str, secret: &str) -> Value {
    json!({"client_id": client_id, "client_secret": secret})
}

#[tokio::test]
async fn keycloak_issues_tokens_to_every_kind_of_client_with_all_defaults() -> Result<()> {
    let Some(keycloak) = keycloak().await? else { return Ok(()) };
    let secret = keycloak.secret()?;
    let (pem, jwks) = key_pair(&Testbed::current()?).await?;
    let signed = json!({
        "clientAuthenticatorType": "client-jwt",
        "attributes": {
            "use.jwks.string": "true",
            "jwks.string": jwks.to_string(),
            "token.endpoint.auth.signing.alg": "ES256",
        },
    });
    let clients = json!([
        client("post", &secret, &json!({})),
        client("basic", &secret, &json!({})),
        client("jwt", &secret, &signed),
    ]);
    let test = RealmFixture::new(keycloak, "kc-clients", json!({"clients": clients})).await?;
    for (name, values) in [
        ("post", with_secret("post", &secret)),
        ("basic", with_secret("basic", &secret)),
        ("jwt", json!({"client_id": "jwt", "private_key": pem, "key_id": "client"})),
    ] {
        let authentication = if name == "jwt" { "private_key_jwt" } else { &format!("client_secret_{name}") };
        let authority = test.authority(name, &json!({"clientAuthentication": authentication})).await?;
        test.credential(name, &authority, &values, &json!({})).await?;
    }
    for name in ["post", "basic", "jwt"] {
        test.ready(name).await?;
        let (_, claims) = test.verified(name).await?;
        assert_eq!(
            (claims["azp"].as_str(), claims["scope"].as_str()),
            (Some(name), Some("itwin-platform")),
            "{claims}"
        );
        let seconds = |claim: &str| claims[claim].as_i64().unwrap_or_default();
        assert_eq!(seconds("exp") - seconds("iat"), LIFETIME, "{claims}");
        let status = test.fixture.status_of(name).await?;
        let (_, _, message) = condition(&status, "Ready").context("Ready")?;
        assert!(status["usableUntil"].is_string() && !message.contains("minimumValidity"), "{status}");
    }
    // the second assertion is a new one, since Keycloak accepts each only once
    let (_, first) = test.verified("jwt").await?;
    test.fixture.renew_now("jwt", "1").await?;
    test.renewed("jwt", &first).await.map(drop)
}

#[tokio::test]
async fn keycloak_grants_names_and_refuses_scopes_as_the_documentation_says() -> Result<()> {
    let Some(keycloak) = keycloak().await? else { return Ok(()) };
    let secret = keycloak.secret()?;
    let test =
        RealmFixture::new(keycloak, "kc-scopes", json!({"clients": [client("agent", &secret, &json!({}))]})).await?;
    let strict = test.authority("strict", &json!({})).await?;
    let lenient = test.authority("lenient", &json!({"scopeCheck": "Lenient"})).await?;
    let values = with_secret("agent", &secret);
    let wanted = |scopes: &[&str]| json!({"scopes": scopes});
    test.credential("known", &strict, &values, &wanted(&["itwin-platform"])).await?;
    test.credential("none", &strict, &values, &wanted(&[])).await?;
    test.credential("unknown", &strict, &values, &wanted(&["itwin-platform", "unheard-of"])).await?;
    test.credential("silent", &strict, &values, &wanted(&["itwin-platform", "silent"])).await?;
    test.credential("tolerated", &lenient, &values, &wanted(&["itwin-platform", "silent"])).await?;
    for name in ["known", "none", "tolerated"] {
        test.ready(name).await?;
        test.verified(name).await?;
    }
    test.wait("unknown", "Renewed", "False", "InvalidScope").await?;
    let message = test.wait("silent", "Renewed", "False", "ScopeReduced").await?;
    assert!(message.contains("silent") && !message.contains("itwin-platform"), "only what is missing: {message}");
    for name in ["unknown", "silent"] {
        assert!(test.fixture.secret_of(name).await?.is_none(), "{name} has a token");
    }
    Ok(())
}

#[tokio::test]
async fn keycloak_rotates_its_key_and_the_next_token_verifies() -> Result<()> {
    let Some(keycloak) = keycloak().await? else { return Ok(()) };
    let secret = keycloak.secret()?;
    let test =
        RealmFixture::new(keycloak, "kc-rotation", json!({"clients": [client("agent", &secret, &json!({}))]})).await?;
    let authority = test.authority("ims", &json!({})).await?;
    test.credential(NAME, &authority, &with_secret("agent", &secret), &json!({})).await?;
    test.ready(NAME).await?;
    let (old_key, old) = test.verified(NAME).await?;
    test.realm.rotate_key().await?;
    test.fixture.renew_now(NAME, "1").await?;
    let (new_key, _) = test.renewed(NAME, &old).await?;
    assert_ne!(new_key, old_key);
    let status = test.fixture.status_of(NAME).await?;
    assert!(status["lastFailure"].is_null(), "the keys were fetched again before the token was refused: {status}");
    Ok(())
}

#[tokio::test]
async fn keycloak_refuses_disabled_clients_and_realms_and_takes_them_back() -> Result<()> {
    let Some(keycloak) = keycloak().await? else { return Ok(()) };
    let (secret, wrong) = (keycloak.secret()?, keycloak.secret()?);
    let clients = json!([client("agent", &secret, &json!({})), client("bystander", &secret, &json!({}))]);
    let test = RealmFixture::new(keycloak, "kc-disabled", json!({"clients": clients})).await?;
    let authority = test.authority("ims", &json!({})).await?;
    test.credential(NAME, &authority, &with_secret("agent", &secret), &json!({})).await?;
    test.credential("wrong", &authority, &with_secret("bystander", &wrong), &json!({})).await?;
    test.ready(NAME).await?;
    // Keycloak answers 401 unauthorized_client to a wrong secret
    let message = test.wait("wrong", "Renewed", "False", "UnauthorizedClient").await?;
    assert!(message.contains("client_secret"), "{message}");

    let (_, first) = test.verified(NAME).await?;
    test.realm.set_client_enabled("agent", false).await?;
    test.fixture.renew_now(NAME, "1").await?;
    test.wait(NAME, "Renewed", "False", "InvalidClient").await?;
    test.ready(NAME).await?;
    test.realm.set_client_enabled("agent", true).await?;
    let (_, second) = test.renewed(NAME, &first).await?;

    test.wait(NAME, "Renewed", "True", "TokenIssued").await?;
    test.realm.set_enabled(false).await?;
    test.fixture.renew_now(NAME, "2").await?;
    let message = test.wait(NAME, "Renewed", "False", "RequestRejected").await?;
    assert!(message.contains("realm"), "{message}");
    test.ready(NAME).await?;
    let unchanged = test.fixture.secret_of(NAME).await?.context("the Secret is gone")?;
    assert!(testbed::namespace::data(&unchanged)?.contains_key("access_token"));
    test.realm.set_enabled(true).await?;
    test.renewed(NAME, &second).await.map(drop)
}

#[tokio::test]
async fn keycloak_locks_a_service_user_out_and_lets_it_in_again() -> Result<()> {
    let Some(keycloak) = keycloak().await? else { return Ok(()) };
    let (password, secret) = (keycloak.secret()?, keycloak.secret()?);
    let user = |name: &str| {
        json!({
            "username": name,
            "enabled": true,
            "emailVerified": true,
            "email": format!("{name}@example.com"),
            "firstName": "service",
            "lastName": "user",
            "credentials": [{"type": "password", "value": password}],
        })
    };
    let public = json!({
        "clientId": "legacy",
        "publicClient": true,
        "directAccessGrantsEnabled": true,
        "optionalClientScopes": ["itwin-platform"],
    });
    let burst: Vec<String> = (0..10).map(|number| format!("agent-{number}")).collect();
    let clients: Vec<_> = burst.iter().map(|id| client(id, &secret, &json!({}))).chain([public]).collect();
    let realm = json!({
        "bruteForceProtected": true,
        "failureFactor": 3,
        "waitIncrementSeconds": 10,
        "maxFailureWaitSeconds": 10,
        "minimumQuickLoginWaitSeconds": 10,
        "clients": clients,
        "users": [user("service-user")],
    });
    let test = RealmFixture::new(keycloak, "kc-lockout", realm).await?;
    let public = json!({"clientAuthentication": "none", "allowedGrantTypes": ["password"]});
    let (users, services) = (test.authority("users", &public).await?, test.authority("services", &json!({})).await?);
    let values = |password: &str| json!({"client_id": "legacy", "username": "service-user", "password": password});
    test.credential(NAME, &users, &values("not-the-password"), &json!({"grantType": "password"})).await?;
    // a burst of requests of clients, of which none counts as a failed login
    for id in &burst {
        test.credential(id, &services, &with_secret(id, &secret), &json!({})).await?;
    }
    let message = test.wait(NAME, "Renewed", "False", "RequestRejected").await?;
    assert!(message.contains("invalid_grant") && message.contains("password"), "{message}");
    test.fixture
        .eventually("the lockout", ANSWERED, async || {
            let failures = test.fixture.status_of(NAME).await.ok()?["consecutiveFailures"].as_i64()?;
            (failures >= 4).then_some(())
        })
        .await?;
    for id in &burst {
        test.ready(id).await?;
    }
    // the right password is refused too until the lockout is over, and then accepted
    test.fixture.namespace.apply(&objects::secret(&format!("{NAME}-client"), &values(&password))).await?;
    test.ready(NAME).await?;
    let (_, claims) = test.verified(NAME).await?;
    assert_eq!(claims["azp"], "legacy", "{claims}");
    Ok(())
}

#[tokio::test]
async fn keycloak_names_an_audience_where_a_mapper_says_so() -> Result<()> {
    const API: &str = "https://api.example.com";
    let Some(keycloak) = keycloak().await? else { return Ok(()) };
    let secret = keycloak.secret()?;
    let mapper = json!({"protocolMappers": [{
        "name": "audience",
        "protocol": "openid-connect",
        "protocolMapper": "oidc-audience-mapper",
        "config": {"included.custom.audience": API, "access.token.claim": "true"},
    }]});
    let clients = json!([client("mapped", &secret, &mapper), client("plain", &secret, &json!({}))]);
    let test = RealmFixture::new(keycloak, "kc-audience", json!({"clients": clients})).await?;
    let authority = test.authority("ims", &json!({"audiences": [API]})).await?;
    for name in ["mapped", "plain"] {
        test.credential(name, &authority, &with_secret(name, &secret), &json!({})).await?;
    }
    test.ready("mapped").await?;
    let (_, claims) = test.verified("mapped").await?;
    assert!(claims["aud"] == API || claims["aud"].as_array().is_some_and(|all| all.contains(&json!(API))), "{claims}");
    let message = test.wait("plain", "Renewed", "False", "TokenRejected").await?;
    assert!(message.contains("aud claim"), "{message}");
    // what the administrator corrects is noticed without a change of the credential
    let found = test.realm.call(Method::GET, "/clients?clientId=plain", None).await?;
    let path = format!("/clients/{}/protocol-mappers/models", found[0]["id"].as_str().context("no client")?);
    test.realm.call(Method::POST, &path, Some(&mapper["protocolMappers"][0])).await?;
    test.fixture
        .eventually("the token with its audience", PATIENCE * 2, async || test.verified("plain").await.ok().map(drop))
        .await
}
