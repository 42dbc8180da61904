//! Reads the position back that was committed last. Its calls block.
//!
//! A reader of committed records sees a partition up to the first transaction that is open in it, also when that one is
//! of another connector. So what the partition holds is noted first, and waited for: an older position would let events
//! be published again.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::SinkError;
use super::clients::connection_config;

/// One question to the brokers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the transactions of other connectors that share the partition are waited for; then all begins anew.
const OTHERS_TIMEOUT: Duration = Duration::from_secs(30);
/// How long reading the partition to its end may take.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// What all of it takes at the most: two requests, and one more at the end of each wait.
pub const TIMEOUT_MAX: Duration =
    REQUEST_TIMEOUT.saturating_mul(4).saturating_add(OTHERS_TIMEOUT).saturating_add(READ_TIMEOUT);
/// Between two looks at what is committed.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// The value that was committed last under `key`.
///
/// # Errors
/// When the brokers are away, or transactions stay open in the partition.
pub fn read(producer: &ClientConfig, topic: &str, key: &str) -> Result<Option<Vec<u8>>, SinkError> {
    let failed = |error| unreadable(topic, &error);
    let everything = consumer(producer, "read_uncommitted").map_err(failed)?;
    let committed = consumer(producer, "read_committed").map_err(failed)?;
    let position = read_with(&everything, &committed, topic, key);
    // A consumer that goes waits for its brokers without a limit: nobody has to wait for that.
    std::thread::spawn(move || drop((everything, committed)));
    position
}

fn read_with(
    everything: &BaseConsumer,
    committed: &BaseConsumer,
    topic: &str,
    key: &str,
) -> Result<Option<Vec<u8>>, SinkError> {
    let failed = |error| unreadable(topic, &error);
    let partitions = partitions(everything, topic).map_err(failed)?;
    let partition = partition_of(key.as_bytes(), partitions);
    let end = end(everything, topic, partition).map_err(failed)?;
    let until = Instant::now() + OTHERS_TIMEOUT;
    while self::end(committed, topic, partition).map_err(failed)? < end {
        if Instant::now() > until {
            let reason = format!(
                "transactions are open in partition {partition} of topic {topic} and hide the stored \
                 position: of other producers, which an offset topic of its own (OFFSET_STORAGE_TOPIC) \
                 keeps apart, or one whose commit a broker forgot when it died \
                 (kafka-transactions.sh find-hanging lists its partitions, abort takes it back; read \
                 docs/guarantees.md first)"
            );
            return Err(SinkError::Producer { reason });
        }
        std::thread::park_timeout(LOOK_INTERVAL);
    }
    last_value(committed, topic, partition, key).map_err(failed)
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

fn partitions(consumer: &BaseConsumer, topic: &str) -> KafkaResult<i32> {
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
    let mut asked = TopicPartitionList::new();
    // The logical offset in place of a time asks for the end.
    asked.add_partition_offset(topic, partition, Offset::End)?;
    let answered = consumer.offsets_for_times(asked, REQUEST_TIMEOUT)?;
    let found = answered.find_partition(topic, partition);
    match found.map(|found| found.offset()) {
        Some(Offset::Offset(end)) => Ok(end),
        _ => Err(KafkaError::OffsetFetch(RDKafkaErrorCode::Partial)),
    }
}

fn last_value(
    consumer: &BaseConsumer,
    topic: &str,
    partition: i32,
    key: &str,
) -> KafkaResult<Option<Vec<u8>>> {
    let mut assignment = TopicPartitionList::new();
    // Not `Beginning`: librdkafka would look for it first. Where offset 0 is gone, `auto.offset.reset` leads there.
    assignment.add_partition_offset(topic, partition, Offset::Offset(0))?;
    consumer.assign(&assignment)?;
    let until = Instant::now() + READ_TIMEOUT;
    let mut last = None;
    while Instant::now() < until {
        match consumer.poll(REQUEST_TIMEOUT) {
            Some(Ok(message)) if message.key() == Some(key.as_bytes()) => {
                last = message.payload().map(<[u8]>::to_vec);
            }
            Some(Ok(_)) | None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(last),
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
