//! Reads the position back that was committed last. Its calls block.
//!
//! A reader of committed records sees a partition up to the first transaction that is open in it, also when that one is
//! of another connector. So what the partition holds is noted first, and waited for: an older position would let events
//! be published again.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::SinkError;
use super::clients::connection_config;
use super::transaction_log::{self, Decision};
use crate::connector_config::Transactions;

/// One question to the brokers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the transactions of other connectors that share the partition are waited for; then all begins anew.
const OTHERS_TIMEOUT: Duration = Duration::from_secs(30);
/// How long reading the partition to its end may take.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// What all of it takes at the most: requests, a wait with one more at its end, and where something stays hidden, the
/// partition and Kafka's log of transactions to their ends.
pub const TIMEOUT_MAX: Duration = REQUEST_TIMEOUT
    .saturating_mul(9)
    .saturating_add(OTHERS_TIMEOUT)
    .saturating_add(READ_TIMEOUT.saturating_mul(2));
/// Between two looks at what is committed.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// By how much the clock of a producer may be ahead of the broker's, in milliseconds.
const CLOCKS_DIFFER_MAX: i64 = 60_000;

/// What the partition tells.
#[derive(Debug)]
pub enum Stored {
    /// The value that was committed last under the key.
    Visible(Option<Vec<u8>>),
    /// The value that was written last. Kafka decided that it is committed, and left out the marker that says so.
    Unmarked(Vec<u8>),
}

/// The position that was committed last. Nobody else may be writing one.
///
/// # Errors
/// When the brokers are away, or transactions stay open in the partition of which Kafka did not decide that they are
/// committed.
pub fn read(producer: &ClientConfig, transactions: &Transactions) -> Result<Stored, SinkError> {
    let failed = |error| unreadable(&transactions.offset_topic, &error);
    let everything = consumer(producer, "read_uncommitted").map_err(failed)?;
    let committed = consumer(producer, "read_committed").map_err(failed)?;
    let stored = read_with(&everything, &committed, transactions);
    // A consumer that goes waits for its brokers without a limit: nobody has to wait for that.
    std::thread::spawn(move || drop((everything, committed)));
    stored
}

fn read_with(
    everything: &BaseConsumer,
    committed: &BaseConsumer,
    transactions: &Transactions,
) -> Result<Stored, SinkError> {
    let (topic, key) = (transactions.offset_topic.as_str(), transactions.offset_key.as_bytes());
    let failed = |error| unreadable(topic, &error);
    let partitions = partitions(everything, topic).map_err(failed)?;
    let partition = partition_of(key, partitions);
    let end = end(everything, topic, partition).map_err(failed)?;
    let until = Instant::now() + OTHERS_TIMEOUT;
    while self::end(committed, topic, partition).map_err(failed)? < end {
        if Instant::now() > until {
            let last = last_value(everything, topic, partition, key).map_err(failed)?;
            return hidden(everything, transactions, partition, last);
        }
        std::thread::park_timeout(LOOK_INTERVAL);
    }
    let last = last_value(committed, topic, partition, key).map_err(failed)?;
    Ok(Stored::Visible(last.map(|last| last.value)))
}

/// What Kafka's log of transactions says of one that stays open although its producer has been replaced.
fn hidden(
    consumer: &BaseConsumer,
    transactions: &Transactions,
    partition: i32,
    last: Option<Written>,
) -> Result<Stored, SinkError> {
    let (topic, id) = (transactions.offset_topic.as_str(), &transactions.transactional_id);
    let asked = (topic.to_owned(), partition);
    let decided = last.as_ref().map_or(Ok(None), |last| {
        let since = last.at_ms.saturating_sub(CLOCKS_DIFFER_MAX);
        transaction_log::last_decision(consumer, id, &asked, since)
    });
    let told = match (decided, last) {
        (Ok(Some(Decision { commit: true, partitions })), Some(last)) => {
            let places: Vec<String> =
                partitions.iter().map(|(topic, number)| format!("{topic}-{number}")).collect();
            tracing::warn!(
                kafka.transactional_id = id,
                kafka.partitions = places.join(", "),
                "Kafka decided to commit a transaction and did not mark it in every partition (a broker died meanwhile): it \
                 is committed again; events of it in other partitions than the position's become visible with the next \
                 event there"
            );
            return Ok(Stored::Unmarked(last.value));
        }
        (Ok(Some(Decision { commit: false, .. })), _) => {
            "Kafka decided to abort the last one of this connector and \
            may have left out its marker"
                .to_owned()
        }
        (Ok(_), _) => "Kafka's log of transactions has none of this connector there".to_owned(),
        (Err(error), _) => format!(
            "whether one is this connector's cannot be told, as topic __transaction_state cannot be read: {error}"
        ),
    };
    let reason = format!(
        "transactions are open in partition {partition} of topic {topic} and hide the stored position: of other producers, \
         which an offset topic of its own (OFFSET_STORAGE_TOPIC) keeps apart, or one that a broker left hanging when it \
         died (kafka-transactions.sh find-hanging tells, abort ends it); {told}"
    );
    Err(SinkError::Producer { reason })
}

fn unreadable(topic: &str, error: &KafkaError) -> SinkError {
    let reason = format!("the position in topic {topic} cannot be read back: {error}");
    SinkError::Producer { reason }
}

fn consumer(producer: &ClientConfig, isolation: &str) -> KafkaResult<BaseConsumer> {
    let mut config = connection_config(producer);
    config
        // No group is joined and nothing is committed; librdkafka wants a name all the same.
        .set("group.id", "outbox-relay-position")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "10")
        .set("queued.max.messages.kbytes", "1024")
        .set("isolation.level", isolation)
        .create()
}

/// How many partitions the topic has.
pub(super) fn partitions(consumer: &BaseConsumer, topic: &str) -> KafkaResult<i32> {
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let count = found.map_or(0, |found| found.partitions().len());
    match i32::try_from(count) {
        Ok(count @ 1..) => Ok(count),
        _ => Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition)),
    }
}

/// Where the partition ends for this consumer: one that reads committed records sees less.
fn end(consumer: &BaseConsumer, topic: &str, partition: i32) -> KafkaResult<i64> {
    // The logical offset in place of a time asks for the end.
    let end = look_up(consumer, topic, partition, Offset::End)?;
    end.ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::Partial))
}

/// The offset of the first record that is as young as that (milliseconds since 1970).
pub(super) fn offset_at(
    consumer: &BaseConsumer,
    topic: &str,
    partition: i32,
    since_ms: i64,
) -> KafkaResult<Option<i64>> {
    look_up(consumer, topic, partition, Offset::Offset(since_ms))
}

fn look_up(
    consumer: &BaseConsumer,
    topic: &str,
    partition: i32,
    time: Offset,
) -> KafkaResult<Option<i64>> {
    let mut asked = TopicPartitionList::new();
    asked.add_partition_offset(topic, partition, time)?;
    let answered = consumer.offsets_for_times(asked, REQUEST_TIMEOUT)?;
    let Some(found) = answered.find_partition(topic, partition) else { return Ok(None) };
    found.error()?;
    Ok(match found.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    })
}

/// A record's value, and the time that stands in it, in milliseconds since 1970.
struct Written {
    value: Vec<u8>,
    at_ms: i64,
}

fn last_value(
    consumer: &BaseConsumer,
    topic: &str,
    partition: i32,
    key: &[u8],
) -> KafkaResult<Option<Written>> {
    let mut last = None;
    // Not `Beginning`: librdkafka would look for it first. Where offset 0 is gone, `auto.offset.reset` leads there.
    each_record(consumer, topic, partition, 0, |record| {
        if record.key() == Some(key) {
            let at_ms = record.timestamp().to_millis().unwrap_or_default();
            last = record.payload().map(|value| Written { value: value.to_vec(), at_ms });
        }
    })?;
    Ok(last)
}

/// Reads the partition from an offset on to its end.
pub(super) fn each_record(
    consumer: &BaseConsumer,
    topic: &str,
    partition: i32,
    first: i64,
    mut tell: impl FnMut(&BorrowedMessage<'_>),
) -> KafkaResult<()> {
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition, Offset::Offset(first))?;
    consumer.assign(&assignment)?;
    let until = Instant::now() + READ_TIMEOUT;
    while Instant::now() < until {
        match consumer.poll(REQUEST_TIMEOUT) {
            Some(Ok(record)) => tell(&record),
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) => return Err(error),
        }
    }
    Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))
}

/// Java's partitioner, as the producer of the positions uses it.
fn partition_of(key: &[u8], partitions: i32) -> i32 {
    i32::try_from(murmur2(key) & 0x7fff_ffff).unwrap_or_default() % partitions.max(1)
}

/// Kafka's form of Austin Appleby's `MurmurHash2` (public domain).
fn murmur2(bytes: &[u8]) -> u32 {
    const FACTOR: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let mixed = |word: u32| {
        let word = word.wrapping_mul(FACTOR);
        (word ^ (word >> 24)).wrapping_mul(FACTOR)
    };
    let (words, rest) = bytes.as_chunks::<4>();
    // Keys are short; a longer one than 4 GiB is none.
    let mut hash = SEED ^ u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    for word in words {
        hash = hash.wrapping_mul(FACTOR) ^ mixed(u32::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u32::from_le_bytes(last)).wrapping_mul(FACTOR);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(FACTOR);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_where_kafka_s_java_client_puts_them() {
        // Of the recorded storage topics, and of the tests of Kafka's own client.
        let key = br#"["outbox-connector",{"server":"dbserver1"}]"#;
        assert_eq!(partition_of(key, 25), 5);
        assert_eq!(partition_of(b"status-connector-outbox-connector", 5), 3);
        for (text, hash) in [("21", -973_932_308), ("foobar", -790_332_482), ("abc", 479_470_107)] {
            assert_eq!(murmur2(text.as_bytes()), i32::cast_unsigned(hash), "{text}");
        }
    }
}
