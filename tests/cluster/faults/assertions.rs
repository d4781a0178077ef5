//! Client assertions as servers compare them: the signature, the algorithm, the audience to the letter, and the header.

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use testbed::{authority::client_key, objects};

use crate::faults::row::RowFixture;

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// What the client and the authority have, and what the server demands.
struct Case {
    name: &'static str,
    /// Fields of the ITwinAuthority.
    authority: Value,
    /// The algorithm that the key is for.
    algorithm: &'static str,
    /// The audience that the server compares.
    audience: String,
    /// Whether the client Secret has the certificate.
    certificate: bool,
    /// The key identifier in the client Secret.
    key_id: Option<&'static str>,
    /// Why the token is refused, if it is.
    refused: Option<&'static str>,
}

impl Case {
    fn new(name: &'static str, algorithm: &'static str, audience: &str) -> Self {
        let authority = json!({});
        let audience = audience.to_owned();
        Self { name, authority, algorithm, audience, certificate: false, key_id: None, refused: None }
    }

    fn with(self, authority: Value) -> Self {
        Self { authority, ..self }
    }

    async fn play(&self, fixture: &RowFixture) -> Result<()> {
        let name = self.name;
        let (key, certificate) = client_key(self.algorithm)?;
        let mut values = json!({"client_id": fixture.client_id(name), "private_key": key});
        let mut demanded = json!({
            "certificate": certificate,
            "thumbprints": self.certificate,
            "audience": self.audience,
            "algorithm": self.algorithm,
            "header": {},
        });
        if self.certificate {
            values["certificate"] = json!(certificate);
        }
        if let Some(key_id) = self.key_id {
            (values["key_id"], demanded["header"]["kid"]) = (json!(key_id), json!(key_id));
        }
        let behaviour = json!({"name": "assertionDemanded", "value": demanded});
        fixture.faults().behave(&fixture.client_id(name), &behaviour).await?;
        let mut spec = json!({"clientAuthentication": "private_key_jwt"});
        objects::merge(&mut spec, &self.authority);
        let authority = fixture.create_authority(name, &spec).await?;
        fixture.namespace.create(objects::secret(&format!("{name}-client"), &values)).await?;
        fixture.create_credential(name, &authority, name, &json!({})).await?;
        match self.refused {
            None => fixture.wait(name, "Ready", true, "TokenValid", PATIENCE).await?,
            Some(reason) => fixture.wait(name, "Renewed", false, reason, PATIENCE).await?,
        };
        fixture.delete_authority(&authority).await
    }
}

#[tokio::test]
async fn assertions_are_what_servers_compare_them_with() -> Result<()> {
    let fixture = RowFixture::new("assertions").await?;
    let issuer = fixture.faults().issuer.clone();
    let (with_slash, endpoint) = (format!("{issuer}/"), format!("{issuer}/connect/token"));
    let rules =
        |audience: &str, algorithm: &str| json!({"clientAssertion": {"audience": audience, "algorithm": algorithm}});
    let cases = [
        Case::new("issuer", "ES256", &issuer),
        // discovery spells it without the slash, and the administrator with it: that is what is sent
        Case::new("issuer-with-slash", "ES256", &with_slash).with(json!({"issuer": with_slash})),
        Case { refused: Some("InvalidClient"), ..Case::new("other-slash", "ES256", &with_slash) },
        Case::new("endpoint", "RS256", &endpoint).with(rules("tokenEndpoint", "RS256")),
        Case::new("text", "PS256", "urn:example:ims").with(rules("urn:example:ims", "PS256")),
        Case::new("es384", "ES384", &issuer).with(rules("issuer", "ES384")),
        Case::new("eddsa", "EdDSA", &issuer).with(rules("issuer", "EdDSA")),
        Case {
            refused: Some("ClientCredentialsInvalid"),
            ..Case::new("key-for-another-algorithm", "ES256", &issuer).with(rules("issuer", "ES384"))
        },
        Case { key_id: Some("key-1"), ..Case::new("key-id", "ES256", &issuer) },
        Case { certificate: true, ..Case::new("certificate", "RS256", &issuer) },
        Case {
            certificate: true,
            key_id: Some("key-1"),
            ..Case::new("certificate-and-key-id", "PS256", &endpoint).with(rules("tokenEndpoint", "PS256"))
        },
    ];
    stream::iter(&cases).map(async |case| case.play(&fixture).await).buffer_unordered(6).try_collect().await
}

#[tokio::test]
async fn audience_of_a_credential_is_that_of_its_token() -> Result<()> {
    const API: &str = "https://chosen.example.com";
    let fixture = RowFixture::new("audience").await?;
    let spec = json!({"audiences": [API], "allowedAudiences": [API]});
    let authority = fixture.create_authority("ims", &spec).await?;
    for (name, spec) in [
        ("chosen", json!({"audience": API})),
        ("default", json!({})),
        ("forbidden", json!({"audience": "https://other.example.com"})),
    ] {
        fixture.create_client_secret(name).await?;
        fixture.create_credential(name, &authority, name, &spec).await?;
    }
    fixture.wait("chosen", "Ready", true, "TokenValid", PATIENCE).await?;
    // the server's own default is for another API
    fixture.wait("default", "Renewed", false, "TokenRejected", PATIENCE).await?;
    let message = fixture.wait("forbidden", "Renewed", false, "AudienceNotAllowed", PATIENCE).await?;
    assert!(message.contains("allowedAudiences"), "{message}");
    assert_eq!(fixture.faulty_requests("forbidden").await?, 0, "refused before any request");
    Ok(())
}
