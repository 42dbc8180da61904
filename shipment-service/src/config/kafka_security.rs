//! How to come in where Kafka asks who we are: TLS and SASL, in librdkafka's terms.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;

use super::ConfigError;

const SECURITY_PROTOCOL: &str = "KAFKA_SECURITY_PROTOCOL";
const SASL_MECHANISM: &str = "KAFKA_SASL_MECHANISM";
const SASL_USERNAME: &str = "KAFKA_SASL_USERNAME";
const SASL_PASSWORD: &str = "KAFKA_SASL_PASSWORD";
const SASL_PASSWORD_FILE: &str = "KAFKA_SASL_PASSWORD_FILE";
const SSL_CA_LOCATION: &str = "KAFKA_SSL_CA_LOCATION";
const SSL_CERTIFICATE_LOCATION: &str = "KAFKA_SSL_CERTIFICATE_LOCATION";
const SSL_KEY_LOCATION: &str = "KAFKA_SSL_KEY_LOCATION";
const SSL_KEY_PASSWORD: &str = "KAFKA_SSL_KEY_PASSWORD";

/// Settings of every Kafka client of this service. Shows their names alone.
#[derive(Clone, Default)]
pub(crate) struct KafkaSecurity(BTreeMap<&'static str, String>);

impl KafkaSecurity {
    /// Adds the settings to a client's.
    pub(crate) fn apply(&self, client: &mut ClientConfig) {
        for (name, value) in &self.0 {
            client.set(*name, value);
        }
    }

    pub(super) fn read(get: &impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut settings = BTreeMap::new();
        let protocol = get(SECURITY_PROTOCOL).unwrap_or_else(|| "PLAINTEXT".to_owned());
        let (has_tls, has_sasl) = match protocol.to_ascii_uppercase().as_str() {
            "PLAINTEXT" => return Ok(Self::default()),
            "SSL" => (true, false),
            "SASL_PLAINTEXT" => (false, true),
            "SASL_SSL" => (true, true),
            _ => {
                return Err(ConfigError::new(
                    SECURITY_PROTOCOL,
                    format!(
                        "is `{protocol}`; set it to PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"
                    ),
                ));
            }
        };
        settings.insert("security.protocol", protocol.to_ascii_lowercase());
        if has_sasl {
            read_login(get, &mut settings)?;
        }
        if has_tls {
            // By default the system's authorities, wherever it keeps them.
            let authorities = get(SSL_CA_LOCATION).unwrap_or_else(|| "probe".to_owned());
            settings.insert("ssl.ca.location", authorities);
            match (get(SSL_CERTIFICATE_LOCATION), get(SSL_KEY_LOCATION)) {
                (None, None) => {}
                (Some(certificate), Some(key)) => {
                    settings.insert("ssl.certificate.location", certificate);
                    settings.insert("ssl.key.location", key);
                    settings.extend(get(SSL_KEY_PASSWORD).map(|word| ("ssl.key.password", word)));
                }
                (Some(_), None) => {
                    let problem = "is not set; name the file of the certificate's key (PEM)";
                    return Err(ConfigError::new(SSL_KEY_LOCATION, problem));
                }
                (None, Some(_)) => {
                    let problem = "is not set; name the file of the key's certificate (PEM)";
                    return Err(ConfigError::new(SSL_CERTIFICATE_LOCATION, problem));
                }
            }
        }
        Ok(Self(settings))
    }
}

fn read_login(
    get: &impl Fn(&str) -> Option<String>,
    settings: &mut BTreeMap<&'static str, String>,
) -> Result<(), ConfigError> {
    const MECHANISMS: &str = "set it to PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512";
    let mechanism = get(SASL_MECHANISM)
        .ok_or_else(|| ConfigError::new(SASL_MECHANISM, format!("is not set; {MECHANISMS}")))?;
    let mechanism = mechanism.to_ascii_uppercase();
    if !["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"].contains(&mechanism.as_str()) {
        return Err(ConfigError::new(SASL_MECHANISM, format!("is `{mechanism}`; {MECHANISMS}")));
    }
    settings.insert("sasl.mechanism", mechanism);
    let user = get(SASL_USERNAME)
        .ok_or_else(|| ConfigError::new(SASL_USERNAME, "is not set; name the user"))?;
    settings.insert("sasl.username", user);
    let password = match (get(SASL_PASSWORD), get(SASL_PASSWORD_FILE)) {
        (Some(password), None) => password,
        (None, Some(file)) => {
            let text = std::fs::read_to_string(&file).map_err(|error| {
                ConfigError::new(SASL_PASSWORD_FILE, format!("is `{file}`: {error}"))
            })?;
            text.trim_end_matches(['\n', '\r']).to_owned()
        }
        (Some(_), Some(_)) => {
            let problem = "is set, and the password as well; set one of them";
            return Err(ConfigError::new(SASL_PASSWORD_FILE, problem));
        }
        (None, None) => {
            let problem = format!("is not set; set it, or {SASL_PASSWORD_FILE} to a file with it");
            return Err(ConfigError::new(SASL_PASSWORD, problem));
        }
    };
    settings.insert("sasl.password", password);
    Ok(())
}

impl fmt::Debug for KafkaSecurity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGIN: [(&str, &str); 4] = [
        (SECURITY_PROTOCOL, "sasl_ssl"),
        (SASL_MECHANISM, "SCRAM-SHA-512"),
        (SASL_USERNAME, "shipments"),
        (SASL_PASSWORD, "hunter2"),
    ];

    fn read(given: &[(&str, &str)]) -> Result<KafkaSecurity, ConfigError> {
        KafkaSecurity::read(&|name: &str| {
            given.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_system_s_authorities_are_trusted_unless_others_are_named() {
        let security = read(&LOGIN).unwrap();
        assert_eq!(security.0["ssl.ca.location"], "probe");
        assert_eq!(security.0["sasl.password"], "hunter2");
        let own = [&LOGIN[..], &[(SSL_CA_LOCATION, "/ca.pem")]].concat();
        assert_eq!(read(&own).unwrap().0["ssl.ca.location"], "/ca.pem");
        assert!(read(&[]).unwrap().0.is_empty());
    }

    #[test]
    fn what_is_missing_is_named() {
        let ssl = (SECURITY_PROTOCOL, "SSL");
        for (given, expected) in [
            (&[(SECURITY_PROTOCOL, "TLS")][..], "KAFKA_SECURITY_PROTOCOL is `TLS`; set it to"),
            (&LOGIN[..1], "KAFKA_SASL_MECHANISM is not set; set it to PLAIN"),
            (&LOGIN[..2], "KAFKA_SASL_USERNAME is not set"),
            (&LOGIN[..3], "KAFKA_SASL_PASSWORD is not set"),
            (&[LOGIN[0], (SASL_MECHANISM, "GSSAPI")], "KAFKA_SASL_MECHANISM is `GSSAPI`"),
            (
                &[&LOGIN[..3], &[(SASL_PASSWORD_FILE, "/nowhere")]].concat(),
                "KAFKA_SASL_PASSWORD_FILE is `/nowhere`",
            ),
            (&[ssl, (SSL_KEY_LOCATION, "/k")], "KAFKA_SSL_CERTIFICATE_LOCATION is not set"),
            (&[ssl, (SSL_CERTIFICATE_LOCATION, "/c")], "KAFKA_SSL_KEY_LOCATION is not set"),
        ] {
            let error = read(given).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn nothing_of_it_is_shown() {
        let shown = format!("{:?}", read(&LOGIN).unwrap());
        assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
    }
}
