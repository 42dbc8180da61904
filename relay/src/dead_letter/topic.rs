//! The dead letter topic in Kafka: making it, and reading what is in it.
//!
//! A mark says how far the letters of a partition were replayed. It is a record of the same topic, so that it is
//! written like every other record of the connector, and can never be lost without the letters.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde::Deserialize;

use super::parked::{At, ParkedKeys};
use super::stored::StoredLetter;
use crate::connector_config::DeadLetterConfig;
use crate::record::Record;
use crate::sink::SinkError;

/// Of the header that a mark has; its value is the connector.
const MARK_HEADER: &str = "relay.replayed";

/// Kafka Connect makes its dead letter topics with one partition.
const PARTITIONS: i32 = 1;

/// Dead letters stay until somebody removes them, and an event that was too large for its own topic fits in.
const TOPIC_CONFIG: [(&str, &str); 3] =
    [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("max.message.bytes", "104857600")];

/// How long the brokers may take to create or describe the topic.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How long they may take to tell where a partition begins and ends.
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);

/// A reader that hears nothing for this long gives up, and the task tries again.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// One look for a record.
const POLL: Duration = Duration::from_millis(100);

/// A dead letter topic.
#[derive(Clone)]
pub struct DeadLetterTopic {
    client: ClientConfig,
    connector: String,
    config: DeadLetterConfig,
}

impl std::fmt::Debug for DeadLetterTopic {
    /// The client's settings have secrets, and are left out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (connector, topic) = (&self.connector, &self.config.topic);
        f.debug_struct("DeadLetterTopic")
            .field("connector", connector)
            .field("topic", topic)
            .finish_non_exhaustive()
    }
}

/// A letter as it was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Where.
    pub at: At,
    /// The event's key.
    pub key: Option<Vec<u8>>,
    /// The document.
    pub letter: StoredLetter,
}

/// What is in the topic.
#[derive(Debug, Default)]
pub struct Index {
    /// The last letter of each partition that was replayed.
    pub replayed_through: BTreeMap<i32, i64>,
    /// Keys of letters that were not.
    pub parked: ParkedKeys,
}

/// Asked before each record: whether anybody still waits for what is read. A reader that nobody waits for ends.
pub type IsAwaited<'f> = &'f dyn Fn() -> bool;

#[derive(Deserialize)]
struct Mark {
    replayed_through: i64,
}

/// What a record of the topic is to this connector.
enum Entry {
    Letter(Box<Found>),
    Mark(At),
    /// Of another connector, or nobody's.
    Other,
}

impl DeadLetterTopic {
    /// The topic of a connector; `client` says how the brokers are reached.
    #[must_use]
    pub fn new(client: ClientConfig, connector: &str, config: &DeadLetterConfig) -> Self {
        Self { client, connector: connector.to_owned(), config: config.clone() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.topic
    }

    /// Whether keys wait behind their dead letters.
    #[must_use]
    pub const fn parks_keys(&self) -> bool {
        self.config.park_keys
    }

    /// Makes the topic where it is not there, and refuses one that would lose letters.
    ///
    /// # Errors
    /// When it cannot be made or is compacted; when the brokers do not answer, an error that may pass.
    pub async fn ensure(&self) -> Result<(), SinkError> {
        let admin: AdminClient<DefaultClientContext> =
            self.client.create().map_err(|error| self.away(&error))?;
        let ensured = self.ensure_with(&admin).await;
        // Closing a client waits for its threads.
        let _ = tokio::task::spawn_blocking(move || drop(admin)).await;
        ensured
    }

    async fn ensure_with(
        &self,
        admin: &AdminClient<DefaultClientContext>,
    ) -> Result<(), SinkError> {
        let name = &self.config.topic;
        let replication = TopicReplication::Fixed(self.config.replication);
        let mut new = NewTopic::new(name, PARTITIONS, replication);
        for (option, value) in TOPIC_CONFIG {
            new = new.set(option, value);
        }
        let options = AdminOptions::new()
            .operation_timeout(Some(ADMIN_TIMEOUT))
            .request_timeout(Some(ADMIN_TIMEOUT));
        let created = admin.create_topics([&new], &options).await;
        let refusal = match created.map_err(|error| self.away(&error))?.into_iter().next() {
            Some(Ok(_)) => {
                tracing::info!(kafka.topic = name, "dead letter topic created");
                return Ok(());
            }
            Some(Err((_, error))) => error,
            None => RDKafkaErrorCode::Unknown,
        };
        // It may be there, and this user may not create topics.
        let described = admin.describe_configs([&ResourceSpecifier::Topic(name)], &options).await;
        let described = described.map_err(|error| self.away(&error))?.into_iter().next();
        // rdkafka passes over the error of a topic that is not there: what it gives has no entries.
        let described = described.and_then(Result::ok).filter(|config| !config.entries.is_empty());
        let Some(config) = described else {
            if refusal == RDKafkaErrorCode::TopicAlreadyExists {
                tracing::warn!(
                    kafka.topic = name,
                    "cleanup.policy of the dead letter topic is not known"
                );
                return Ok(());
            }
            return Err(self.unusable(format!(
                "it is not there and cannot be created: {refusal}; create it, allow it, or set \
                 errors.deadletterqueue.topic.replication.factor to the number of brokers or less"
            )));
        };
        let value = |option: &str| config.get(option).and_then(|entry| entry.value.clone());
        if value("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
            return Err(self.unusable(
                "its cleanup.policy compacts it, and of several dead letters of a key only the last would stay; set it \
                 to delete"
                    .to_owned(),
            ));
        }
        if let Some(retention) = value("retention.ms").filter(|retention| retention != "-1") {
            tracing::warn!(
                kafka.topic = name,
                retention_ms = retention,
                "dead letters are lost after the topic's retention.ms; -1 keeps them"
            );
        }
        Ok(())
    }

    /// Reads what is in the topic; it blocks. Memory does not grow with the topic: a letter's offset is not kept.
    ///
    /// # Errors
    /// When the brokers do not answer, more keys are parked than may be, or nobody waits for it any more.
    pub fn index(&self, is_awaited: IsAwaited<'_>) -> Result<Index, SinkError> {
        let mut index =
            Index { parked: ParkedKeys::new(self.config.parked_keys_max), ..Index::default() };
        let mut scan = Scan::open(self, &BTreeMap::new(), is_awaited)?;
        while let Some(entry) = scan.next()? {
            match entry {
                Entry::Letter(found) => {
                    let topic = found.letter.topic.as_deref();
                    let Some(key) = found.key.as_deref().filter(|_| self.config.park_keys) else {
                        continue;
                    };
                    index.parked.park(topic, key, Some(found.at)).map_err(|_| {
                        self.unusable(format!(
                            "more than {} keys are parked in it; raise relay.errors.parked.keys.max and replay it",
                            self.config.parked_keys_max
                        ))
                    })?;
                }
                Entry::Mark(through) => {
                    index.parked.replayed(through);
                    index.replayed_through.insert(through.partition, through.offset);
                }
                Entry::Other => {}
            }
        }
        Ok(index)
    }

    /// Reads the letters that were not replayed, those that are there now, and gives each to `take` until it says
    /// false; it blocks.
    ///
    /// # Errors
    /// When the brokers do not answer, or nobody waits for it any more.
    pub fn read_open(
        &self,
        index: &Index,
        is_awaited: IsAwaited<'_>,
        mut take: impl FnMut(Found) -> bool,
    ) -> Result<(), SinkError> {
        let mut scan = Scan::open(self, &index.replayed_through, is_awaited)?;
        while let Some(entry) = scan.next()? {
            if let Entry::Letter(found) = entry
                && !take(*found)
            {
                break;
            }
        }
        Ok(())
    }

    /// The record that says how far a partition was replayed.
    #[must_use]
    pub fn mark(&self, through: At) -> Record {
        let value = format!(r#"{{"replayed_through":{}}}"#, through.offset);
        Record {
            topic: self.config.topic.clone(),
            partition: Some(through.partition),
            key: None,
            value: Some(value.into_bytes()),
            headers: vec![(MARK_HEADER.to_owned(), Some(self.connector.clone().into_bytes()))],
            timestamp: None,
        }
    }

    fn entry(&self, message: &BorrowedMessage<'_>) -> Entry {
        let at = At { partition: message.partition(), offset: message.offset() };
        let value = message.payload().unwrap_or_default();
        let mut headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        if let Some(mark) = headers.find(|header| header.key == MARK_HEADER) {
            let ours = mark.value == Some(self.connector.as_bytes());
            return match serde_json::from_slice::<Mark>(value) {
                Ok(mark) if ours => Entry::Mark(At { offset: mark.replayed_through, ..at }),
                _ => Entry::Other,
            };
        }
        match StoredLetter::from_json(value) {
            Ok(letter) if letter.connector == self.connector => Entry::Letter(Box::new(Found {
                at,
                key: message.key().map(<[u8]>::to_vec),
                letter,
            })),
            Ok(_) => Entry::Other,
            Err(reason) => {
                tracing::warn!(
                    kafka.topic = self.config.topic,
                    kafka.partition = at.partition,
                    kafka.offset = at.offset,
                    "a record of the dead letter topic is no dead letter and is passed over: {reason}"
                );
                Entry::Other
            }
        }
    }

    fn away(&self, error: &KafkaError) -> SinkError {
        SinkError::Producer {
            reason: format!(
                "the dead letter topic \"{}\" does not answer: {error}",
                self.config.topic
            ),
        }
    }

    fn unusable(&self, reason: String) -> SinkError {
        SinkError::DeadLetters { topic: self.config.topic.clone(), reason }
    }
}

/// A reader of what is in the topic when it begins.
struct Scan<'t> {
    topic: &'t DeadLetterTopic,
    consumer: BaseConsumer,
    /// Where each partition ended; it is left out when that is reached.
    ends: BTreeMap<i32, i64>,
    heard_at: Instant,
    is_awaited: IsAwaited<'t>,
}

impl<'t> Scan<'t> {
    /// Begins behind these offsets.
    fn open(
        topic: &'t DeadLetterTopic,
        behind: &BTreeMap<i32, i64>,
        is_awaited: IsAwaited<'t>,
    ) -> Result<Self, SinkError> {
        let away = |error: KafkaError| topic.away(&error);
        let mut config = topic.client.clone();
        let consumer: BaseConsumer = config
            // No group is joined and nothing is committed; librdkafka wants a name all the same.
            .set("group.id", "relay-dead-letters")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("queued.max.messages.kbytes", "1024")
            .set("fetch.wait.max.ms", "100")
            .create()
            .map_err(away)?;
        let name = topic.config.topic.as_str();
        let metadata = consumer.fetch_metadata(Some(name), METADATA_TIMEOUT).map_err(away)?;
        let partitions: BTreeSet<i32> = metadata
            .topics()
            .iter()
            .flat_map(|found| found.partitions().iter().map(|partition| partition.id()))
            .collect();
        let mut assignment = TopicPartitionList::new();
        let mut ends = BTreeMap::new();
        for partition in partitions {
            let (low, high) =
                consumer.fetch_watermarks(name, partition, METADATA_TIMEOUT).map_err(away)?;
            let from = behind.get(&partition).map_or(low, |offset| (offset + 1).max(low));
            if from < high {
                ends.insert(partition, high);
                assignment
                    .add_partition_offset(name, partition, Offset::Offset(from))
                    .map_err(away)?;
            }
        }
        consumer.assign(&assignment).map_err(away)?;
        Ok(Self { topic, consumer, ends, heard_at: Instant::now(), is_awaited })
    }

    /// The next record; none at the end.
    fn next(&mut self) -> Result<Option<Entry>, SinkError> {
        // Whoever takes the records may have been busy with the last one.
        self.heard_at = Instant::now();
        while !self.ends.is_empty() {
            if !(self.is_awaited)() {
                return Err(self.topic.away(&KafkaError::Canceled));
            }
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    self.heard_at = Instant::now();
                    let Some(end) = self.ends.get(&partition).copied() else { continue };
                    if offset + 1 >= end {
                        self.ends.remove(&partition);
                    }
                    if offset < end {
                        return Ok(Some(self.topic.entry(&message)));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.ends.remove(&partition);
                }
                Some(Err(error)) if self.heard_at.elapsed() > SILENCE_MAX => {
                    return Err(self.topic.away(&error));
                }
                None if self.heard_at.elapsed() > SILENCE_MAX => {
                    let silent =
                        KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
                    return Err(self.topic.away(&silent));
                }
                Some(Err(_)) | None => {}
            }
        }
        Ok(None)
    }
}
