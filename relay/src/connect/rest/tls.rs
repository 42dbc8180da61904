//! TLS of the REST API: its certificate, and whose certificates it accepts.

use std::fs;
use std::sync::Arc;

use anyhow::{Context, bail};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::config::{ClientAuthentication, Pem, RestTls};

/// Reads certificates and key, once: a renewed certificate needs a restart.
///
/// # Errors
/// When they cannot be read, or do not fit together.
pub(in crate::connect) fn acceptor(tls: &RestTls) -> anyhow::Result<TlsAcceptor> {
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match &tls.clients {
        None => builder.with_no_client_auth(),
        Some((wanted, authorities)) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(authorities, "truststore")? {
                roots.add(certificate).context("the truststore of the https listener")?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            let verifier = match wanted {
                ClientAuthentication::Requested => verifier.allow_unauthenticated(),
                ClientAuthentication::Required => verifier,
            };
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    let key = PrivateKeyDer::from_pem_slice(&bytes(&tls.key, "keystore")?)
        .context("the keystore of the https listener holds no key without a password (PEM)")?;
    let mut config = builder
        .with_single_cert(certificates(&tls.certificates, "keystore")?, key)
        .context("certificate and key of the https listener do not fit together")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(pem: &Pem, store: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let bytes = bytes(pem, store)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates =
        certificates.with_context(|| format!("the {store} of the https listener is no PEM"))?;
    if certificates.is_empty() {
        bail!("the {store} of the https listener holds no certificate (PEM)");
    }
    Ok(certificates)
}

fn bytes(pem: &Pem, store: &str) -> anyhow::Result<Vec<u8>> {
    match pem {
        Pem::Text(text) => Ok(text.expose().as_bytes().to_vec()),
        Pem::File(path) => fs::read(path).with_context(|| {
            format!("the {store} of the https listener, {}, cannot be read", path.display())
        }),
    }
}
