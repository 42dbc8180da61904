//! `database.ssl*`: whether the connection to PostgreSQL is encrypted, whom it trusts, and who it says it is.

use std::path::PathBuf;

use super::options::Options;

/// `database.sslmode`, with the meanings of PostgreSQL's Java driver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// Only where the server refuses a connection without.
    Allow,
    /// Where the server has it; Debezium's default.
    #[default]
    Prefer,
    /// Always; whoever answers is believed.
    Require,
    /// Always, with a certificate from an authority that is trusted.
    VerifyCa,
    /// The same, and the certificate is for this host.
    VerifyFull,
}

impl TlsMode {
    /// Whether the server has to show a certificate that is trusted.
    #[must_use]
    pub const fn verifies(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }
}

const MODES: [(&str, TlsMode); 6] = [
    ("disable", TlsMode::Disable),
    ("allow", TlsMode::Allow),
    ("prefer", TlsMode::Prefer),
    ("require", TlsMode::Require),
    ("verify-ca", TlsMode::VerifyCa),
    ("verify-full", TlsMode::VerifyFull),
];

/// The TLS side of a connection to PostgreSQL. Files are read when a connection is made, so that a renewed certificate is
/// taken without a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatabaseTls {
    /// `database.sslmode`.
    pub mode: TlsMode,
    /// `database.sslrootcert`: the authorities that are trusted, PEM; `None`: those of the system.
    pub root_certificates: Option<PathBuf>,
    /// `database.sslcert` and `database.sslkey`: who we say that we are.
    pub client: Option<ClientCertificate>,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM, or DER.
    pub certificate: PathBuf,
    /// PEM, or DER (PKCS#8, as PostgreSQL's Java driver wants it); not encrypted.
    pub key: PathBuf,
}

pub(super) fn read(options: &mut Options<'_>) -> DatabaseTls {
    let mode = match options.text("database.sslmode").filter(|text| !text.is_empty()) {
        None => TlsMode::default(),
        Some(_) => options.choice("database.sslmode", &MODES, TlsMode::default()),
    };
    let root_certificates = file(options, "database.sslrootcert");
    if root_certificates.is_some() && !mode.verifies() {
        options.remark(
            "option `database.sslrootcert` has no effect with this database.sslmode: only verify-ca and verify-full \
             look at the server's certificate"
                .to_owned(),
        );
    }
    DatabaseTls { mode, root_certificates, client: client_certificate(options) }
}

fn client_certificate(options: &mut Options<'_>) -> Option<ClientCertificate> {
    let certificate = file(options, "database.sslcert");
    let key = file(options, "database.sslkey");
    if file(options, "database.sslpassword").is_some() {
        let message = "the relay takes keys without a password; decrypt the key (openssl pkcs8 -topk8 -nocrypt -in \
                       KEY -out PLAIN), let only the relay's user read the file, and remove the option";
        options.refuse("database.sslpassword", None, message.to_owned());
    }
    if let Some(path) = &key
        && path.extension().is_some_and(|end| end == "p12" || end == "pfx")
    {
        let message = "the relay takes PEM and DER, not PKCS#12; write two files (openssl pkcs12 -in FILE -nodes -nocerts \
                       -out KEY, and -clcerts -nokeys -out CERT)";
        let value = Some(path.display().to_string());
        options.refuse("database.sslkey", value, message.to_owned());
    }
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some(ClientCertificate { certificate, key }),
        (None, None) => None,
        (Some(_), None) => {
            let message = "the key of database.sslcert is missing".to_owned();
            options.refuse("database.sslkey", None, message);
            None
        }
        (None, Some(_)) => {
            let message = "the certificate of database.sslkey is missing".to_owned();
            options.refuse("database.sslcert", None, message);
            None
        }
    }
}

fn file(options: &mut Options<'_>, option: &str) -> Option<PathBuf> {
    options.text(option).filter(|text| !text.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::OptionError;
    use super::*;

    fn check(given: &[(&str, &str)]) -> Result<(DatabaseTls, Vec<String>), Vec<OptionError>> {
        let properties: BTreeMap<String, String> =
            given.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let mut options = Options::new(&properties);
        let tls = read(&mut options);
        options.finish().map(|remarks| (tls, remarks))
    }

    fn refused(given: &[(&str, &str)]) -> String {
        let errors = check(given).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        errors[0].option.clone()
    }

    #[test]
    fn every_mode_of_debezium_is_known_and_prefer_is_the_default() {
        assert_eq!(check(&[]).unwrap().0.mode, TlsMode::Prefer);
        assert_eq!(check(&[("database.sslmode", "")]).unwrap().0.mode, TlsMode::Prefer);
        for (word, mode) in MODES {
            assert_eq!(check(&[("database.sslmode", word)]).unwrap().0.mode, mode);
        }
        assert_eq!(refused(&[("database.sslmode", "maybe")]), "database.sslmode");
    }

    #[test]
    fn a_client_certificate_needs_its_key_in_a_form_that_can_be_read() {
        let pair = [("database.sslcert", "/c.pem"), ("database.sslkey", "/k.pk8")];
        assert!(check(&pair).unwrap().0.client.is_some());
        assert_eq!(refused(&pair[..1]), "database.sslkey");
        assert_eq!(refused(&pair[1..]), "database.sslcert");
        let with_password = [pair[0], pair[1], ("database.sslpassword", "hush")];
        let errors = check(&with_password).unwrap_err();
        assert_eq!(errors[0].option, "database.sslpassword");
        assert!(!format!("{errors:?}").contains("hush"));
        let bundle = [pair[0], ("database.sslkey", "/k.p12")];
        assert_eq!(refused(&bundle), "database.sslkey");
    }

    #[test]
    fn authorities_that_nobody_asks_are_told_of() {
        let remarks = |mode| {
            check(&[("database.sslmode", mode), ("database.sslrootcert", "/ca.pem")]).unwrap().1
        };
        assert!(remarks("require")[0].contains("database.sslrootcert"));
        assert!(remarks("verify-ca").is_empty());
    }
}
