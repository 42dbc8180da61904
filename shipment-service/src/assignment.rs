//! Which partitions are ours: what happens when the group gives some and takes some.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::Notify;

use crate::health::{Stage, Vitals};
use crate::kafka;

/// Hears from librdkafka about the group, and passes on what the consumer's loop must know.
pub(crate) struct Assignment {
    vitals: Arc<Vitals>,
    /// How often each partition was taken from us. A message belongs to the assignment it came under: when the number
    /// has grown since, another owner handles it, even if the partition has come back to us.
    revocations: Mutex<HashMap<i32, u64>>,
    /// Wakes the loop when one of them has grown.
    changed: Notify,
    /// Whether the loop wants no messages for now. Partitions that are given meanwhile are paused as well, and those
    /// given later are not: librdkafka remembers a pause beyond the loss of a partition.
    paused: AtomicBool,
}

impl Assignment {
    pub(crate) fn new(vitals: Arc<Vitals>) -> Assignment {
        Assignment {
            vitals,
            revocations: Mutex::default(),
            changed: Notify::new(),
            paused: AtomicBool::new(false),
        }
    }

    /// Returns when partitions were taken.
    pub(crate) async fn revocation(&self) {
        self.changed.notified().await;
    }

    /// How often this partition was taken so far.
    pub(crate) fn revocations(&self, partition: i32) -> u64 {
        let revocations = self.revocations.lock().unwrap_or_else(PoisonError::into_inner);
        revocations.get(&partition).copied().unwrap_or(0)
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Notes that Kafka answers. Logged when that is news.
    pub(crate) fn kafka_answers(&self) {
        if self.vitals.set_kafka_away(false) {
            tracing::info!("Kafka is back");
        }
    }

    /// Notes that no broker can be reached. librdkafka goes on trying by itself; said once for an outage.
    pub(crate) fn kafka_is_away(&self, reason: &str) {
        if self.vitals.set_kafka_away(true) {
            tracing::warn!(error = reason, "Kafka is away: the consumer waits for it");
        }
    }
}

impl ClientContext for Assignment {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.kafka_is_away(reason);
        } else {
            kafka::log(&error.to_string(), reason);
        }
    }
}

impl ConsumerContext for Assignment {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            let lost = consumer.assignment_lost();
            if lost {
                self.vitals.leave_group();
            } else {
                // What was handled is committed while the partitions are still ours, so that the next owner starts
                // behind it. Not waited for here: librdkafka gives the partitions back after the answer.
                commit(consumer);
            }
            tracing::info!(partitions = ?numbers(partitions), lost, "Partitions were taken by the group");
            let mut revocations = self.revocations.lock().unwrap_or_else(PoisonError::into_inner);
            for partition in numbers(partitions) {
                *revocations.entry(partition).or_insert(0) += 1;
            }
            self.changed.notify_one();
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                let applied = if self.paused.load(Ordering::Relaxed) {
                    consumer.pause(partitions)
                } else {
                    consumer.resume(partitions)
                };
                if let Err(error) = applied {
                    tracing::debug!(error = %error, "New partitions can't be paused or resumed");
                }
                self.vitals.enter(Stage::Joined);
                self.kafka_answers();
                tracing::info!(partitions = ?numbers(partitions), "Partitions were given by the group");
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => {
                tracing::warn!(error = %error, "The group could not rebalance")
            }
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        match result {
            Ok(()) => self.kafka_answers(),
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::NoOffset) => {}
            // Harmless: the messages come again, and the message log knows them.
            Err(error) => {
                tracing::info!(error = %error, "Consumer offsets were not committed; the next commit covers them");
            }
        }
    }
}

/// Begins to commit the stored offsets of the partitions that are ours. The result goes to the commit callback.
pub(crate) fn commit<C: ConsumerContext>(consumer: &impl Consumer<C>) {
    if let Err(error) = consumer.commit_consumer_state(CommitMode::Async)
        && error.rdkafka_error_code() != Some(RDKafkaErrorCode::NoOffset)
    {
        tracing::info!(error = %error, "Consumer offsets were not committed; the next commit covers them");
    }
}

fn numbers(partitions: &TopicPartitionList) -> Vec<i32> {
    partitions.elements().iter().map(|element| element.partition()).collect()
}
