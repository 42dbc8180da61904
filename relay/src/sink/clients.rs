//! How other clients of a connector than its producer reach the brokers.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;

use super::SinkError;
use super::kafka::producer_config;
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
    const PREFIXES: [&str; 9] = [
        "bootstrap.",
        "security.",
        "sasl.",
        "ssl.",
        "enable.ssl.",
        "client.",
        "socket.",
        "broker.address.",
        "https.",
    ];
    let mut config = ClientConfig::new();
    for (name, value) in producer.config_map() {
        if PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            config.set(name, value);
        }
    }
    config
}
