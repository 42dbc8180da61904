//! Statuses that wait to be written: in order, for as long as Kafka is away, and in bounded memory.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::topic_log::{TopicLog, WriteError};

/// From this many on, of several statuses of one key only the last is kept: then there are no more than keys.
const LENGTH_MAX: usize = 256;
/// Between attempts while Kafka is away.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// A record to write.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Waiting {
    number: u64,
    key: String,
    /// `None`: a tombstone.
    value: Option<Vec<u8>>,
}

/// Filled by everybody, emptied by one writer.
#[derive(Default)]
pub(super) struct StatusQueue {
    waiting: Mutex<Queue>,
    pushed: Notify,
    /// All below this number were written, or were followed by another of their key.
    written: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<Waiting>,
    /// Number of the next one.
    next: u64,
}

impl StatusQueue {
    /// Adds a record.
    pub(super) fn push(&self, key: String, value: Option<Vec<u8>>) {
        self.lock().push(key, value);
        self.pushed.notify_one();
    }

    /// Waits until every record that was added so far has been written.
    pub(super) async fn flushed(&self) {
        let next = self.lock().next;
        // The sender is a field of this.
        let _ = self.written.subscribe().wait_for(|written| *written >= next).await;
    }

    /// Writes what is added, for ever.
    pub(super) async fn write_all(&self, log: &TopicLog) {
        loop {
            let first = self.lock().records.front().cloned();
            let Some(Waiting { number, key, value }) = first else {
                self.pushed.notified().await;
                continue;
            };
            self.write(log, &key, value).await;
            let written = self.lock().done(number);
            self.written.send_replace(written);
        }
    }

    /// Writes a record, or what came after it under its key while Kafka was away.
    async fn write(&self, log: &TopicLog, key: &str, mut value: Option<Vec<u8>>) {
        let mut attempt = 0_u32;
        loop {
            match log.write(key, value.as_deref()).await {
                Ok(()) => return,
                Err(error @ WriteError::NotReadBack { .. }) => {
                    tracing::warn!(kafka.key = key, %error, "a status shows late");
                    return;
                }
                Err(error) => {
                    attempt += 1;
                    tracing::warn!(kafka.key = key, attempt, %error, "a status was not written, trying again");
                }
            }
            tokio::time::sleep(RETRY_DELAY).await;
            if let Some(latest) = self.lock().latest_after_outage(key) {
                value = latest;
            }
        }
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn push(&mut self, key: String, value: Option<Vec<u8>>) {
        self.records.push_back(Waiting { number: self.next, key, value });
        self.next += 1;
        if self.records.len() > LENGTH_MAX {
            self.keep_latest();
        }
    }

    /// Removes what was written; gives the number below which all is done.
    fn done(&mut self, number: u64) -> u64 {
        self.records.retain(|record| record.number != number);
        self.records.front().map_or(self.next, |record| record.number)
    }

    /// The latest value of a key, which then waits no more.
    fn latest_after_outage(&mut self, key: &str) -> Option<Option<Vec<u8>>> {
        self.keep_latest();
        let index = self.records.iter().rposition(|record| record.key == key)?;
        self.records.remove(index).map(|record| record.value)
    }

    /// Keeps the last record of each key, at its place.
    fn keep_latest(&mut self) {
        let mut seen = BTreeSet::new();
        let mut kept: VecDeque<Waiting> = VecDeque::new();
        for record in std::mem::take(&mut self.records).into_iter().rev() {
            if seen.insert(record.key.clone()) {
                kept.push_front(record);
            }
        }
        self.records = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(queue: &Queue) -> Vec<(&str, &[u8])> {
        queue
            .records
            .iter()
            .map(|record| (record.key.as_str(), record.value.as_deref().unwrap_or_default()))
            .collect()
    }

    #[test]
    fn every_status_is_written_in_order_while_kafka_is_there() {
        let mut queue = Queue::default();
        queue.push("task".into(), Some(b"1".into()));
        queue.push("connector".into(), Some(b"2".into()));
        queue.push("task".into(), Some(b"3".into()));
        let expected: [(&str, &[u8]); 3] = [("task", b"1"), ("connector", b"2"), ("task", b"3")];
        assert_eq!(values(&queue), expected);
        assert_eq!(queue.done(0), 1);
        assert_eq!(queue.done(1), 2);
        assert_eq!(queue.done(2), 3);
    }

    #[test]
    fn after_an_outage_the_latest_status_of_each_key_counts() {
        let mut queue = Queue::default();
        for (key, value) in [("task", "1"), ("connector", "2"), ("task", "3"), ("task", "4")] {
            queue.push(key.into(), Some(value.into()));
        }
        assert_eq!(queue.latest_after_outage("task"), Some(Some(b"4".to_vec())));
        let expected: [(&str, &[u8]); 1] = [("connector", b"2")];
        assert_eq!(values(&queue), expected);
        assert_eq!(queue.latest_after_outage("task"), None);
        assert_eq!(queue.done(0), 1, "the connector's still waits");
        assert_eq!(queue.done(1), 4);
    }

    #[test]
    fn a_long_outage_does_not_grow_the_queue() {
        let mut queue = Queue::default();
        for number in 0..100_000 {
            queue.push(format!("task-{}", number % 7), Some(number.to_string().into_bytes()));
        }
        assert!(queue.records.len() <= LENGTH_MAX);
        queue.keep_latest();
        assert_eq!(queue.records.len(), 7);
        assert_eq!(queue.records.back().unwrap().value.as_deref(), Some(b"99999".as_slice()));
    }
}
