//! A Kafka broker with locked doors: TLS and SASL listeners beside the open one that the testbed itself uses.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::identity_provider::{IdentityProvider, Trusted};
use super::tls::Identity;
use crate::config::Settings;
use crate::fetch::java;
use crate::name::free_port;

/// What the locked doors ask for.
#[derive(Debug, Clone)]
pub struct KafkaSecurity {
    /// The broker's; clients' certificates are checked against its authority.
    pub identity: Identity,
    /// Who may come in, with PLAIN and both kinds of SCRAM.
    pub user: String,
    pub password: String,
    /// Certificates of clients that are trusted beside those of the authority, PEM.
    trusted: String,
    /// Whose tokens open the doors with a login, too.
    tokens: Option<Trusted>,
    ports: Ports,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    sasl_ssl: u16,
    sasl_plaintext: u16,
    ssl: u16,
}

impl KafkaSecurity {
    /// Doors on free ports.
    #[must_use]
    pub fn new(identity: Identity, user: &str, password: &str) -> Self {
        let ports = Ports { sasl_ssl: free_port(), sasl_plaintext: free_port(), ssl: free_port() };
        let (user, password) = (user.to_owned(), password.to_owned());
        Self { identity, user, password, trusted: String::new(), tokens: None, ports }
    }

    /// Lets a client in that has this certificate (PEM).
    #[must_use]
    pub fn trust(mut self, certificate: &str) -> Self {
        self.trusted.push_str(certificate);
        self
    }

    /// Lets clients in that show a token of this provider (OAUTHBEARER), for as long as the token is good.
    #[must_use]
    pub fn trust_tokens(mut self, provider: &IdentityProvider) -> Self {
        self.tokens = Some(provider.trusted());
        self
    }

    /// `localhost:port` of TLS with SASL: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, OAUTHBEARER where tokens are trusted.
    #[must_use]
    pub fn sasl_ssl(&self) -> String {
        format!("localhost:{}", self.ports.sasl_ssl)
    }

    /// The same without TLS.
    #[must_use]
    pub fn sasl_plaintext(&self) -> String {
        format!("localhost:{}", self.ports.sasl_plaintext)
    }

    /// `localhost:port` of TLS that asks clients for a certificate of the authority.
    #[must_use]
    pub fn ssl(&self) -> String {
        format!("localhost:{}", self.ports.ssl)
    }

    /// The listeners behind the broker's own, each with a comma before it.
    pub(super) fn listeners(&self, host: &str) -> String {
        let Ports { sasl_ssl, sasl_plaintext, ssl } = self.ports;
        format!(
            ",SASL_SSL://{host}:{sasl_ssl},SASL_PLAINTEXT://{host}:{sasl_plaintext},SSL://{host}:{ssl}"
        )
    }

    /// What the broker's configuration has more; files go into `folder`.
    pub(super) fn properties(&self, folder: &Path) -> Result<String> {
        const MODULES: &str = "org.apache.kafka.common.security";
        let store = folder.join("tls-store.pem");
        std::fs::write(&store, format!("{}{}", self.identity.key, self.identity.certificate))?;
        let trusted = folder.join("tls-trusted.pem");
        std::fs::write(&trusted, format!("{}{}", self.identity.authority, self.trusted))?;
        let mut text = format!(
            "ssl.keystore.type=PEM\nssl.keystore.location={}\n\
             ssl.truststore.type=PEM\nssl.truststore.location={}\n\
             listener.name.ssl.ssl.client.auth=required\n\
             sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n",
            store.display(),
            trusted.display(),
        );
        let Self { user, password, .. } = self;
        for listener in ["sasl_ssl", "sasl_plaintext"] {
            for (mechanism, module) in [
                ("plain", format!("plain.PlainLoginModule required user_{user}=\"{password}\"")),
                ("scram-sha-256", "scram.ScramLoginModule required".to_owned()),
                ("scram-sha-512", "scram.ScramLoginModule required".to_owned()),
            ] {
                let name = format!("listener.name.{listener}.{mechanism}.sasl.jaas.config");
                writeln!(text, "{name}={MODULES}.{module};")?;
            }
        }
        if let Some(tokens) = &self.tokens {
            text.push_str(&accept_tokens(tokens, folder)?);
        }
        Ok(text)
    }

    /// Options of the broker's Java: it reads keys for tokens from nowhere that it is not told.
    pub(super) fn java_options(&self, folder: &Path) -> Vec<OsString> {
        let Some(_) = self.tokens else { return Vec::new() };
        let keys = folder.join(TOKEN_KEYS);
        let allowed = "-Dorg.apache.kafka.sasl.oauthbearer.allowed";
        vec![
            format!("{allowed}.urls=file://{}", keys.display()).into(),
            format!("{allowed}.files={}", keys.display()).into(),
        ]
    }

    /// Arguments with which the storage tool writes the SCRAM credentials.
    pub(super) fn credentials(&self) -> Vec<String> {
        let Self { user, password, .. } = self;
        let add = |mechanism: &str| {
            ["--add-scram".to_owned(), format!("{mechanism}=[name={user},password={password}]")]
        };
        ["SCRAM-SHA-256", "SCRAM-SHA-512"].into_iter().flat_map(add).collect()
    }
}

const TOKEN_KEYS: &str = "token-keys.json";

/// The broker's own validator of tokens, with the keys in a file.
fn accept_tokens(tokens: &Trusted, folder: &Path) -> Result<String> {
    const PACKAGE: &str = "org.apache.kafka.common.security.oauthbearer";
    let keys = folder.join(TOKEN_KEYS);
    std::fs::write(&keys, &tokens.keys)?;
    let keys = keys.display();
    let Trusted { issuer, audience, .. } = tokens;
    // Of two lines of one name the later counts.
    let mut text =
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER\n".to_owned();
    for listener in ["sasl_ssl", "sasl_plaintext"] {
        let name = format!("listener.name.{listener}.oauthbearer");
        writeln!(
            text,
            "{name}.sasl.jaas.config={PACKAGE}.OAuthBearerLoginModule required;\n\
             {name}.sasl.server.callback.handler.class={PACKAGE}.OAuthBearerValidatorCallbackHandler\n\
             {name}.sasl.oauthbearer.jwks.endpoint.url=file://{keys}\n\
             {name}.sasl.oauthbearer.expected.issuer={issuer}\n\
             {name}.sasl.oauthbearer.expected.audience={audience}\n\
             {name}.connections.max.reauth.ms=3600000"
        )?;
    }
    Ok(text)
}

/// Makes a PKCS#12 keystore with a key and its own certificate, as Java's keytool does. Returns its path and the
/// certificate (PEM). Blocks.
///
/// # Errors
/// When there is no keytool beside Java, or it fails.
pub fn client_keystore(
    settings: &Settings,
    folder: &Path,
    password: &str,
) -> Result<(PathBuf, String)> {
    let keytool = java(settings)?.with_file_name("keytool");
    let keytool = if keytool.is_file() { keytool } else { PathBuf::from("keytool") };
    let store = folder.join("client.p12");
    let run = |arguments: &[&str]| {
        let output = Command::new(&keytool)
            .args(arguments)
            .args(["-alias", "client", "-storepass", password, "-keystore"])
            .arg(&store)
            .stdin(Stdio::null())
            .output()
            .context("run keytool")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(output.status.success(), "keytool: {}", text(&output.stdout));
        Ok(text(&output.stdout))
    };
    run(&["-genkeypair", "-keyalg", "EC", "-storetype", "PKCS12", "-dname", "CN=client"])?;
    let certificate = run(&["-exportcert", "-rfc"])?;
    Ok((store, certificate))
}
