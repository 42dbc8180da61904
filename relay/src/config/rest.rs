//! Who may call the REST API, and how: TLS, users and tokens, other origins.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{ConfigError, Reader, cut_prefix, error, split_list, variable, variable_of};
use crate::secret::Secret;

/// Kafka Connect's extension for users and passwords; the relay has that without Java.
const BASIC_AUTH_EXTENSION: &str = "BasicAuthSecurityRestExtension";

/// What settings of the HTTPS listener begin with. If there is one of them, none without the prefix counts.
const HTTPS_PREFIX: &str = "listeners.https.";

/// Methods that another origin may use where none are named, as in Kafka Connect.
const METHODS_DEFAULT: &str = "GET,POST,HEAD";

/// Who may call the REST API, and how. By default everybody who reaches it, without TLS, from no other origin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestConfig {
    /// `listeners=https://...`.
    pub tls: Option<RestTls>,
    /// `RELAY_REST_USERS_FILE`.
    pub users_file: Option<PathBuf>,
    /// `RELAY_REST_TOKENS_FILE`.
    pub tokens_file: Option<PathBuf>,
    /// `access.control.allow.origin` and `.methods`.
    pub cross_origin: CrossOrigin,
}

/// The certificate of the REST API, and whose certificates it accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestTls {
    /// Our certificate, with those between it and the authority.
    pub certificates: Pem,
    /// Its key, without a password.
    pub key: Pem,
    /// Whether callers show a certificate, and the authorities that may have signed it.
    pub clients: Option<(ClientAuthentication, Pem)>,
}

/// PEM: in a file, or as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pem {
    /// A path.
    File(PathBuf),
    /// The text, which may be a key.
    Text(Secret),
}

/// `ssl.client.auth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// A certificate that is shown must be good.
    Requested,
    /// Without one nobody gets in.
    Required,
}

/// Which pages of other origins a browser lets call the API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CrossOrigin {
    /// Origins such as `https://console.example`, or `*`; empty: none.
    pub origins: Vec<String>,
    /// Methods, with commas between.
    pub methods: String,
}

impl Reader {
    /// Whether the first listener is encrypted, and its address.
    pub(super) fn listener(&self) -> Result<Option<(bool, &str)>, ConfigError> {
        let Some(listeners) = self.text("listeners") else { return Ok(None) };
        let first = split_list(listeners).next().unwrap_or_default();
        let (scheme, address) = first.split_once("://").unwrap_or_default();
        match scheme.to_ascii_lowercase().as_str() {
            "http" => Ok(Some((false, address))),
            "https" => Ok(Some((true, address))),
            _ => Err(error(
                "CONNECT_LISTENERS",
                format!("{first}: write http://host:port or https://host:port"),
            )),
        }
    }

    pub(super) fn rest(&self) -> Result<RestConfig, ConfigError> {
        let file = |name: &str| self.variable(name).map(PathBuf::from);
        let is_encrypted = self.listener()?.is_some_and(|(is_encrypted, _)| is_encrypted);
        let config = RestConfig {
            tls: is_encrypted.then(|| self.rest_tls()).transpose()?,
            users_file: file(variable::RELAY_REST_USERS_FILE),
            tokens_file: file(variable::RELAY_REST_TOKENS_FILE),
            cross_origin: CrossOrigin {
                origins: split_list(self.text("access.control.allow.origin").unwrap_or_default())
                    .map(str::to_owned)
                    .collect(),
                methods: self
                    .text("access.control.allow.methods")
                    .unwrap_or(METHODS_DEFAULT)
                    .to_owned(),
            },
        };
        // Somebody who has asked for a lock must not get an open door.
        for class in split_list(self.text("rest.extension.classes").unwrap_or_default()) {
            let problem = match class.ends_with(BASIC_AUTH_EXTENSION) {
                true if config.users_file.is_some() => continue,
                true => {
                    "set RELAY_REST_USERS_FILE to the file of its login module (a line user=password for each user)"
                }
                false => "the relay loads no Java class; remove it",
            };
            return Err(error("CONNECT_REST_EXTENSION_CLASSES", format!("{class}: {problem}")));
        }
        Ok(config)
    }

    fn rest_tls(&self) -> Result<RestTls, ConfigError> {
        let own = cut_prefix(&self.properties, HTTPS_PREFIX);
        let prefix =
            if own.keys().any(|name| name.starts_with("ssl.")) { HTTPS_PREFIX } else { "" };
        let settings = if prefix.is_empty() { &self.properties } else { &own };
        let store = Store { settings, prefix };
        let keystore = store.pem("ssl.keystore.location", "ssl.keystore.type")?;
        let chain = store.text("ssl.keystore.certificate.chain");
        let key = store.text("ssl.keystore.key");
        let (certificates, key) = match (keystore, chain, key) {
            (Some(file), None, None) => (file.clone(), file),
            (None, Some(chain), Some(key)) => (chain, key),
            _ => {
                return Err(store.refuse(
                    "ssl.keystore.location",
                    "an https listener needs a PEM file with its key and certificate here (or \
                     ssl.keystore.certificate.chain and ssl.keystore.key)",
                ));
            }
        };
        if store.get("ssl.key.password").is_some() {
            return Err(store.refuse("ssl.key.password", "the relay takes keys without a password"));
        }
        let authorities = match store.text("ssl.truststore.certificates") {
            Some(text) => Some(text),
            None => store.pem("ssl.truststore.location", "ssl.truststore.type")?,
        };
        let wanted = match store.get("ssl.client.auth").unwrap_or("none") {
            "none" => None,
            "requested" => Some(ClientAuthentication::Requested),
            "required" => Some(ClientAuthentication::Required),
            _ => return Err(store.refuse("ssl.client.auth", "it is none, requested or required")),
        };
        let clients = match (wanted, authorities) {
            (None, _) => None,
            (Some(wanted), Some(authorities)) => Some((wanted, authorities)),
            (Some(_), None) => {
                let problem = "who may sign callers' certificates is missing: a PEM file";
                return Err(store.refuse("ssl.truststore.location", problem));
            }
        };
        Ok(RestTls { certificates, key, clients })
    }
}

/// Settings `ssl.*` of the listener.
struct Store<'a> {
    settings: &'a BTreeMap<String, String>,
    prefix: &'static str,
}

impl Store<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let value = self.settings.get(name);
        value.map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Option<Pem> {
        self.get(name).map(|text| Pem::Text(Secret::new(text.to_owned())))
    }

    /// A store that is a PEM file; Java's own kinds cannot be read.
    fn pem(&self, location: &str, kind: &str) -> Result<Option<Pem>, ConfigError> {
        let Some(path) = self.get(location).map(PathBuf::from) else { return Ok(None) };
        let by_name = || path.extension().is_some_and(|end| end == "pem" || end == "crt");
        let is_pem = self.get(kind).map_or_else(by_name, |kind| kind.eq_ignore_ascii_case("PEM"));
        if !is_pem {
            let problem = format!(
                "{}: the relay takes PEM here; turn the store into PEM (openssl pkcs12 -in STORE -nodes -out FILE) and \
                 set {kind} to PEM",
                path.display()
            );
            return Err(self.refuse(location, &problem));
        }
        Ok(Some(Pem::File(path)))
    }

    fn refuse(&self, name: &str, problem: &str) -> ConfigError {
        error(&variable_of(&format!("{}{name}", self.prefix)), problem)
    }
}
