//! How the worker reaches Kafka: `CONNECT_SECURITY_PROTOCOL`, `CONNECT_SASL_*`, `CONNECT_SSL_*`, and the same behind
//! `CONNECT_PRODUCER_` for the producers of connectors.

use super::{ConfigError, Reader, cut_prefix, error, variable_of};
use crate::kafka_client::{self, Properties};
use crate::secret::Secret;

/// Properties of Kafka's clients beside those of security that the storage topics' clients are given.
const CLIENT_PROPERTIES: [&str; 4] = [
    "client.dns.lookup",
    "reconnect.backoff.ms",
    "reconnect.backoff.max.ms",
    "metadata.max.age.ms",
];

/// What connectors' producers have a prefix for.
const PRODUCER_PREFIX: &str = "producer.";

impl Reader {
    /// For the clients of the storage topics, in librdkafka's terms.
    pub(super) fn kafka_client(&self) -> Result<Properties, ConfigError> {
        let mut properties = translated(&self.security(), "")?;
        for name in CLIENT_PROPERTIES {
            if let Some(value) = self.text(name) {
                properties.insert(name.to_owned(), Secret::new(value.to_owned()));
            }
        }
        Ok(properties)
    }

    /// For connectors' producers, by the names of Kafka's Java client. Kafka Connect would have the security of the worker
    /// said once more behind `producer.`; here it counts for both until something else is said.
    pub(super) fn producer(&self) -> Result<Properties, ConfigError> {
        let mut properties = self.security();
        let own = cut_prefix(&self.properties, PRODUCER_PREFIX);
        properties.extend(own.into_iter().map(|(name, value)| (name, Secret::new(value))));
        translated(&properties, PRODUCER_PREFIX)?;
        Ok(properties)
    }

    fn security(&self) -> Properties {
        let all = self.properties.iter().filter(|(name, _)| kafka_client::is_security(name));
        all.map(|(name, value)| (name.clone(), Secret::new(value.clone()))).collect()
    }
}

fn translated(properties: &Properties, prefix: &str) -> Result<Properties, ConfigError> {
    kafka_client::translate(properties)
        .map_err(|wrong| error(&variable_of(&format!("{prefix}{}", wrong.property)), wrong.problem))
}
