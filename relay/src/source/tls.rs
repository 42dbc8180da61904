//! TLS to PostgreSQL: asks the server for it, and checks whom it talks to, as `database.sslmode` says.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{self, CryptoProvider};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use super::channel_binding;
use super::error::SourceError;
use super::socket::Socket;
use super::transport::Transport;
use crate::connector_config::{ClientCertificate, DatabaseConfig, DatabaseTls, TlsMode};

/// SQLSTATE of a server whose pg_hba.conf has no line for such a connection: with the other kind there may be one.
const NO_ENTRY: &str = "28000";

/// Whether one attempt to connect is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encryption {
    Never,
    WhereOffered,
    Always,
}

/// The attempts that a mode makes: the second only after [`is_worth_another`].
pub(super) const fn attempts(mode: TlsMode) -> (Encryption, Option<Encryption>) {
    match mode {
        TlsMode::Disable => (Encryption::Never, None),
        TlsMode::Allow => (Encryption::Never, Some(Encryption::Always)),
        TlsMode::Prefer => (Encryption::WhereOffered, Some(Encryption::Never)),
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => (Encryption::Always, None),
    }
}

/// Whether the server refused the kind of the connection and may take the other, as PostgreSQL's Java driver sees it.
pub(super) fn is_worth_another(error: &SourceError) -> bool {
    matches!(error, SourceError::Server { error, .. } if error.code == NO_ENTRY)
}

/// Encrypts a fresh connection as far as asked for. The bytes are the channel binding, where there can be one.
pub(super) async fn encrypt(
    mut socket: Socket,
    address: &str,
    database: &DatabaseConfig,
    encryption: Encryption,
) -> Result<(Transport, Option<Vec<u8>>), SourceError> {
    if encryption == Encryption::Never || !is_offered(&mut socket, address).await? {
        if encryption == Encryption::Always {
            let reason = "the server has no TLS; turn it on there (ssl = on), or set database.sslmode to prefer or \
                          disable";
            return Err(failed(address, reason.to_owned()));
        }
        return Ok((Transport::Plain(socket), None));
    }
    let config = {
        let tls = database.tls.clone();
        // Reads files: the system's certificates are a few hundred.
        let loading = tokio::task::spawn_blocking(move || client_config(&tls));
        let loaded = loading.await.map_err(|error| failed(address, error.to_string()))?;
        loaded.map_err(|reason| failed(address, reason))?
    };
    let name = match ServerName::try_from(database.host.clone()) {
        Ok(name) => name,
        // Nobody compares it.
        Err(_) if !database.tls.mode.verifies() => {
            ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())
        }
        Err(_) => {
            let reason = format!("{} is not a name that a certificate can hold", database.host);
            return Err(failed(address, reason));
        }
    };
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, socket);
    let stream = connecting.await.map_err(|error| broken("connect to", address, error))?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let binding = certificates.first().and_then(|own| channel_binding::end_point(own));
    Ok((Transport::Tls(Box::new(stream)), binding))
}

/// Asks for TLS. The answer is one byte, and no more is read here: what follows it must come through TLS.
async fn is_offered(socket: &mut Socket, address: &str) -> Result<bool, SourceError> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    let asked = async {
        socket.write_all(&request).await?;
        socket.read_u8().await
    };
    match asked.await {
        Ok(b'S') => Ok(true),
        Ok(b'N') => Ok(false),
        // An error before anything else, such as a server that cannot start a process: nobody vouches for its words.
        Ok(b'E') => Err(SourceError::Closed { address: address.to_owned() }),
        Ok(other) => Err(SourceError::Protocol(format!("byte {other} in answer to SSLRequest"))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(SourceError::Closed { address: address.to_owned() })
        }
        Err(error) => Err(broken("connect to", address, error)),
    }
}

/// An error of the transport: where the two sides do not agree somebody has to help, anything else may pass.
pub(super) fn broken(doing: &'static str, address: &str, source: io::Error) -> SourceError {
    match source.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(
            error @ (Error::InvalidCertificate(_)
            | Error::AlertReceived(_)
            | Error::PeerIncompatible(_)),
        ) => failed(address, explained(error)),
        _ => SourceError::Io { doing, address: address.to_owned(), source },
    }
}

fn failed(address: &str, reason: String) -> SourceError {
    SourceError::Tls { address: address.to_owned(), reason }
}

/// What an error means for whoever has to mend it.
fn explained(error: &Error) -> String {
    let Error::InvalidCertificate(problem) = error else { return error.to_string() };
    let advice = match problem {
        CertificateError::UnknownIssuer => {
            "no authority that is trusted here has signed it; give the one that has in database.sslrootcert"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another host; write database.hostname as the certificate has it (as subjectAltName), or accept \
             any host of the authority with database.sslmode=verify-ca"
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => "renew it, or look at the clocks",
        CertificateError::Other(OtherError(_)) | CertificateError::BadEncoding => {
            "the server needs a certificate of its own, of X.509 version 3 and not that of an authority (CA:FALSE)"
        }
        _ => "look at the server's ssl_cert_file and at database.sslrootcert",
    };
    format!("the server's certificate is refused: {problem}; {advice}")
}

/// What the connection's handshake works with; reads the files.
fn client_config(tls: &DatabaseTls) -> Result<ClientConfig, String> {
    let provider = Arc::new(crypto::ring::default_provider());
    let chain = match tls.mode.verifies() {
        false => None,
        true => {
            let roots = Arc::new(roots(tls.root_certificates.as_deref())?);
            let builder = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
            Some(builder.build().map_err(|error| error.to_string())?)
        }
    };
    let is_named = tls.mode == TlsMode::VerifyFull;
    let verifier = Arc::new(Verifier { chain, is_named, provider: Arc::clone(&provider) });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match &tls.client {
        None => Ok(config.with_no_client_auth()),
        Some(client) => {
            let (certificates, key) = client_certificate(client)?;
            config.with_client_auth_cert(certificates, key).map_err(|error| {
                format!("database.sslcert and database.sslkey do not fit together: {error}")
            })
        }
    }
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, String> {
    let certificates = match file {
        Some(path) => certificates("database.sslrootcert", path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    // A system's store may hold one that is too old to be read; the others count.
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        return Err(match file {
            Some(path) => {
                format!("database.sslrootcert: {} holds no certificate", path.display())
            }
            None => "this system trusts no authority; give one in database.sslrootcert".to_owned(),
        });
    }
    Ok(roots)
}

fn client_certificate(
    client: &ClientCertificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let certificates = certificates("database.sslcert", &client.certificate)?;
    let bytes = bytes("database.sslkey", &client.key)?;
    let key = match PrivateKeyDer::from_pem_slice(&bytes) {
        Ok(key) => key,
        Err(_) if is_pem(&bytes) => {
            return Err(format!(
                "database.sslkey: {} holds no key that can be read; it is PEM or DER without a password \
                 (openssl pkcs8 -topk8 -nocrypt -in KEY -out PLAIN)",
                client.key.display()
            ));
        }
        Err(_) => PrivateKeyDer::try_from(bytes).map_err(|_| {
            format!(
                "database.sslkey: {} is neither PEM nor a key in DER (PKCS#8) without a password",
                client.key.display()
            )
        })?,
    };
    Ok((certificates, key))
}

/// The certificates of a file: PEM, or a single one as DER.
fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = bytes(option, path)?;
    if !is_pem(&bytes) {
        return Ok(vec![CertificateDer::from(bytes)]);
    }
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates =
        read.map_err(|error| format!("{option}: {} is no PEM: {error}", path.display()))?;
    if certificates.is_empty() {
        return Err(format!("{option}: {} holds no certificate", path.display()));
    }
    Ok(certificates)
}

fn bytes(option: &str, path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path)
        .map_err(|error| format!("{option}: {} cannot be read: {error}", path.display()))
}

fn is_pem(bytes: &[u8]) -> bool {
    bytes.windows(b"-----BEGIN ".len()).any(|window| window == b"-----BEGIN ")
}

/// Checks the server's certificate as far as the mode asks for.
#[derive(Debug)]
struct Verifier {
    /// `None`: any certificate will do.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// Whether it has to be for the host that was dialled.
    is_named: bool,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// Who accepts any certificate accepts one that rustls cannot read, too (version 1, as old instructions make it). A
    /// signature that is wrong is refused all the same: the channel binding counts on the server having the key.
    fn signed(
        &self,
        verified: Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        match verified {
            Err(Error::InvalidCertificate(
                CertificateError::BadEncoding | CertificateError::Other(_),
            )) if self.chain.is_none() => Ok(HandshakeSignatureValid::assertion()),
            other => other,
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // The name is looked at last: the rest was in order.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.is_named => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        self.signed(crypto::verify_tls12_signature(message, certificate, signature, algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        self.signed(crypto::verify_tls13_signature(message, certificate, signature, algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
