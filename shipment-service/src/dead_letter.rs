//! The dead letter topic: where a message goes that can never be handled, with the reason, so that the rest flow on.

use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header as RecordHeader, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::time::sleep;

use crate::backoff::Backoff;
use crate::config::Config;
use crate::event::Poison;
use crate::kafka::{self, QuietContext};
use crate::message::Message;

/// The headers that a dead letter has on top of its own, named after Connect's `__connect.errors.*`.
pub(crate) mod header {
    /// The kind of poison, one word for machines.
    pub(crate) const REASON: &str = "__dead_letter.reason";
    /// The same as a sentence for people.
    pub(crate) const MESSAGE: &str = "__dead_letter.message";
    /// Where the message was: topic, partition, offset, and its timestamp in milliseconds since the epoch.
    pub(crate) const TOPIC: &str = "__dead_letter.topic";
    pub(crate) const PARTITION: &str = "__dead_letter.partition";
    pub(crate) const OFFSET: &str = "__dead_letter.offset";
    pub(crate) const TIMESTAMP: &str = "__dead_letter.timestamp";
    /// The consumer group that could not handle it.
    pub(crate) const GROUP: &str = "__dead_letter.group";
    /// When it was given up, in UTC.
    pub(crate) const TIME: &str = "__dead_letter.time";
    /// Only when the value was too large to be copied: its size in bytes. The original is at topic, partition, offset.
    pub(crate) const OMITTED_VALUE_BYTES: &str = "__dead_letter.omitted_value_bytes";
    /// Only when the key and the message's own headers were too large to be copied: their size in bytes.
    pub(crate) const OMITTED_KEY_AND_HEADERS_BYTES: &str =
        "__dead_letter.omitted_key_and_headers_bytes";
}

/// The longest sentence in a header. Bytes; a reason may quote what it could not read.
const MESSAGE_BYTES_MAX: usize = 1024;
/// How long the producer tries before it reports a failure, and we begin again. Milliseconds.
const DELIVERY_TIMEOUT_MILLIS: &str = "10000";
/// The broker's own limit decides about large messages, not the client's. Bytes; the largest that librdkafka allows.
const MESSAGE_BYTES_LIMIT: &str = "1000000000";
const CREATE_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of the message a dead letter holds. Our headers can make it larger than the topic allows; then better a
/// dead letter that only says where the message is than an order topic that stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    Whole,
    WithoutValue,
    /// Without key and headers of its own, too: a sender may have filled these up.
    ReasonOnly,
}

impl Extent {
    fn smaller(self) -> Option<Extent> {
        match self {
            Extent::Whole => Some(Extent::WithoutValue),
            Extent::WithoutValue => Some(Extent::ReasonOnly),
            Extent::ReasonOnly => None,
        }
    }
}

/// Publishes dead letters.
pub(crate) struct DeadLetters {
    producer: FutureProducer<QuietContext>,
    admin: AdminClient<QuietContext>,
    topic: String,
    group_id: String,
}

impl DeadLetters {
    /// Creates the clients. They connect in the background.
    ///
    /// # Errors
    /// A setting that librdkafka refuses.
    pub(crate) fn new(config: &Config) -> anyhow::Result<DeadLetters> {
        let mut client = kafka::client_config(config, "shipment-service-dead-letter");
        let admin = client.create_with_context(QuietContext)?;
        let producer = client
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", DELIVERY_TIMEOUT_MILLIS)
            .set("message.max.bytes", MESSAGE_BYTES_LIMIT)
            .create_with_context(QuietContext)?;
        let (topic, group_id) = (config.dead_letter_topic.clone(), config.group_id.clone());
        Ok(DeadLetters { producer, admin, topic, group_id })
    }

    /// Creates the topic, with the partitions and replicas that the brokers give by default. At the start and not when
    /// the first poison arrives: a missing permission shows while somebody is looking.
    pub(crate) async fn create_topic(&self) {
        let topic = NewTopic::new(&self.topic, -1, TopicReplication::Fixed(-1));
        let options = AdminOptions::new()
            .operation_timeout(Some(CREATE_TIMEOUT))
            .request_timeout(Some(CREATE_TIMEOUT));
        let problem = match self.admin.create_topics([&topic], &options).await.as_deref() {
            Ok([Ok(_)]) => {
                tracing::info!(dead_letter.topic = self.topic, "Created the dead letter topic");
                return;
            }
            Ok([Err((_, RDKafkaErrorCode::TopicAlreadyExists))]) => return,
            Ok([Err((_, code)), ..]) => code.to_string(),
            Ok(_) => return,
            Err(error) => error.to_string(),
        };
        tracing::warn!(
            dead_letter.topic = self.topic,
            error = problem,
            "The dead letter topic can't be created; create it, or poison messages will wait for it"
        );
    }

    /// Publishes a message as a dead letter and returns when the brokers have confirmed it, however long they take.
    ///
    /// A dead letter can come twice, when this process dies before the offset of the message is committed.
    pub(crate) async fn publish(&self, message: &Message, poison: &Poison) {
        let mut backoff = Backoff::new();
        let mut extent = Extent::Whole;
        loop {
            match (self.publish_once(message, poison, extent).await, extent.smaller()) {
                (Ok(()), _) => break,
                (
                    Err(KafkaError::MessageProduction(
                        RDKafkaErrorCode::MessageSizeTooLarge
                        | RDKafkaErrorCode::InvalidMessageSize,
                    )),
                    Some(smaller),
                ) => extent = smaller,
                (Err(error), _) => {
                    if backoff.attempt() == 0 {
                        tracing::warn!(
                            dead_letter.topic = self.topic, error = %error,
                            "The dead letter topic can't be written: the consumer holds the poison message and retries"
                        );
                    }
                    if matches!(
                        error.rdkafka_error_code(),
                        Some(
                            RDKafkaErrorCode::UnknownTopic
                                | RDKafkaErrorCode::UnknownTopicOrPartition
                        )
                    ) {
                        self.create_topic().await;
                    }
                    sleep(backoff.next()).await;
                }
            }
        }
        tracing::error!(
            message.topic = message.topic,
            message.partition = message.partition,
            message.offset = message.offset,
            dead_letter.topic = self.topic,
            dead_letter.reason = poison.kind(),
            "A message can't be handled and went to the dead letter topic: {poison}"
        );
    }

    async fn publish_once(
        &self,
        message: &Message,
        poison: &Poison,
        extent: Extent,
    ) -> Result<(), KafkaError> {
        let mut record = FutureRecord::<[u8], [u8]>::to(&self.topic)
            .headers(self.headers(message, poison, extent));
        record.key = message.key.as_deref().filter(|_| extent != Extent::ReasonOnly);
        record.payload = message.value.as_deref().filter(|_| extent == Extent::Whole);
        record.timestamp = message.timestamp_millis;
        match self.producer.send(record, Duration::ZERO).await {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error),
        }
    }

    /// The message's own headers, then ours.
    fn headers(&self, message: &Message, poison: &Poison, extent: Extent) -> OwnedHeaders {
        let kept = message.headers.iter().filter(|_| extent != Extent::ReasonOnly);
        let own = kept.fold(OwnedHeaders::new(), |headers, header| {
            headers.insert(RecordHeader { key: &header.name, value: header.value.as_deref() })
        });
        let sentence = poison.to_string();
        let sentence = &sentence[..sentence.floor_char_boundary(MESSAGE_BYTES_MAX)];
        let mut added = vec![
            (header::REASON, poison.kind().to_owned()),
            (header::MESSAGE, sentence.to_owned()),
            (header::TOPIC, message.topic.clone()),
            (header::PARTITION, message.partition.to_string()),
            (header::OFFSET, message.offset.to_string()),
            (header::GROUP, self.group_id.clone()),
            (header::TIME, Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)),
        ];
        if let Some(millis) = message.timestamp_millis {
            added.push((header::TIMESTAMP, millis.to_string()));
        }
        if let Some(value) = message.value.as_ref().filter(|_| extent != Extent::Whole) {
            added.push((header::OMITTED_VALUE_BYTES, value.len().to_string()));
        }
        if extent == Extent::ReasonOnly {
            let bytes = key_and_headers_bytes(message).to_string();
            added.push((header::OMITTED_KEY_AND_HEADERS_BYTES, bytes));
        }
        added.iter().fold(own, |headers, (key, value)| {
            headers.insert(RecordHeader { key, value: Some(value) })
        })
    }
}

fn key_and_headers_bytes(message: &Message) -> usize {
    let of = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
    let headers = message.headers.iter().map(|header| header.name.len() + of(&header.value));
    of(&message.key) + headers.sum::<usize>()
}
