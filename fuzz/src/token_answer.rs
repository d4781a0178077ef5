//! The answer of a token endpoint: any status, any bytes. The result is a token that fits a header, or a failure whose
//! message does not repeat the answer.

use futures::{FutureExt, future::BoxFuture};
use itwin_api::{authority::ClientAuthentication, credential::GrantType};
use itwin_core::messages_oauth::token::{Names, not_issued};
use itwin_oauth::{
    assertion::{AssertionId, AssertionRules, ID_BYTES},
    identifier::Identifier,
    sensitive::Sensitive,
    token::{self, ClientCredentials, Proof, Server, TokenRequest},
    transport::{Transport, TransportError},
};

use super::on_small_stack;

/// The bytes that select 429 and 500, which `Http` turns into errors.
const LIMITED: u8 = b'~';
const FAILED: u8 = b'!';

/// An answer of the fuzzer's choice. The first byte selects its status.
struct Canned<'a>(u8, &'a [u8]);

impl Transport for Canned<'_> {
    fn send(&self, _: http::Request<Vec<u8>>) -> BoxFuture<'_, Result<http::Response<Vec<u8>>, TransportError>> {
        match self.0 {
            LIMITED => return Box::pin(std::future::ready(Err(TransportError::RateLimited(None, self.1.to_vec())))),
            FAILED => return Box::pin(std::future::ready(Err(TransportError::Server(500, None, self.1.to_vec())))),
            _ => {}
        }
        let status = [200, 200, 200, 201, 204, 400, 401, 403, 404, 418][usize::from(self.0) % 10];
        let answer = http::Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .body(self.1.to_vec())
            .expect("a response");
        Box::pin(async move { Ok(answer) })
    }
}

/// One run of the target.
pub fn run(data: &[u8]) {
    if let Some((status, body)) = data.split_first() {
        on_small_stack(|| answered(*status, body));
    }
}

fn answered(status: u8, body: &[u8]) {
    let request = TokenRequest {
        client: ClientCredentials {
            id: Identifier::Public("id".to_owned()),
            proof: Proof::SecretInBody(Sensitive::new("secret".to_owned())),
            user: None,
        },
        scopes: vec!["itwin-platform".to_owned()],
        resources: Vec::new(),
        audience: None,
    };
    let names = Names {
        authority: "ims".to_owned(),
        client_secret: "team-a/client".to_owned(),
        keys: serde_json::from_str(r#"{"name": "client"}"#).expect("keys"),
        grant_type: GrantType::ClientCredentials,
        method: ClientAuthentication::ClientSecretPost,
        is_endpoint_discovered: false,
    };
    let endpoint = url::Url::parse("https://ims.example.com/token").expect("a URL");
    let server = Server {
        token_endpoint: &endpoint,
        written_token_endpoint: endpoint.as_str(),
        issuer: "https://ims.example.com",
        assertion: &AssertionRules::default(),
    };
    let id = AssertionId::from_random([0; ID_BYTES]);
    let canned = Canned(status, body);
    let answered = token::request(&canned, server, &request, chrono::DateTime::UNIX_EPOCH, &id).now_or_never();
    match answered.expect("nothing to wait for") {
        Ok(response) => {
            let text = response.access_token.expose();
            assert!(!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()));
        }
        // longer than any word of our own messages: then it came from the answer
        Err(error) => {
            let message = not_issued(&error, &names).message;
            assert!(message.contains("ims") && message.len() < 400, "{message}");
        }
    }
}
