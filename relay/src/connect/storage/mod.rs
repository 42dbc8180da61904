//! What the control plane keeps in Kafka, in Kafka Connect's own topics and formats.

mod config_records;
mod kafka;
mod offset_records;
mod properties;
mod status_queue;
mod status_records;
mod topic_log;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use self::status_queue::StatusQueue;
use self::topic_log::TopicLog;
use crate::config::WorkerConfig;

pub(super) use self::config_records::{
    ConfigChange, ConfigState, Record, TargetState, commit_record, connector_record, logger_record,
    removal_records, restart_record, target_state_record, task_record,
};
pub(super) use self::offset_records::{OffsetState, offset_key, server_key};
pub(super) use self::properties::Properties;
pub(super) use self::status_records::{State, Status, StatusKey, StatusState, topic_value};
pub(super) use self::topic_log::{Place, WriteError};

/// The three storage topics, followed.
pub(super) struct Storage {
    config: Arc<Mutex<ConfigState>>,
    statuses: Arc<Mutex<StatusState>>,
    offsets: Arc<Mutex<OffsetState>>,
    config_log: TopicLog,
    offset_log: TopicLog,
    status_queue: Arc<StatusQueue>,
    status_writer: JoinHandle<()>,
    /// Changes with each record of the status topic.
    status_count: watch::Receiver<u64>,
    cluster_id: Option<String>,
}

impl Storage {
    /// Waits for Kafka, creates what is missing, and reads all three topics to their ends.
    ///
    /// The receiver gets every change of the config topic that comes after.
    pub(super) async fn open(
        worker: &WorkerConfig,
    ) -> anyhow::Result<(Self, mpsc::UnboundedReceiver<ConfigChange>)> {
        let cluster = kafka::Cluster::wait(worker).await?;
        let (config_partitions, offset_partitions, status_partitions) = tokio::try_join!(
            cluster.ensure(&worker.config_topic, "config.storage.topic"),
            cluster.ensure(&worker.offset_topic, "offset.storage.topic"),
            cluster.ensure(&worker.status_topic, "status.storage.topic"),
        )?;
        if config_partitions != 1 {
            bail!(
                "topic {} (config.storage.topic) has {config_partitions} partitions; its records need one order, so it \
                 must have exactly 1",
                worker.config_topic.name
            );
        }
        let producer = kafka::producer(worker)?;
        let follow = |topic: &str, partitions, apply: Apply| {
            TopicLog::follow(worker, producer.clone(), topic, partitions, apply)
                .with_context(|| format!("topic {topic}"))
        };
        let (config, mut changes, apply) = config_reader();
        let config_log = follow(&worker.config_topic.name, config_partitions, apply)?;
        let (offsets, apply) = offset_reader();
        let offset_log = follow(&worker.offset_topic.name, offset_partitions, apply)?;
        let (statuses, status_count, apply) = status_reader();
        let status_log = follow(&worker.status_topic.name, status_partitions, apply)?;
        tokio::join!(config_log.caught_up(), offset_log.caught_up(), status_log.caught_up());
        // What was read so far is in the state already; replaying it would remove and restart connectors of the past.
        while changes.try_recv().is_ok() {}
        let status_queue = Arc::new(StatusQueue::default());
        let queue = Arc::clone(&status_queue);
        let status_writer = tokio::spawn(async move { queue.write_all(&status_log).await });
        let storage = Self {
            config,
            statuses,
            offsets,
            config_log,
            offset_log,
            status_queue,
            status_writer,
            status_count,
            cluster_id: cluster.id,
        };
        Ok((storage, changes))
    }

    /// Kafka's name of the cluster.
    pub(super) fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }

    pub(super) fn config(&self) -> MutexGuard<'_, ConfigState> {
        lock(&self.config)
    }

    pub(super) fn statuses(&self) -> MutexGuard<'_, StatusState> {
        lock(&self.statuses)
    }

    /// Hears of each record of the status topic, whoever wrote it.
    pub(super) fn status_changes(&self) -> watch::Receiver<u64> {
        self.status_count.clone()
    }

    pub(super) fn offsets(&self) -> MutexGuard<'_, OffsetState> {
        lock(&self.offsets)
    }

    /// Writes to the config topic; on return this worker has taken the record in.
    pub(super) async fn write_config(&self, record: Record) -> Result<(), WriteError> {
        let (key, value) = record;
        let value = value.map(|value| value.to_string().into_bytes());
        self.config_log.write(&key, value.as_deref()).await
    }

    /// Writes to the offset topic; `None` removes the offset.
    pub(super) async fn write_offset(
        &self,
        key: &str,
        offset: Option<&[u8]>,
    ) -> Result<(), WriteError> {
        self.offset_log.write(key, offset).await
    }

    /// Writes to the offset topic without waiting for the reader: the brokers have it.
    pub(super) async fn append_offset(
        &self,
        key: &str,
        offset: &[u8],
    ) -> Result<Place, WriteError> {
        self.offset_log.append(key, Some(offset)).await
    }

    /// Waits until this worker has taken in what stands there in the offset topic.
    pub(super) async fn offset_read_back(&self, place: Place) -> Result<(), WriteError> {
        self.offset_log.read_back(place).await
    }

    /// Queues a status; it is written in order, and retried while Kafka is away.
    pub(super) fn write_status(&self, key: &StatusKey, status: Option<&Status>) {
        let value = status.and_then(|status| serde_json::to_vec(status).ok());
        self.write_status_value(key, value);
    }

    /// Queues a record of the status topic that is no status; `None` is a tombstone.
    pub(super) fn write_status_value(&self, key: &StatusKey, value: Option<Vec<u8>>) {
        self.status_queue.push(key.to_text(), value);
    }

    /// Waits until every status queued so far has been written.
    pub(super) async fn flush_statuses(&self) {
        self.status_queue.flushed().await;
    }

    /// Kafka Connect's workers sign the requests among themselves with a key that is in the config topic.
    pub(super) async fn write_session_key(&self) {
        if self.config().has_session_key() {
            return;
        }
        let record = config_records::session_key_record(
            &random_key(),
            chrono::Utc::now().timestamp_millis(),
        );
        if let Err(error) = self.write_config(record).await {
            tracing::warn!(%error, "the session key for Kafka Connect workers was not written");
        }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.status_writer.abort();
    }
}

type Apply = Box<dyn FnMut(&[u8], Option<&[u8]>) + Send>;

fn config_reader() -> (Arc<Mutex<ConfigState>>, mpsc::UnboundedReceiver<ConfigChange>, Apply) {
    let state = Arc::new(Mutex::new(ConfigState::default()));
    // Unbounded, since the reader must not wait for the herder, which waits for the reader; changes are small and rare.
    let (sender, changes) = mpsc::unbounded_channel();
    let target = Arc::clone(&state);
    let apply = move |key: &[u8], value: Option<&[u8]>| {
        let key = String::from_utf8_lossy(key);
        match lock(&target).apply(&key, value) {
            ConfigChange::Nothing => {}
            ConfigChange::Malformed(reason) => {
                tracing::warn!(kafka.key = %key, reason, "a record of the config topic is skipped");
            }
            change => drop(sender.send(change)),
        }
    };
    (state, changes, Box::new(apply))
}

fn status_reader() -> (Arc<Mutex<StatusState>>, watch::Receiver<u64>, Apply) {
    let state = Arc::new(Mutex::new(StatusState::default()));
    let target = Arc::clone(&state);
    let (count, counted) = watch::channel(0);
    let apply = move |key: &[u8], value: Option<&[u8]>| {
        let key = String::from_utf8_lossy(key);
        if let Err(reason) = lock(&target).apply(&key, value) {
            tracing::warn!(kafka.key = %key, reason, "a record of the status topic is skipped");
        }
        count.send_modify(|count| *count += 1);
    };
    (state, counted, Box::new(apply))
}

fn offset_reader() -> (Arc<Mutex<OffsetState>>, Apply) {
    let state = Arc::new(Mutex::new(OffsetState::default()));
    let target = Arc::clone(&state);
    let apply = move |key: &[u8], value: Option<&[u8]>| {
        if let Err(reason) = lock(&target).apply(key, value) {
            let key = String::from_utf8_lossy(key);
            tracing::warn!(kafka.key = %key, reason, "a record of the offset topic is skipped");
        }
    };
    (state, Box::new(apply))
}

/// A panic in a reader has been logged where it happened; what it left is still the best that is known.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// 32 random bytes in base64, the length of an HMAC-SHA256 key.
fn random_key() -> String {
    let halves = [*uuid::Uuid::new_v4().as_bytes(), *uuid::Uuid::new_v4().as_bytes()];
    base64(halves.as_flattened())
}

/// The few lines of base64 that the session key needs are not worth a dependency.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for position in 0..4 {
            let sextet = (bits >> (18 - 6 * position)) & 63;
            match position <= chunk.len() {
                true => text.push(char::from(ALPHABET[sextet as usize])),
                false => text.push('='),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_pads_as_the_rfc_s_examples_do() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(super::base64(bytes.as_bytes()), text);
        }
    }
}
