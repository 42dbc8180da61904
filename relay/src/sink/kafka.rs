//! The Kafka sink: an idempotent producer that waits for all in-sync replicas, with bounded memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::Notify;

use super::{Confirmation, PublishError, Sink, SinkError};
use crate::progress::Sequence;
use crate::record::Record;

/// Records that librdkafka may hold. Measured: more adds memory (the default peaks at 84 MB) and no throughput.
const QUEUE_MESSAGES_MAX: &str = "12000";

/// KiB that librdkafka may hold; one record that is larger is taken when the queue is empty.
const QUEUE_KBYTES_MAX: &str = "6144";

/// Largest request in bytes. The limit for a record is the topic's `max.message.bytes`: the broker decides, so
/// that an operator changes one setting, not two.
const MESSAGE_BYTES_MAX: &str = "104857600";

/// A Kafka producer as a sink.
pub struct KafkaSink {
    producer: ThreadedProducer<Deliveries>,
    shared: Arc<Shared>,
}

/// What the producer's thread hands over to the pipeline.
#[derive(Default)]
struct Shared {
    confirmations: Mutex<Vec<Confirmation>>,
    arrived: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Confirmation>> {
        // Nothing panics while it is held, and a list of confirmations is whole after each push.
        self.confirmations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Receives librdkafka's delivery reports on the producer's thread.
#[derive(Clone)]
struct Deliveries {
    shared: Arc<Shared>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        // librdkafka retries by itself: what it says of brokers that are away is no error of the relay.
        tracing::debug!(kafka.facility = facility, kafka.level = ?level, "librdkafka: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(error = %error, "Kafka is not reachable as it should be, retrying: {reason}");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, sequence: usize) {
        let outcome = match result {
            Ok(_) => Ok(()),
            Err((error, message)) => Err(refusal(error, message.topic())),
        };
        let confirmation = Confirmation { sequence: sequence as Sequence, outcome };
        let mut confirmations = self.shared.lock();
        confirmations.push(confirmation);
        // The pipeline takes all that there are at once: it needs to be woken for the first only.
        if confirmations.len() == 1 {
            drop(confirmations);
            self.shared.arrived.notify_one();
        }
    }
}

impl KafkaSink {
    /// Starts a producer. `overrides` are properties of Kafka's Java producer or of librdkafka, checked by
    /// [`producer_config`].
    ///
    /// # Errors
    /// When librdkafka refuses a property.
    pub fn start(
        bootstrap_servers: &str,
        overrides: &BTreeMap<String, String>,
    ) -> Result<Self, SinkError> {
        let shared = Arc::new(Shared::default());
        let context = Deliveries { shared: Arc::clone(&shared) };
        let config = producer_config(bootstrap_servers, overrides)?;
        let producer = ThreadedProducer::from_config_and_context(&config, context)
            .map_err(|error| SinkError::Configuration { reason: error.to_string() })?;
        Ok(Self { producer, shared })
    }
}

impl Sink for KafkaSink {
    fn publish(&mut self, sequence: Sequence, record: &Record) -> Result<(), PublishError> {
        let opaque = usize::try_from(sequence).unwrap_or(usize::MAX);
        let mut base = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&record.topic, opaque);
        base.key = record.key.as_deref();
        base.payload = record.value.as_deref();
        base.partition = record.partition;
        base.timestamp = record.timestamp;
        base.headers = headers(record);
        match self.producer.send(base) {
            Ok(()) => Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                Err(PublishError::Full)
            }
            Err((error, _)) => Err(PublishError::Refused(refusal(&error, &record.topic))),
        }
    }

    fn take_confirmations(&mut self, confirmations: &mut Vec<Confirmation>) {
        confirmations.append(&mut self.shared.lock());
    }

    async fn confirmed(&mut self) {
        // A permit is kept when the notification comes before this wait. It may also be left over from
        // confirmations that are taken already: the list says what is true.
        while self.shared.lock().is_empty() {
            self.shared.arrived.notified().await;
        }
    }
}

fn headers(record: &Record) -> Option<OwnedHeaders> {
    if record.headers.is_empty() {
        return None;
    }
    let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
    for (name, value) in &record.headers {
        headers = headers.insert(Header { key: name, value: value.as_deref() });
    }
    Some(headers)
}

/// librdkafka's configuration: the guarantees are fixed, the rest can be tuned.
///
/// # Errors
/// When an override would weaken the guarantees.
fn producer_config(
    bootstrap_servers: &str,
    overrides: &BTreeMap<String, String>,
) -> Result<ClientConfig, SinkError> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap_servers)
        .set("client.id", "outbox-relay")
        // Latency first: a record leaves at once; under load librdkafka still makes batches of what waits.
        .set("linger.ms", "0")
        .set("queue.buffering.max.messages", QUEUE_MESSAGES_MAX)
        .set("queue.buffering.max.kbytes", QUEUE_KBYTES_MAX)
        .set("message.max.bytes", MESSAGE_BYTES_MAX)
        // As Connect does for sources: a broker that is away is waited for, however long.
        .set("message.timeout.ms", "0")
        // Java's partitioner: a key stays on its partition when the relay takes Debezium's place.
        .set("partitioner", "murmur2_random")
        // A reader of one record needs no statistics, and no reports beyond the sequence number.
        .set("delivery.report.only.error", "false");
    for (name, value) in overrides {
        match java_property(name) {
            Some(librdkafka_name) => {
                config.set(librdkafka_name, value);
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
        let weaker = |value: &String| !matches!(value.as_str(), "true" | "all" | "-1");
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
        | "max.request.size" => None,
        "delivery.timeout.ms" => Some("message.timeout.ms"),
        "compression.type" => Some("compression.codec"),
        "max.in.flight.requests.per.connection" => Some("max.in.flight"),
        other => Some(other),
    }
}

/// What an error of librdkafka means for the relay.
fn refusal(error: &KafkaError, topic: &str) -> SinkError {
    let code = error.rdkafka_error_code();
    let advice = match code {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            "it is larger than the topic takes; raise the topic's max.message.bytes"
        }
        Some(
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::InvalidTopic,
        ) => {
            "the topic does not exist and the broker does not create it, or its name is not legal; \
             create it, or allow auto.create.topics.enable"
        }
        Some(RDKafkaErrorCode::UnknownPartition) => {
            "the topic has no such partition; add partitions, or change the column that selects it"
        }
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed,
        ) => "the relay may not write there; grant it WRITE (and IDEMPOTENT_WRITE on old brokers)",
        Some(RDKafkaErrorCode::InvalidRecord | RDKafkaErrorCode::PolicyViolation) => {
            "the broker's rules for the topic do not allow it"
        }
        _ => return SinkError::Producer { reason: error.to_string() },
    };
    SinkError::Record { topic: topic.to_owned(), reason: format!("{error}; {advice}") }
}

impl Drop for KafkaSink {
    fn drop(&mut self) {
        // Records that are still queued belong to nobody: they were not acknowledged and will be read again.
        self.producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(options: &[(&str, &str)]) -> BTreeMap<String, String> {
        options.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
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
        let tuned = overrides(&[("compression.type", "lz4"), ("buffer.memory", "1")]);
        let config = producer_config("localhost:1", &tuned).unwrap();
        assert_eq!(config.get("compression.codec"), Some("lz4"));
        assert_eq!(config.get("buffer.memory"), None);
    }
}
