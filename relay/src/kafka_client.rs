//! The security settings of Kafka's Java client, told to librdkafka: what a user of Kafka Connect has works unchanged,
//! or is refused with the property's name and what to do. Pure: it reads no file.

mod jaas;
mod tokens;

use std::collections::BTreeMap;
use std::path::Path;

use rdkafka::error::KafkaError;

use self::jaas::Login;
use crate::secret::Secret;

/// Properties of a Kafka client. Any of them may hold a secret.
pub type Properties = BTreeMap<String, Secret>;

/// A property that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{property}: {problem}")]
pub struct PropertyError {
    /// Its name, as Kafka's Java client has it.
    pub property: String,
    /// What is wrong and what to do; never a secret.
    pub problem: String,
}

/// Tuning of Java's TLS, and settings of servers: what librdkafka does on its own, or has no need for.
const WITHOUT_COUNTERPART: [&str; 11] = [
    "ssl.protocol",
    PROTOCOLS,
    "ssl.provider",
    "ssl.keymanager.algorithm",
    "ssl.trustmanager.algorithm",
    "ssl.secure.random.implementation",
    "ssl.keystore.type",
    "ssl.truststore.type",
    "ssl.truststore.password",
    "ssl.client.auth",
    "ssl.client.authentication",
];

/// The same of Java's logins.
const LOGIN_PREFIX: &str = "sasl.login.";

/// Java classes that would decide about security.
const JAVA_CLASSES: [&str; 4] = [
    "ssl.engine.factory.class",
    "sasl.login.class",
    "sasl.client.callback.handler.class",
    "security.providers",
];

const TRUSTSTORE: &str = "ssl.truststore.location";
const KEYSTORE: &str = "ssl.keystore.location";
const MECHANISM: &str = "sasl.mechanism";
const PROTOCOLS: &str = "ssl.enabled.protocols";

/// Whether [`translate`] looks after a property.
#[must_use]
pub fn is_security(property: &str) -> bool {
    ["security.", "sasl.", "ssl.", "https.", "enable.ssl.", "enable.sasl."]
        .iter()
        .any(|prefix| property.starts_with(prefix))
}

/// librdkafka's properties for those of a Java client; what is none of security's stays as it is. librdkafka's own
/// names are understood, too.
///
/// # Errors
/// The first property that cannot be honoured.
pub fn translate(given: &Properties) -> Result<Properties, PropertyError> {
    // An empty variable counts as none; but an empty algorithm is how Java switches the check of host names off.
    let mut properties: Properties = given.clone();
    properties.retain(|name, value| {
        !value.expose().trim().is_empty() || name == "ssl.endpoint.identification.algorithm"
    });
    let protocol = protocol(&mut properties)?;
    if let Some(class) = JAVA_CLASSES.iter().find(|class| properties.contains_key(**class)) {
        return Err(refuse(class, "the relay loads no Java class; remove it"));
    }
    log_in(&mut properties, protocol.starts_with("sasl_"))?;
    if protocol.ends_with("ssl") {
        take_protocols(&properties)?;
    }
    trust(&mut properties)?;
    identify(&mut properties)?;
    if let Some(algorithm) = properties.get_mut("ssl.endpoint.identification.algorithm")
        && algorithm.expose().trim().is_empty()
    {
        *algorithm = plain("none");
    }
    let has_authorities = ["ssl.ca.location", "ssl.ca.pem", "ssl.ca.certificate.stores"]
        .iter()
        .any(|name| properties.contains_key(*name));
    if protocol.ends_with("ssl") && !has_authorities {
        // The system's authorities, wherever it keeps them: our OpenSSL would look where it was built to look.
        properties.insert("ssl.ca.location".to_owned(), plain("probe"));
    }
    properties.retain(|name, _| {
        !WITHOUT_COUNTERPART.contains(&name.as_str()) && !name.starts_with(LOGIN_PREFIX)
    });
    Ok(properties)
}

/// `security.protocol`, in librdkafka's spelling.
fn protocol(properties: &mut Properties) -> Result<String, PropertyError> {
    let Some(protocol) = properties.get_mut("security.protocol") else {
        return Ok("plaintext".to_owned());
    };
    let lower = protocol.expose().trim().to_ascii_lowercase();
    if !matches!(lower.as_str(), "plaintext" | "ssl" | "sasl_plaintext" | "sasl_ssl") {
        return Err(refuse(
            "security.protocol",
            "it is one of PLAINTEXT, SSL, SASL_PLAINTEXT and SASL_SSL",
        ));
    }
    *protocol = plain(&lower);
    Ok(lower)
}

/// librdkafka agrees with the broker on TLS 1.2 or 1.3, and cannot be told to take 1.3 alone. One who asks for 1.2
/// alone is given more, not less.
fn take_protocols(properties: &Properties) -> Result<(), PropertyError> {
    let Some(enabled) = properties.get(PROTOCOLS) else { return Ok(()) };
    let known =
        |name: &str| ["TLSv1.2", "TLSv1.3"].iter().any(|ours| ours.eq_ignore_ascii_case(name));
    let mut names = enabled.expose().split(',').map(str::trim);
    if !names.clone().any(known) {
        return Err(refuse(PROTOCOLS, "the relay has TLSv1.2 and TLSv1.3; name both"));
    }
    if !names.any(|name| name.eq_ignore_ascii_case("TLSv1.2")) {
        return Err(refuse(
            PROTOCOLS,
            "the relay cannot keep to TLSv1.3 alone: let the brokers take nothing else, and name TLSv1.2 here as well",
        ));
    }
    Ok(())
}

/// The mechanism, and the credentials out of `sasl.jaas.config`.
fn log_in(properties: &mut Properties, is_asked_for: bool) -> Result<(), PropertyError> {
    let jaas = properties.remove("sasl.jaas.config");
    if !is_asked_for {
        // Without SASL nobody asks for them.
        properties.retain(|name, _| !name.starts_with("sasl.") && !tokens::is_of_tokens(name));
        return Ok(());
    }
    let mechanism = properties.remove("sasl.mechanisms").or(properties.remove(MECHANISM));
    let mechanism = mechanism.map(|mechanism| mechanism.expose().trim().to_ascii_uppercase());
    let mechanism = mechanism.unwrap_or_else(|| "GSSAPI".to_owned());
    properties.insert(MECHANISM.to_owned(), plain(&mechanism));
    let login = jaas.map(|jaas| jaas::parse(jaas.expose())).transpose();
    let login = login.map_err(|problem| refuse("sasl.jaas.config", problem))?;
    match mechanism.as_str() {
        "PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512" => {
            properties.retain(|name, _| !tokens::is_of_tokens(name));
            password(properties, login)
        }
        "OAUTHBEARER" => tokens::fetch(properties, login),
        "GSSAPI" => Err(refuse(
            MECHANISM,
            "Kerberos (GSSAPI, Java's default) is not supported; set it to PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER",
        )),
        other => Err(refuse(
            MECHANISM,
            format!("{other}: the relay has PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER"),
        )),
    }
}

fn password(properties: &mut Properties, login: Option<Login>) -> Result<(), PropertyError> {
    if let Some(login) = login {
        if !["plain.PlainLoginModule", "scram.ScramLoginModule"]
            .iter()
            .any(|module| login.module.ends_with(module))
        {
            return Err(refuse(
                "sasl.jaas.config",
                format!(
                    "{}: the mechanism wants PlainLoginModule or ScramLoginModule",
                    login.module
                ),
            ));
        }
        for (option, name) in [("username", "sasl.username"), ("password", "sasl.password")] {
            let Some(value) = login.options.get(option) else {
                return Err(refuse("sasl.jaas.config", format!("it has no {option}=\"...\"")));
            };
            properties.insert(name.to_owned(), value.clone());
        }
    }
    if !properties.contains_key("sasl.username") || !properties.contains_key("sasl.password") {
        return Err(refuse(
            "sasl.jaas.config",
            "not set; give the login module with username=\"...\" password=\"...\";",
        ));
    }
    Ok(())
}

/// The form of a store, by its type or, where none is given, by the end of the file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Pem,
    Pkcs12,
    Jks,
}

fn form(properties: &Properties, kind: &str, location: &str) -> Result<Form, PropertyError> {
    let end = || Path::new(location).extension().and_then(|end| end.to_str());
    let given = properties.get(kind).map(|given| given.expose().trim().to_ascii_uppercase());
    match given.as_deref().or_else(|| match end() {
        Some("pem" | "crt" | "cer" | "cert") => Some("PEM"),
        Some("p12" | "pfx" | "pkcs12") => Some("PKCS12"),
        // What Java takes it for.
        _ => None,
    }) {
        Some("PEM") => Ok(Form::Pem),
        Some("PKCS12") => Ok(Form::Pkcs12),
        Some("JKS") | None => Ok(Form::Jks),
        Some(other) => Err(refuse(kind, format!("{other}: the relay has PEM and PKCS12"))),
    }
}

/// The authorities that sign brokers' certificates.
fn trust(properties: &mut Properties) -> Result<(), PropertyError> {
    if let Some(certificates) = properties.remove("ssl.truststore.certificates") {
        properties.insert("ssl.ca.pem".to_owned(), certificates);
    }
    let Some(location) = properties.remove(TRUSTSTORE) else { return Ok(()) };
    let file = location.expose().trim().to_owned();
    match form(properties, "ssl.truststore.type", &file)? {
        Form::Pem => {
            properties.insert("ssl.ca.location".to_owned(), location);
            Ok(())
        }
        Form::Pkcs12 | Form::Jks => Err(refuse(
            TRUSTSTORE,
            format!(
                "{file}: the relay cannot read Java's truststores; write the certificates as PEM (keytool -list -rfc \
                 -keystore {file} > ca.pem), name that file here and set ssl.truststore.type to PEM"
            ),
        )),
    }
}

/// The client's own certificate.
fn identify(properties: &mut Properties) -> Result<(), PropertyError> {
    for (java, own) in [
        ("ssl.keystore.certificate.chain", "ssl.certificate.pem"),
        ("ssl.keystore.key", "ssl.key.pem"),
    ] {
        if let Some(pem) = properties.remove(java) {
            properties.insert(own.to_owned(), pem);
        }
    }
    let Some(location) = properties.get(KEYSTORE).cloned() else { return Ok(()) };
    let file = location.expose().trim().to_owned();
    match form(properties, "ssl.keystore.type", &file)? {
        // One file with both; each reader takes what it looks for.
        Form::Pem => {
            properties.remove(KEYSTORE);
            properties.insert("ssl.certificate.location".to_owned(), location.clone());
            properties.insert("ssl.key.location".to_owned(), location);
            Ok(())
        }
        Form::Pkcs12 => Ok(()),
        Form::Jks => Err(refuse(
            KEYSTORE,
            format!(
                "{file}: the relay cannot read Java's own keystores; turn it into PKCS#12 (keytool -importkeystore \
                 -srckeystore {file} -destkeystore client.p12 -deststoretype pkcs12), name that file here and set \
                 ssl.keystore.type to PKCS12"
            ),
        )),
    }
}

/// What librdkafka says of a setting that it refuses, without the value, which may be a password.
#[must_use]
pub fn without_value(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, _, property, _) => {
            format!("librdkafka does not take the property `{property}` or its value")
        }
        other => other.to_string(),
    }
}

fn plain(value: &str) -> Secret {
    Secret::new(value.to_owned())
}

fn refuse(property: &str, problem: impl Into<String>) -> PropertyError {
    PropertyError { property: property.to_owned(), problem: problem.into() }
}

#[cfg(test)]
mod tests;
