//! What a status shows of an endpoint that a discovery document names.

use url::Url;

use crate::shown::REDACTED;

/// The parts of the paths under which servers offer these endpoints.
const PATH_PARTS: [&str; 37] = [
    ".well-known",
    "access_token",
    "adfs",
    "api",
    "as",
    "auth",
    "certs",
    "common",
    "connect",
    "default",
    "discovery",
    "idp",
    "jwk",
    "jwk_uri",
    "jwks",
    "jwks.json",
    "jwks_uri",
    "keys",
    "oauth",
    "oauth2",
    "oidc",
    "openid",
    "openid-configuration",
    "openid-connect",
    "openid_connect",
    "op",
    "protocol",
    "public",
    "realms",
    "token",
    "token.oauth2",
    "token_endpoint",
    "v1",
    "v1.0",
    "v2",
    "v2.0",
    "v3",
];
/// A path of more parts is not shown.
const PATH_PARTS_MAX: usize = 10;

/// An endpoint that the document of `issuer` names, for a status: the origin, which is the issuer's, and of the path the
/// parts that the issuer or the usual endpoints have.
///
/// A server that was sent client secrets may name another path at the next discovery, with a secret in it. All clients use
/// the endpoint, so that there is no list of secrets to compare it with.
#[must_use]
pub fn shown(endpoint: &Url, issuer: &str) -> String {
    let issuer = Url::parse(issuer).ok();
    let own: Vec<&str> = issuer.iter().flat_map(|issuer| issuer.path().split('/')).collect();
    let is_usual = |part: &&str| own.contains(part) || PATH_PARTS.contains(part);
    let parts = || endpoint.path().split('/').skip(1);
    let path: Vec<&str> = if parts().count() > PATH_PARTS_MAX {
        vec![REDACTED]
    } else {
        parts().map(|part| if part.is_empty() || is_usual(&part) { part } else { REDACTED }).collect()
    };
    let query = endpoint.query().map(|_| format!("?{REDACTED}")).unwrap_or_default();
    format!("{}/{}{query}", endpoint.origin().ascii_serialization(), path.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "https://ims.example.com";

    #[test]
    fn path_of_an_endpoint_is_shown_if_it_is_a_usual_one() {
        let shown = |issuer: &str, endpoint: &str| shown(&Url::parse(endpoint).expect("a URL"), issuer);
        for (issuer, endpoint) in [
            (ISSUER, "https://ims.example.com/connect/token"),
            (ISSUER, "https://ims.example.com/.well-known/openid-configuration/jwks"),
            (ISSUER, "https://ims.example.com/.well-known/jwks.json"),
            (ISSUER, "https://ims.example.com/"),
            (
                "https://idp.example.com/realms/a-realm",
                "https://idp.example.com/realms/a-realm/protocol/openid-connect/certs",
            ),
            ("https://idp.example.com/a-tenant/v2.0", "https://idp.example.com/a-tenant/oauth2/v2.0/token"),
            ("https://idp.example.com:8443/oauth2/x", "https://idp.example.com:8443/oauth2/x/v1/keys"),
        ] {
            assert_eq!(shown(issuer, endpoint), endpoint);
        }
    }

    #[test]
    fn nothing_else_of_an_endpoint_is_shown() {
        let shown = |path: &str| shown(&Url::parse(&format!("{ISSUER}{path}")).expect("a URL"), ISSUER);
        for (path, expected) in [
            ("/connect/hunter2/token", "/connect/[redacted]/token"),
            ("/connect/token/hunter2", "/connect/token/[redacted]"),
            ("/connect%2Fhunter2/Token", "/[redacted]/[redacted]"),
            ("/connect/token?hunter2", "/connect/token?[redacted]"),
            ("/token/token/token/token/token/token/token/token/token/token/token", "/[redacted]"),
        ] {
            assert_eq!(shown(path), format!("{ISSUER}{expected}"), "{path}");
        }
    }
}
