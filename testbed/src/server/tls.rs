//! Certificates for the servers and clients of a test: an authority made on the spot, and what it signs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::guard::User;

/// An authority that nobody trusts but whoever is given its certificate.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    pub certificate: String,
    /// PKCS#8.
    pub key: String,
    /// The same, DER.
    pub key_der: Vec<u8>,
    /// The certificate of the authority that signed it.
    pub authority: String,
}

impl Authority {
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "testbed authority");
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// Its own certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Signs a certificate for these host names or addresses; a server's name or a client's user is `common_name`.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn issue(&self, common_name: &str, hosts: &[&str]) -> Result<Identity> {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts)?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity {
            certificate,
            key: key.serialize_pem(),
            key_der: key.serialize_der(),
            authority: self.certificate.clone(),
        })
    }
}

/// Files of an identity, as servers want them.
pub(super) struct IdentityFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) authority: PathBuf,
}

/// Writes the files into a folder; the key for its owner alone.
pub(super) fn write(
    identity: &Identity,
    folder: &Path,
    user: Option<User>,
) -> Result<IdentityFiles> {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    let file = |name: &str, content: &str| {
        let path = folder.join(name);
        let written = || {
            fs::write(&path, content)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            match user {
                Some(user) => chown(&path, Some(user.uid), Some(user.gid)),
                None => Ok(()),
            }
        };
        written().with_context(|| format!("write {}", path.display()))?;
        anyhow::Ok(path)
    };
    Ok(IdentityFiles {
        certificate: file("tls.crt", &identity.certificate)?,
        key: file("tls.key", &identity.key)?,
        authority: file("tls-authority.crt", &identity.authority)?,
    })
}
