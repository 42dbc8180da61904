//! An identity provider on its smallest: one endpoint that gives signed tokens to one client, by the rules of OAuth 2
//! (client credentials, RFC 6749 section 4.4), and the key that a broker checks them with.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

use super::tls::Identity;
use crate::name::unique_name;

const KEY_ID: &str = "testbed";
/// A client that says nothing must not keep others waiting.
const HANDSHAKE_BOUND: Duration = Duration::from_secs(10);

/// An endpoint for tokens. Dropping it closes it.
pub struct IdentityProvider {
    shared: Arc<Shared>,
    url: String,
    task: JoinHandle<()>,
}

/// Who may have a token, and how long it is good.
#[derive(Debug, Clone)]
pub struct TokenClient {
    /// How it is known to the provider.
    pub id: String,
    /// What it proves that with.
    pub secret: String,
    /// How long its tokens are good.
    pub life: Duration,
}

impl TokenClient {
    /// A client with a name and a secret of its own.
    #[must_use]
    pub fn new(life: Duration) -> Self {
        Self { id: unique_name("client"), secret: unique_name("secret"), life }
    }
}

/// What a broker has to know of an identity provider.
#[derive(Debug, Clone)]
pub(super) struct Trusted {
    /// Its keys, as a JSON Web Key Set.
    pub(super) keys: String,
    pub(super) issuer: String,
    pub(super) audience: String,
}

struct Shared {
    client: TokenClient,
    key: EcdsaKeyPair,
    random: SystemRandom,
    trusted: Trusted,
    issued: AtomicUsize,
    scopes: Mutex<Vec<String>>,
}

impl IdentityProvider {
    /// Opens the endpoint on a free port; with a certificate it speaks TLS.
    ///
    /// # Errors
    /// When the certificate is none, or the system has no port or no random numbers.
    pub async fn start(client: TokenClient, identity: Option<&Identity>) -> Result<Self> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let failed = |_| anyhow!("no key can be made");
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(failed)?;
        let key = EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random)
            .map_err(|error| anyhow!("the key is refused: {error}"))?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let scheme = if identity.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://localhost:{}", listener.local_addr()?.port());
        let trusted = Trusted {
            keys: key_set(key.public_key().as_ref()),
            issuer: url.clone(),
            audience: unique_name("kafka"),
        };
        let shared = Shared {
            client,
            key,
            random,
            trusted,
            issued: AtomicUsize::new(0),
            scopes: Mutex::default(),
        };
        let shared = Arc::new(shared);
        let router = Router::new().route("/token", post(token)).with_state(Arc::clone(&shared));
        let tls = identity.map(acceptor).transpose()?;
        let task = tokio::spawn(async move {
            // It ends with the task alone.
            let _ = match tls {
                Some(tls) => axum::serve(TlsListener { listener, tls }, router).await,
                None => axum::serve(listener, router).await,
            };
        });
        Ok(Self { shared, url, task })
    }

    /// Where tokens are asked for.
    #[must_use]
    pub fn token_url(&self) -> String {
        format!("{}/token", self.url)
    }

    /// Who may have tokens.
    #[must_use]
    pub fn client(&self) -> &TokenClient {
        &self.shared.client
    }

    /// Tokens given so far.
    #[must_use]
    pub fn issued(&self) -> usize {
        self.shared.issued.load(Ordering::SeqCst)
    }

    /// The scopes that were asked for so far, one for each token.
    #[must_use]
    pub fn scopes(&self) -> Vec<String> {
        self.shared.scopes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn trusted(&self) -> Trusted {
        self.shared.trusted.clone()
    }
}

impl Drop for IdentityProvider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Deserialize)]
struct Asked {
    grant_type: String,
    #[serde(default)]
    scope: String,
}

async fn token(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: String) -> Response {
    // A form and a query are written alike; what is not encoded as such is no URI.
    let asked = format!("/?{body}").parse::<Uri>().ok();
    let asked = asked.and_then(|uri| Query::<Asked>::try_from_uri(&uri).ok());
    let Some(Query(asked)) = asked.filter(|asked| asked.grant_type == "client_credentials") else {
        return refused(StatusCode::BAD_REQUEST, "invalid_request");
    };
    let TokenClient { id, secret, .. } = &shared.client;
    let expected = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    if headers
        .get(header::AUTHORIZATION)
        .is_none_or(|given| given.as_bytes() != expected.as_bytes())
    {
        return refused(StatusCode::UNAUTHORIZED, "invalid_client");
    }
    let Ok(token) = shared.sign(&asked.scope) else {
        return refused(StatusCode::INTERNAL_SERVER_ERROR, "server_error");
    };
    shared.scopes.lock().unwrap_or_else(PoisonError::into_inner).push(asked.scope);
    shared.issued.fetch_add(1, Ordering::SeqCst);
    Json(json!({
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": shared.client.life.as_secs(),
    }))
    .into_response()
}

fn refused(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({"error": error}))).into_response()
}

impl Shared {
    /// A token (RFC 7519), signed with ES256.
    fn sign(&self, scope: &str) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let head = json!({"alg": "ES256", "typ": "JWT", "kid": KEY_ID});
        let claims = json!({
            "iss": self.trusted.issuer,
            "aud": self.trusted.audience,
            "sub": self.client.id,
            // A provider has a scope for those who ask for none; a broker takes no empty one.
            "scope": if scope.is_empty() { "default" } else { scope },
            "iat": now.as_secs(),
            "exp": (now + self.client.life).as_secs(),
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&head), part(&claims));
        let signature = self.key.sign(&self.random, signed.as_bytes());
        let signature = signature.map_err(|_| anyhow!("the token cannot be signed"))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// A point on the curve is a byte that says "uncompressed", and two numbers.
fn key_set(point: &[u8]) -> String {
    let (x, y) = point[1..].split_at(point.len() / 2);
    let [x, y] = [x, y].map(|number| URL_SAFE_NO_PAD.encode(number));
    let key = json!({
        "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KEY_ID, "x": x, "y": y,
    });
    json!({"keys": [key]}).to_string()
}

fn acceptor(identity: &Identity) -> Result<TlsAcceptor> {
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes())?;
    let key = PrivateKeyDer::try_from(identity.key_der.clone()).map_err(|error| anyhow!(error))?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.into_owned()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

struct TlsListener {
    listener: TcpListener,
    tls: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
            let shaken = tokio::time::timeout(HANDSHAKE_BOUND, self.tls.accept(stream)).await;
            // A client that does not trust us hangs up.
            if let Ok(Ok(stream)) = shaken {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
