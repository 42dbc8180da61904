//! How far a topic of one partition has got, looked at often and cheaply.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

/// How often to look: each look costs the broker processor time that a drain should have, and a drain takes a second.
pub(super) const RARELY: Duration = Duration::from_millis(5);

/// For a single event.
pub(super) const OFTEN: Duration = Duration::from_millis(1);

/// For one request to the broker.
const REQUEST_BOUND: Duration = Duration::from_secs(10);

/// The end of partition 0.
pub(super) struct TopicEnd {
    consumer: BaseConsumer,
    topic: String,
}

/// When a wait was over: for the first new record, and for all of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reached {
    pub(super) first: Instant,
    pub(super) all: Instant,
}

impl TopicEnd {
    pub(super) fn open(bootstrap_servers: &str, topic: &str) -> Result<Self> {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap_servers)
            // Required by the client; nothing is committed to it.
            .set("group.id", "testbed-measure")
            .create()
            .context("create a Kafka client")?;
        Ok(Self { consumer, topic: topic.to_owned() })
    }

    /// The offset of the next record. Blocks.
    pub(super) fn get(&self) -> Result<i64> {
        let (_, end) = self
            .consumer
            .fetch_watermarks(&self.topic, 0, REQUEST_BOUND)
            .with_context(|| format!("the end of topic {}", self.topic))?;
        Ok(end)
    }

    /// Looks, with this pause in between, until the topic has grown by `count` records from the offset `from`. Blocks.
    ///
    /// # Errors
    /// When the deadline passes first: says how many there were.
    pub(super) fn wait_for(
        &self,
        from: i64,
        count: u32,
        pause: Duration,
        deadline: Duration,
    ) -> Result<Reached> {
        let until = Instant::now() + deadline;
        let mut first = None;
        loop {
            let grown = self.get()? - from;
            let now = Instant::now();
            if grown > 0 {
                first.get_or_insert(now);
            }
            if grown >= i64::from(count) {
                return Ok(Reached { first: first.unwrap_or(now), all: now });
            }
            if now > until {
                bail!("after {deadline:?} topic {} has {grown} of {count} records", self.topic);
            }
            std::thread::park_timeout(pause);
        }
    }
}
