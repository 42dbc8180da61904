//! How other clients of a connector than its producer reach the brokers.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;

use super::SinkError;
use super::producer_config::producer_config;
use crate::secret::Secret;

/// How a connector's other clients reach the brokers: with what its producer has for that.
///
/// # Errors
/// When the producer would not be started with these properties either.
pub(crate) fn client_config(
    bootstrap_servers: &str,
    overrides: &BTreeMap<String, Secret>,
) -> Result<ClientConfig, SinkError> {
    Ok(connection_config(&producer_config(bootstrap_servers, overrides)?))
}

/// What of a producer's configuration is about the connection.
pub(super) fn connection_config(producer: &ClientConfig) -> ClientConfig {
    const PREFIXES: [&str; 10] = [
        "bootstrap.",
        "security.",
        "sasl.",
        "ssl.",
        "enable.ssl.",
        "client.",
        "socket.",
        "broker.address.",
        "https.",
        "reconnect.",
    ];
    let mut config = ClientConfig::new();
    for name in producer.config_map().into_keys() {
        let shared = PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        // One by one: the map has a placeholder in the place of each password.
        if let Some(value) = producer.get(name).filter(|_| shared) {
            config.set(name, value);
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_clients_come_in_with_the_producer_s_passwords_and_nothing_else_of_it() {
        let mut producer = ClientConfig::new();
        for (name, value) in [
            ("bootstrap.servers", "kafka:9093"),
            ("linger.ms", "0"),
            ("reconnect.backoff.max.ms", "1000"),
            ("sasl.password", "hush"),
            ("ssl.key.password", "hush"),
            ("ssl.keystore.password", "hush"),
            ("transactional.id", "t"),
        ] {
            producer.set(name, value);
        }
        let config = connection_config(&producer);
        for secret in ["sasl.password", "ssl.key.password", "ssl.keystore.password"] {
            assert_eq!(config.get(secret), Some("hush"), "{secret}");
        }
        assert_eq!((config.get("linger.ms"), config.get("transactional.id")), (None, None));
        assert_eq!(config.get("bootstrap.servers"), Some("kafka:9093"));
        assert_eq!(config.get("reconnect.backoff.max.ms"), Some("1000"));
    }
}
