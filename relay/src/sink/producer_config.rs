//! How librdkafka's producers are set up: the guarantees are fixed, the rest can be tuned.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use super::SinkError;
use crate::secret::Secret;

/// librdkafka's own limits stand far above ours: it counts a record until some time after it told of the delivery,
/// and refuses a record that is larger than its queue for ever.
const QUEUE_MESSAGES_MAX: &str = "100000";
const QUEUE_KBYTES_MAX: &str = "2097151";

/// Largest request in bytes. The limit for a record is the topic's `max.message.bytes`: the broker decides, so
/// that an operator changes one setting, not two. It is 64 KiB below what a broker reads of a request by default
/// (`socket.request.max.bytes`, 100 MiB): what comes along with a record must fit in, too, or the broker would close the
/// connection without an answer, again and again.
const MESSAGE_BYTES_MAX: &str = "104792064";

/// A broker that does not answer is dialled anew: as long as Kafka's Java clients wait, half of librdkafka's time.
pub(super) const SOCKET_TIMEOUT: Duration = Duration::from_secs(30);

/// librdkafka's configuration: the guarantees are fixed, the rest can be tuned.
///
/// # Errors
/// When an override would weaken the guarantees.
pub(super) fn producer_config(
    bootstrap_servers: &str,
    overrides: &BTreeMap<String, Secret>,
) -> Result<ClientConfig, SinkError> {
    let mut config = ClientConfig::new();
    config
        // What it notices of its own accord; `deliveries.rs` says it at the level debug.
        .set_log_level(RDKafkaLogLevel::Info)
        .set("bootstrap.servers", bootstrap_servers)
        .set("client.id", "outbox-relay")
        // Latency first: what is handed over leaves at once.
        .set("linger.ms", "0")
        .set("queue.buffering.max.messages", QUEUE_MESSAGES_MAX)
        .set("queue.buffering.max.kbytes", QUEUE_KBYTES_MAX)
        .set("message.max.bytes", MESSAGE_BYTES_MAX)
        // As Connect does for sources: a broker that is away is waited for, however long.
        .set("message.timeout.ms", "0")
        .set("socket.timeout.ms", SOCKET_TIMEOUT.as_millis().to_string())
        // The first answer on a new connection is waited for as long as Java's clients do; librdkafka: half a minute.
        .set("socket.connection.setup.timeout.ms", "10000")
        // And it is dialled once a second while it is away, not every ten.
        .set("reconnect.backoff.max.ms", "1000")
        // Java's partitioner: a key stays on its partition when the relay takes Debezium's place.
        .set("partitioner", "murmur2_random")
        // A reader of one record needs no statistics, and no reports beyond the sequence number.
        .set("delivery.report.only.error", "false");
    for (name, value) in overrides {
        match java_property(name) {
            Some(librdkafka_name) => {
                config.set(librdkafka_name, value.expose());
            }
            None => {
                tracing::info!(
                    kafka.property = name,
                    "a property of Kafka's Java producer has no counterpart here and no effect"
                );
            }
        }
    }
    config.set("enable.idempotence", "true").set("acks", "all");
    for fixed in ["enable.idempotence", "acks"] {
        let weaker = |value: &Secret| !matches!(value.expose(), "true" | "all" | "-1");
        if overrides.get(fixed).is_some_and(weaker) {
            let reason = format!(
                "`producer.override.{fixed}` would let events get lost or out of order; remove it"
            );
            return Err(SinkError::Configuration { reason });
        }
    }
    Ok(config)
}

/// librdkafka's name for a property of Kafka's Java producer; `None` where it has none.
fn java_property(name: &str) -> Option<&str> {
    match name {
        "buffer.memory"
        | "max.block.ms"
        | "key.serializer"
        | "value.serializer"
        | "interceptor.classes"
        | "metric.reporters"
        | "partitioner.class"
        | "max.request.size"
        | "sasl.jaas.config" => None,
        // A record that times out would be overtaken by later ones of its key; a broker that is away is waited for.
        "delivery.timeout.ms" | "message.timeout.ms" => None,
        // The same for one that was sent so often.
        "retries" | "message.send.max.retries" => None,
        // The sink's own limits bound the memory.
        "queue.buffering.max.messages" | "queue.buffering.max.kbytes" => None,
        "compression.type" => Some("compression.codec"),
        "max.in.flight.requests.per.connection" => Some("max.in.flight"),
        other => Some(other),
    }
}

/// rdkafka's own text of a refused property shows the value, which may be a password.
pub(super) fn without_value(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, _, key, _) => {
            format!("librdkafka does not take the property `{key}` or its value")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(options: &[(&str, &str)]) -> BTreeMap<String, Secret> {
        let secret = |value: &str| Secret::new(value.to_owned());
        options.iter().map(|(name, value)| ((*name).into(), secret(value))).collect()
    }

    #[test]
    fn the_guarantees_cannot_be_tuned_away() {
        let weak = producer_config("localhost:1", &overrides(&[("acks", "1")]));
        assert!(matches!(weak, Err(SinkError::Configuration { .. })));
        let weak = producer_config("localhost:1", &overrides(&[("enable.idempotence", "false")]));
        assert!(matches!(weak, Err(SinkError::Configuration { .. })));
        let config = producer_config("localhost:1", &overrides(&[("acks", "all")])).unwrap();
        assert_eq!(config.get("enable.idempotence"), Some("true"));
    }

    #[test]
    fn names_of_the_java_producer_are_understood() {
        let tuned = overrides(&[
            ("compression.type", "lz4"),
            ("buffer.memory", "1"),
            ("retries", "1"),
            ("message.send.max.retries", "1"),
            ("delivery.timeout.ms", "1000"),
        ]);
        let config = producer_config("localhost:1", &tuned).unwrap();
        // A broker that is away is waited for, whatever is said.
        assert_eq!(config.get("message.timeout.ms"), Some("0"));
        assert_eq!((config.get("retries"), config.get("message.send.max.retries")), (None, None));
        assert_eq!(config.get("compression.codec"), Some("lz4"));
        assert_eq!(config.get("buffer.memory"), None);
    }
}
