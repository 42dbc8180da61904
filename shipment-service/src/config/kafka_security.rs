//! How to come in where Kafka asks who we are: TLS and SASL, in librdkafka's terms.

use std::collections::BTreeMap;
use std::fmt;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rdkafka::ClientConfig;

use super::ConfigError;

const SECURITY_PROTOCOL: &str = "KAFKA_SECURITY_PROTOCOL";
const SASL_MECHANISM: &str = "KAFKA_SASL_MECHANISM";
const SASL_USERNAME: &str = "KAFKA_SASL_USERNAME";
const SASL_PASSWORD: &str = "KAFKA_SASL_PASSWORD";
const SASL_PASSWORD_FILE: &str = "KAFKA_SASL_PASSWORD_FILE";
const TOKEN_ENDPOINT_URL: &str = "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL";
const CLIENT_ID: &str = "KAFKA_SASL_OAUTHBEARER_CLIENT_ID";
const CLIENT_SECRET: &str = "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET";
const CLIENT_SECRET_FILE: &str = "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET_FILE";
const SCOPE: &str = "KAFKA_SASL_OAUTHBEARER_SCOPE";
const EXTENSIONS: &str = "KAFKA_SASL_OAUTHBEARER_EXTENSIONS";
const HTTPS_CA_LOCATION: &str = "KAFKA_HTTPS_CA_LOCATION";
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
    const MECHANISMS: &str = "set it to PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER";
    let mechanism = get(SASL_MECHANISM)
        .ok_or_else(|| ConfigError::new(SASL_MECHANISM, format!("is not set; {MECHANISMS}")))?;
    let mechanism = mechanism.to_ascii_uppercase();
    match mechanism.as_str() {
        "PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512" => {
            let user = get(SASL_USERNAME)
                .ok_or_else(|| ConfigError::new(SASL_USERNAME, "is not set; name the user"))?;
            settings.insert("sasl.username", user);
            settings.insert("sasl.password", secret(get, SASL_PASSWORD, SASL_PASSWORD_FILE)?);
        }
        "OAUTHBEARER" => read_tokens(get, settings)?,
        _ => {
            let problem = format!("is `{mechanism}`; {MECHANISMS}");
            return Err(ConfigError::new(SASL_MECHANISM, problem));
        }
    }
    settings.insert("sasl.mechanism", mechanism);
    Ok(())
}

/// librdkafka fetches the tokens itself, and the next before one ends.
fn read_tokens(
    get: &impl Fn(&str) -> Option<String>,
    settings: &mut BTreeMap<&'static str, String>,
) -> Result<(), ConfigError> {
    let url = get(TOKEN_ENDPOINT_URL).ok_or_else(|| {
        ConfigError::new(TOKEN_ENDPOINT_URL, "is not set; name the endpoint, https://host/path")
    })?;
    let has_tls = url.starts_with("https://");
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let host = host.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    // The value is not shown: it may hold a password, although it must not.
    if host.is_empty() || host.contains('@') {
        let problem =
            "is not https://host/path or http://host/path, without a user; set it to that";
        return Err(ConfigError::new(TOKEN_ENDPOINT_URL, problem));
    }
    settings.insert("sasl.oauthbearer.token.endpoint.url", url);
    let id =
        get(CLIENT_ID).ok_or_else(|| ConfigError::new(CLIENT_ID, "is not set; name the client"))?;
    settings.insert("sasl.oauthbearer.client.id", id);
    let secret = secret(get, CLIENT_SECRET, CLIENT_SECRET_FILE)?;
    settings.insert("sasl.oauthbearer.client.secret", secret);
    if let Some(scope) = get(SCOPE) {
        // librdkafka writes it into the form as it is.
        let encoded = utf8_percent_encode(scope.trim(), NON_ALPHANUMERIC).to_string();
        settings.insert("sasl.oauthbearer.scope", encoded);
    }
    if let Some(extensions) = get(EXTENSIONS) {
        let named = |pair: &str| {
            pair.split_once('=').is_some_and(|(name, _)| {
                !name.is_empty()
                    && name != "auth"
                    && name.bytes().all(|byte| byte.is_ascii_alphabetic())
            })
        };
        if !extensions.split(',').all(|pair| named(pair.trim())) {
            let problem = "is not name=value,name=value with names of letters; set it to that";
            return Err(ConfigError::new(EXTENSIONS, problem));
        }
        settings.insert("sasl.oauthbearer.extensions", extensions);
    }
    if has_tls {
        let authorities = get(HTTPS_CA_LOCATION).unwrap_or_else(|| "probe".to_owned());
        settings.insert("https.ca.location", authorities);
    }
    settings.insert("sasl.oauthbearer.method", "oidc".to_owned());
    Ok(())
}

/// A secret, from a variable or from the file that another one names.
fn secret(
    get: &impl Fn(&str) -> Option<String>,
    variable: &'static str,
    file_variable: &'static str,
) -> Result<String, ConfigError> {
    match (get(variable), get(file_variable)) {
        (Some(secret), None) => Ok(secret),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(&file).map_err(|error| {
                ConfigError::new(file_variable, format!("is `{file}`: {error}"))
            })?;
            Ok(text.trim_end_matches(['\n', '\r']).to_owned())
        }
        (Some(_), Some(_)) => {
            let problem = format!("is set, and {variable} as well; set one of them");
            Err(ConfigError::new(file_variable, problem))
        }
        (None, None) => {
            let problem = format!("is not set; set it, or {file_variable} to a file with it");
            Err(ConfigError::new(variable, problem))
        }
    }
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

    const TOKENS: [(&str, &str); 5] = [
        LOGIN[0],
        (SASL_MECHANISM, "OAuthBearer"),
        (TOKEN_ENDPOINT_URL, "https://idp/token"),
        (CLIENT_ID, "shipments"),
        (CLIENT_SECRET, "hunter2"),
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
    fn tokens_are_fetched_from_the_endpoint() {
        let more = [
            (SCOPE, "orders shipments"),
            (EXTENSIONS, "one=1, two=2"),
            (HTTPS_CA_LOCATION, "/idp.pem"),
        ];
        let tokens = read(&[&TOKENS[..], &more].concat()).unwrap().0;
        for (name, value) in [
            ("sasl.mechanism", "OAUTHBEARER"),
            ("sasl.oauthbearer.method", "oidc"),
            ("sasl.oauthbearer.client.secret", "hunter2"),
            ("sasl.oauthbearer.scope", "orders%20shipments"),
            ("sasl.oauthbearer.extensions", "one=1, two=2"),
            ("https.ca.location", "/idp.pem"),
        ] {
            assert_eq!(tokens[name], value);
        }
        assert_eq!(read(&TOKENS).unwrap().0["https.ca.location"], "probe");
    }

    #[test]
    fn what_is_missing_is_named() {
        let ssl = (SECURITY_PROTOCOL, "SSL");
        let with = |name, value| {
            let others = TOKENS.into_iter().filter(|(other, _)| *other != name);
            others.chain([(name, value)]).collect::<Vec<_>>()
        };
        let user = with(TOKEN_ENDPOINT_URL, "https://a:hunter2@idp/token");
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
            (&TOKENS[..2], "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL is not set"),
            (&TOKENS[..3], "KAFKA_SASL_OAUTHBEARER_CLIENT_ID is not set"),
            (&TOKENS[..4], "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET is not set; set it, or KAFKA_"),
            (&user, "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL is not https://host/path"),
            (
                &with(TOKEN_ENDPOINT_URL, "file:///token"),
                "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL is not https://host/path",
            ),
            (&with(EXTENSIONS, "hunter2"), "KAFKA_SASL_OAUTHBEARER_EXTENSIONS is not name=value"),
            (&[ssl, (SSL_KEY_LOCATION, "/k")], "KAFKA_SSL_CERTIFICATE_LOCATION is not set"),
            (&[ssl, (SSL_CERTIFICATE_LOCATION, "/c")], "KAFKA_SSL_KEY_LOCATION is not set"),
        ] {
            let error = read(given).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn nothing_of_it_is_shown() {
        let shown = format!("{:?}", read(&LOGIN).unwrap());
        assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
    }
}
