//! One storage topic as a log: read from its beginning, followed for ever, and written so that a write is seen.
//!
//! What the process knows is what it read, never what it wrote: so it knows the same as any other worker on the topic.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::kafka::{self, Told};
use crate::config::WorkerConfig;

/// How long a write may take to come back to the reader, once the brokers have it.
const READ_BACK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long Kafka may take to tell where a partition ends.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// After an error of the reader, so that a broker that is away does not make it spin.
const READ_RETRY_DELAY: Duration = Duration::from_millis(200);

/// Why a record was not written.
#[derive(Debug, thiserror::Error)]
pub(in crate::connect) enum WriteError {
    #[error("Kafka did not take the record for topic {topic}: {source}")]
    Refused { topic: String, source: KafkaError },
    #[error("the record for topic {topic} was written, but was not read back in time")]
    NotReadBack { topic: String },
}

/// A storage topic that is followed.
pub(super) struct TopicLog {
    topic: String,
    producer: FutureProducer<Told>,
    consumer: Arc<StreamConsumer<Told>>,
    progress: watch::Receiver<Progress>,
    reader: JoinHandle<()>,
}

/// Where a record stands in its topic.
#[derive(Debug, Clone, Copy)]
pub(in crate::connect) struct Place {
    partition: usize,
    offset: i64,
}

/// How far the reader came.
#[derive(Debug, Default)]
struct Progress {
    /// The next offset, by partition.
    next: Vec<i64>,
    /// Partitions whose end was reached once.
    caught_up: BTreeSet<i32>,
}

impl TopicLog {
    /// Follows `topic` from its beginning; `apply` gets every record's key and value.
    pub(super) fn follow(
        worker: &WorkerConfig,
        producer: FutureProducer<Told>,
        topic: &str,
        partitions: i32,
        apply: impl FnMut(&[u8], Option<&[u8]>) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let mut config = kafka::client_config(worker);
        config
            // No group is joined and nothing is committed; librdkafka wants a name all the same.
            .set("group.id", format!("relay-storage-{}", worker.group_id))
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            // Compacted topics of small records: small buffers keep the idle process small.
            .set("queued.max.messages.kbytes", "1024")
            .set("fetch.wait.max.ms", "500");
        let consumer: StreamConsumer<Told> = kafka::create(&config)?;
        let mut assignment = TopicPartitionList::new();
        for partition in 0..partitions {
            // Not `Beginning`: librdkafka would look for it and, with the leader not known yet, try again half a second
            // later. Where offset 0 is gone, `auto.offset.reset` leads to the beginning as well.
            assignment.add_partition_offset(topic, partition, Offset::Offset(0))?;
        }
        consumer.assign(&assignment)?;
        let next = vec![0; usize::try_from(partitions).unwrap_or_default()];
        let (report, progress) = watch::channel(Progress { next, caught_up: BTreeSet::new() });
        let consumer = Arc::new(consumer);
        let reader = tokio::spawn(read(Arc::clone(&consumer), topic.to_owned(), report, apply));
        Ok(Self { topic: topic.to_owned(), producer, consumer, progress, reader })
    }

    /// Waits until everything that was in the topic has been read.
    pub(super) async fn caught_up(&self) {
        let mut progress = self.progress.clone();
        let partitions = progress.borrow().next.len();
        let (consumer, topic) = (Arc::clone(&self.consumer), self.topic.clone());
        let ends = tokio::task::spawn_blocking(move || ends(&consumer, &topic, partitions)).await;
        let ends = ends.unwrap_or_else(|_| vec![None; partitions]);
        let all = |progress: &Progress| {
            ends.iter().zip(&progress.next).zip(0..).all(|((end, next), partition)| {
                // A transaction's marker is never delivered, so only the reader knows that it is past it.
                end.is_some_and(|end| *next >= end) || progress.caught_up.contains(&partition)
            })
        };
        // The reader lives as long as this log; without it there is nothing to wait for.
        let _ = progress.wait_for(all).await;
    }

    /// Writes a record (`None`: a tombstone) and waits until it has been read back.
    pub(super) async fn write(&self, key: &str, value: Option<&[u8]>) -> Result<(), WriteError> {
        let place = self.append(key, value).await?;
        self.read_back(place).await
    }

    /// Writes a record and waits until the brokers have confirmed it.
    pub(super) async fn append(
        &self,
        key: &str,
        value: Option<&[u8]>,
    ) -> Result<Place, WriteError> {
        let record = FutureRecord::<str, [u8]> {
            topic: &self.topic,
            partition: None,
            payload: value,
            key: Some(key),
            timestamp: None,
            headers: None,
        };
        let sent = self.producer.send(record, Timeout::Never).await;
        let delivery =
            sent.map_err(|(source, _)| WriteError::Refused { topic: self.topic.clone(), source })?;
        let partition = usize::try_from(delivery.partition).unwrap_or_default();
        Ok(Place { partition, offset: delivery.offset })
    }

    /// Waits until the record at `place` has been read back, and with it all before it in its partition.
    pub(super) async fn read_back(&self, place: Place) -> Result<(), WriteError> {
        let mut progress = self.progress.clone();
        let read = progress.wait_for(|progress| {
            progress.next.get(place.partition).is_none_or(|next| *next > place.offset)
        });
        match tokio::time::timeout(READ_BACK_TIMEOUT, read).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(WriteError::NotReadBack { topic: self.topic.clone() }),
        }
    }
}

impl Drop for TopicLog {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Where each partition ends now; `None`: not known. Asking is quicker than reading: at its end, a read waits.
fn ends(consumer: &StreamConsumer<Told>, topic: &str, partitions: usize) -> Vec<Option<i64>> {
    let mut asked = TopicPartitionList::new();
    for partition in (0..).take(partitions) {
        // The logical offset in place of a time asks for the end.
        if asked.add_partition_offset(topic, partition, Offset::End).is_err() {
            return vec![None; partitions];
        }
    }
    let Ok(answered) = consumer.offsets_for_times(asked, END_TIMEOUT) else {
        return vec![None; partitions];
    };
    let end = |partition| match answered.find_partition(topic, partition)?.offset() {
        Offset::Offset(end) => Some(end),
        _ => None,
    };
    (0..).take(partitions).map(end).collect()
}

async fn read(
    consumer: Arc<StreamConsumer<Told>>,
    topic: String,
    report: watch::Sender<Progress>,
    mut apply: impl FnMut(&[u8], Option<&[u8]>) + Send + 'static,
) {
    loop {
        match consumer.recv().await {
            Ok(message) => {
                if let Some(key) = message.key() {
                    apply(key, message.payload());
                }
                let (partition, next) = (message.partition(), message.offset() + 1);
                report.send_modify(|progress| {
                    let partition = usize::try_from(partition).unwrap_or_default();
                    if let Some(known) = progress.next.get_mut(partition) {
                        *known = next;
                    }
                });
            }
            Err(KafkaError::PartitionEOF(partition)) => {
                report.send_if_modified(|progress| progress.caught_up.insert(partition));
            }
            Err(error) => {
                tracing::warn!(kafka.topic = topic, %error, "reading a storage topic failed, going on");
                tokio::time::sleep(READ_RETRY_DELAY).await;
            }
        }
    }
}
