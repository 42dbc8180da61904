//! Changes that cannot be published: kept as records of a dead letter topic, in the order of their key.
//!
//! A dead letter is an ordinary record with another topic: it goes through the same sink and the same progress, so that
//! no position is acknowledged before Kafka has confirmed it.

pub mod desk;
pub mod parked;
pub mod stored;
pub mod topic;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::connector_config::{ConnectorConfig, DeadLetterConfig, PARKED_KEYS_MAX_OPTION};
use crate::events::{EventError, Stage};
use crate::provenance::Provenance;
use crate::record::Record;
use parked::ParkedKeys;
use stored::{FORM, Kind, StoredLetter, StoredPosition, Subject};

/// What Kafka Connect's headers begin with.
const HEADER_PREFIX: &str = "__connect.errors.";

/// The connector's only task.
const TASK_ID: &str = "0";

/// Why an event of a parked key is a dead letter.
const PARKED_REASON: &str =
    "an earlier event of this key is a dead letter, and relay.errors.parked.key is park";

/// What became of failures, for metrics: over all tasks that the connector has had on this worker.
#[derive(Debug, Default)]
pub struct ErrorCounts {
    /// Changes that could not be published, parked ones not among them.
    pub failed: AtomicU64,
    /// Of these, left out without a dead letter.
    pub left_out: AtomicU64,
    /// Dead letters that were handed to the sink, parked events among them.
    pub dead_letters: AtomicU64,
    /// Of these, events that wait for another one of their key.
    pub parked: AtomicU64,
    /// Attempts to publish a record again that Kafka had refused.
    pub retries: AtomicU64,
    /// Lines of `errors.log.enable`.
    pub logged: AtomicU64,
    /// Dead letters that were published by a replay.
    pub replayed: AtomicU64,
}

impl ErrorCounts {
    /// Counts one.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A change that is to be a dead letter.
#[derive(Debug)]
pub struct DeadLetter<'l> {
    /// What could not be published.
    pub subject: Subject,
    /// Where it comes from.
    pub provenance: &'l Provenance,
    /// The topic that the event was for, where that is known.
    pub topic: Option<String>,
    /// The event's key, where that is known.
    pub key: Option<Vec<u8>>,
    /// How often it was tried, counted from 1.
    pub attempt: u32,
}

/// What a task knows of its dead letters.
#[derive(Debug)]
pub struct DeadLetters<'c> {
    connector: &'c ConnectorConfig,
    config: &'c DeadLetterConfig,
    parked: ParkedKeys,
    /// While letters are replayed: the keys that were parked before.
    waiting: Option<ParkedKeys>,
    counts: Arc<ErrorCounts>,
}

impl<'c> DeadLetters<'c> {
    /// None where the connector has no dead letter topic.
    #[must_use]
    pub fn new(connector: &'c ConnectorConfig, counts: Arc<ErrorCounts>) -> Option<Self> {
        let config = connector.errors.dead_letters.as_ref()?;
        let parked = ParkedKeys::new(config.parked_keys_max);
        Some(Self { connector, config, parked, waiting: None, counts })
    }

    /// Counts there from now on.
    pub fn count_errors(&mut self, counts: &Arc<ErrorCounts>) {
        self.counts = Arc::clone(counts);
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.config.topic
    }

    /// Takes over the keys that were parked before this start.
    pub fn restore(&mut self, parked: ParkedKeys) {
        self.parked = parked;
    }

    /// Whether an event must wait for another one of its key.
    #[must_use]
    pub fn is_parked(&self, record: &Record) -> bool {
        record.key.as_deref().is_some_and(|key| self.parked.contains(&record.topic, key))
    }

    /// The record of a change that failed; its key is parked from now on, if that is asked for.
    ///
    /// # Errors
    /// When no more keys can be parked: the task must stop, or the order would be lost.
    pub fn failed(
        &mut self,
        letter: DeadLetter<'_>,
        kind: Kind,
        error: &EventError,
    ) -> Result<Record, EventError> {
        if self.config.park_keys
            && let Some(key) = &letter.key
        {
            let parked = self.parked.park(letter.topic.as_deref(), key, None);
            parked.map_err(|_| self.too_many(error))?;
        }
        ErrorCounts::count(&self.counts.failed);
        Ok(self.record(letter, kind, error.stage, &error.reason))
    }

    /// The record of an event whose key is parked.
    #[must_use]
    pub fn parked(&self, letter: DeadLetter<'_>) -> Record {
        ErrorCounts::count(&self.counts.parked);
        self.record(letter, Kind::Parked, Stage::Produce, PARKED_REASON)
    }

    fn too_many(&self, error: &EventError) -> EventError {
        let max = self.config.parked_keys_max;
        let reason = format!(
            "{}; and {max} keys are parked, which is the most ({PARKED_KEYS_MAX_OPTION}): replay the dead letters, \
             raise the limit, or set relay.errors.parked.key=pass",
            error.reason
        );
        EventError { reason, ..error.clone() }
    }

    fn record(&self, letter: DeadLetter<'_>, kind: Kind, stage: Stage, reason: &str) -> Record {
        ErrorCounts::count(&self.counts.dead_letters);
        let DeadLetter { subject, provenance, topic, key, attempt } = letter;
        let headers = match self.config.context_headers {
            true => self.headers(topic.as_deref(), kind, stage, reason),
            false => Vec::new(),
        };
        let stored = StoredLetter {
            dead_letter: FORM,
            connector: self.connector.name.clone(),
            kind,
            attempt,
            stage: stage.to_string(),
            reason: reason.to_owned(),
            topic,
            subject,
            position: StoredPosition::of(provenance),
        };
        Record {
            topic: self.config.topic.clone(),
            partition: None,
            key,
            value: Some(stored.to_json()),
            headers,
            timestamp: None,
        }
    }

    /// Kafka Connect's context headers, in its order. An event that never was in Kafka has no partition and no offset.
    fn headers(
        &self,
        topic: Option<&str>,
        kind: Kind,
        stage: Stage,
        reason: &str,
    ) -> Vec<(String, Option<Vec<u8>>)> {
        let header = |name: &str, value: &str| {
            (format!("{HEADER_PREFIX}{name}"), Some(value.as_bytes().to_vec()))
        };
        let mut headers = vec![
            header("topic", topic.unwrap_or_default()),
            header("partition", "-1"),
            header("offset", "-1"),
            header("connector.name", &self.connector.name),
            header("task.id", TASK_ID),
            header("stage", &stage.to_string()),
            header("class.name", stage.class(self.connector)),
        ];
        if kind != Kind::Parked {
            let class = stage.exception();
            let trace = format!("{class}: {reason}");
            headers.push(header("exception.class.name", class));
            headers.push(header("exception.message", reason));
            headers.push(header("exception.stacktrace", &trace));
        }
        headers
    }

    /// Letters are about to be replayed: of the keys that are parked now, those stay whose event fails again.
    pub fn begin_replay(&mut self) {
        let parked = ParkedKeys::new(self.config.parked_keys_max);
        self.waiting = Some(std::mem::replace(&mut self.parked, parked));
    }

    /// A replay has come to its end, or (`is_whole` is false) was broken off: then every key stays parked.
    pub fn end_replay(&mut self, is_whole: bool) {
        if let Some(waiting) = self.waiting.take().filter(|_| !is_whole) {
            self.parked.merge(waiting);
        }
    }
}

impl Stage {
    /// The class that does the work, as the connector's options name it.
    fn class(self, connector: &ConnectorConfig) -> &str {
        let classes = &connector.errors.classes;
        match self {
            Self::Poll => "io.debezium.connector.postgresql.PostgresConnectorTask",
            Self::Transformation => &classes.transform,
            Self::HeaderConverter => &classes.header,
            Self::KeyConverter => &classes.key,
            Self::ValueConverter => &classes.value,
            Self::Produce => "org.apache.kafka.connect.runtime.WorkerSourceTask",
        }
    }

    /// The class that Kafka Connect would name for a failure here.
    const fn exception(self) -> &'static str {
        match self {
            Self::Poll => "io.debezium.DebeziumException",
            Self::Produce => "org.apache.kafka.common.KafkaException",
            _ => "org.apache.kafka.connect.errors.DataException",
        }
    }
}

/// The line of `errors.log.enable`, in Kafka Connect's words; the change itself only where the options ask for it.
pub fn log(connector: &ConnectorConfig, error: &EventError, subject: &Subject, at: &Provenance) {
    let (stage, class) = (error.stage, error.stage.class(connector));
    let (task, reason, table) = (&connector.name, &error.reason, &error.table);
    let (lsn, commit_lsn) = (at.lsn, at.commit_lsn);
    if connector.errors.log_messages {
        let record = serde_json::to_string(subject).unwrap_or_default();
        tracing::error!(
            connector.name = task, table, %lsn, %commit_lsn,
            "Error encountered in task {task}-{TASK_ID}. Executing stage '{stage}' with class '{class}', where source \
             record is = {record}: {reason}"
        );
    } else {
        tracing::error!(
            connector.name = task, table, %lsn, %commit_lsn,
            "Error encountered in task {task}-{TASK_ID}. Executing stage '{stage}' with class '{class}': {reason}"
        );
    }
}
