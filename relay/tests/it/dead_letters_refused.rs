//! Records that Kafka refuses for their size: tried again, kept as dead letters, or the end of the task; never
//! overtaken.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use relay::task::TaskState;
use serde_json::Value;
use testbed::{eventually, servers, topic, unique_name};

use crate::outbox::{DEADLINE, Outbox, running, trace_of_failure};

/// What the topics of these tests take.
const LIMIT: &str = "3000";

/// Bytes of a payload that they do not take.
const TOO_LARGE: usize = 10_000;

/// An outbox whose events go to a topic that takes little.
struct Small {
    outbox: Outbox,
    topic: String,
    letters: String,
}

async fn admin() -> Result<AdminClient<DefaultClientContext>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers().await?.bootstrap_servers());
    Ok(config.create()?)
}

impl Small {
    async fn new() -> Result<Self> {
        let (topic, letters) = (unique_name("small"), unique_name("letters"));
        let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(1));
        let new = new.set("max.message.bytes", LIMIT);
        for created in admin().await?.create_topics([&new], &AdminOptions::new()).await? {
            created.map_err(|(topic, error)| anyhow::anyhow!("create {topic}: {error}"))?;
        }
        let outbox = Outbox::new().await?;
        let outbox = outbox.with("transforms.outbox.route.topic.replacement", &topic);
        Ok(Self { outbox, topic, letters })
    }

    fn with(self, option: &str, value: &str) -> Self {
        Self { outbox: self.outbox.with(option, value), ..self }
    }

    fn with_letters(self) -> Self {
        let letters = self.letters.clone();
        self.with("errors.tolerance", "all")
            .with("errors.deadletterqueue.topic.name", &letters)
            .with("errors.deadletterqueue.topic.replication.factor", "1")
            .with("relay.errors.parked.key", "park")
    }

    /// Inserts rows of a key in one transaction, each with its number and a filling of so many bytes.
    async fn emit(&mut self, key: &str, numbers: std::ops::Range<u32>, bytes: usize) -> Result<()> {
        let (from, to) = (numbers.start, numbers.end - 1);
        self.outbox
            .execute(&format!(
                "insert into inventory.outboxevent (aggregatetype, aggregateid, type, payload) \
                 select 'Order', '{key}', 'OrderCreated', \
                 jsonb_build_object('n', n, 'fill', repeat('x', {bytes})) \
                 from generate_series({from}, {to}) n"
            ))
            .await
    }

    /// Numbers of the events of a key that are in the topic.
    async fn published(&self, key: &str, count: usize) -> Result<Vec<u64>> {
        let bootstrap_servers = servers().await?.bootstrap_servers();
        let all = topic::wait_for(bootstrap_servers, &self.topic, count, DEADLINE).await?;
        let number = |record: &topic::Record| {
            serde_json::from_str::<Value>(&record.value_text()).ok()?["n"].as_u64()
        };
        Ok(all.iter().filter(|record| record.key_text() == key).filter_map(number).collect())
    }

    /// Kind and number of each dead letter.
    async fn letters(&self, count: usize) -> Result<Vec<(String, u64)>> {
        let bootstrap_servers = servers().await?.bootstrap_servers();
        let all = topic::wait_for(bootstrap_servers, &self.letters, count, DEADLINE).await?;
        let read = |record: &topic::Record| -> Result<(String, u64)> {
            let letter: Value = serde_json::from_str(&record.value_text())?;
            let payload = letter["change"]["after"]["payload"].as_str().context("no payload")?;
            let payload: Value = serde_json::from_str(payload)?;
            let kind = letter["kind"].as_str().context("no kind")?.to_owned();
            Ok((kind, payload["n"].as_u64().context("no number")?))
        };
        all.iter().map(read).collect()
    }

    async fn take_more(&self) -> Result<()> {
        let resource = ResourceSpecifier::Topic(&self.topic);
        let more = AlterConfig::new(resource).set("max.message.bytes", "1048588");
        for altered in admin().await?.alter_configs([&more], &AdminOptions::new()).await? {
            altered.map_err(|(_, error)| anyhow::anyhow!("alter the topic: {error}"))?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_record_larger_than_its_topic_takes_is_a_dead_letter_and_is_overtaken_by_none_of_its_key()
-> Result<()> {
    let mut small = Small::new().await?.with_letters();
    let task = small.outbox.start_to_test_kafka().await?;
    running(&task).await?;
    small.emit("1", 0..50, 100).await?;
    small.emit("1", 50..51, TOO_LARGE).await?;
    small.emit("1", 51..60, 100).await?;
    small.emit("2", 0..50, 100).await?;
    let first: Vec<u64> = (0..50).collect();
    assert_eq!(small.published("2", 100).await?, first);
    assert_eq!(small.published("1", 100).await?, first);
    let mut expected = vec![("refused".to_owned(), 50)];
    expected.extend((51..60).map(|number| ("parked".to_owned(), number)));
    assert_eq!(small.letters(10).await?, expected);
    let end = small.outbox.wal_end().await?;
    small.outbox.until_acknowledged(&end).await?;
    assert_eq!(task.state(), TaskState::Running);
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_topic_that_takes_less_than_a_batch_refuses_none_of_its_records() -> Result<()> {
    let mut small = Small::new().await?;
    let task = small.outbox.start_to_test_kafka().await?;
    running(&task).await?;
    // The first one waits for the topic's limit to be known, as after every start; the rest come at once.
    small.emit("1", 0..1, 10).await?;
    small.published("1", 1).await?;
    small.emit("1", 1..2_000, 300).await?;
    assert_eq!(small.published("1", 2_000).await?, (0..2_000).collect::<Vec<u64>>());
    assert_eq!(task.state(), TaskState::Running);
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_record_that_kafka_refuses_is_tried_again_for_as_long_as_the_options_say() -> Result<()> {
    let mut small = Small::new()
        .await?
        .with("errors.retry.timeout", "-1")
        .with("errors.retry.delay.max.ms", "300");
    let task = small.outbox.start_to_test_kafka().await?;
    running(&task).await?;
    small.emit("1", 0..1, 10).await?;
    small.emit("1", 1..2, TOO_LARGE).await?;
    small.emit("1", 2..10, 10).await?;
    assert_eq!(small.published("1", 1).await?, [0]);
    let tried_again = || async {
        let retries = task.health().errors().retries.load(Ordering::Relaxed);
        Ok((retries >= 3).then_some(()))
    };
    eventually("three retries", DEADLINE, tried_again).await?;
    assert_eq!(task.state(), TaskState::Running);
    let held = small.outbox.wal_end().await?;
    small.take_more().await?;
    assert_eq!(small.published("1", 10).await?, (0..10).collect::<Vec<u64>>());
    small.outbox.until_acknowledged(&held).await?;
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_record_that_kafka_refuses_stops_the_task_where_nothing_else_was_asked_for() -> Result<()>
{
    let mut small = Small::new().await?.with("errors.retry.timeout", "700");
    let task = small.outbox.start_to_test_kafka().await?;
    running(&task).await?;
    let begun = Instant::now();
    small.emit("1", 0..1, TOO_LARGE).await?;
    small.emit("1", 1..10, 10).await?;
    let trace = trace_of_failure(&task).await?;
    assert!(begun.elapsed() >= Duration::from_millis(700), "{:?}", begun.elapsed());
    // After 300 ms, and once more after 600: then the time is over.
    let retries = task.health().errors().retries.load(Ordering::Relaxed);
    assert!((1..=2).contains(&retries), "{retries}");
    assert!(trace.contains("max.message.bytes") && trace.contains(&small.topic), "{trace}");
    let stored = topic::read(servers().await?.bootstrap_servers(), &small.topic).await?;
    if let Some(overtaking) = stored.first() {
        bail!("a later event of the key was published: {}", overtaking.value_text());
    }
    Ok(())
}

#[tokio::test]
async fn an_event_of_several_megabytes_is_kept_whole_where_the_relay_makes_the_topic() -> Result<()>
{
    let mut small = Small::new().await?.with_letters();
    let task = small.outbox.start_to_test_kafka().await?;
    running(&task).await?;
    small.emit("1", 0..1, 3 << 20).await?;
    assert_eq!(small.letters(1).await?, [("refused".to_owned(), 0)]);
    let letters = topic::read(servers().await?.bootstrap_servers(), &small.letters).await?;
    assert!(letters[0].value.as_ref().is_some_and(|value| value.len() > 3 << 20));
    tokio::time::timeout(Duration::from_secs(30), task.stop()).await?;
    Ok(())
}
