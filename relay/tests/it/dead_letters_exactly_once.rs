//! Dead letters of a connector that delivers exactly once: in the same transactions as the events, and replayed in one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use relay::dead_letter::desk::ReplaySummary;
use relay::task::TaskHandle;
use testbed::{eventually, topic, unique_name};

use crate::exactly_once::Stage;
use crate::outbox::{DEADLINE, running, trace_of_failure};

/// Rows of one database transaction, more than one Kafka transaction takes.
const ROWS: usize = 12_000;

/// Each row of so many cannot be routed by its aggregate type.
const BAD_EVERY: usize = 40;

async fn stage_with(letters: &str) -> Result<Stage> {
    let mut stage = Stage::new().await?;
    let alter = "alter table inventory.outboxevent alter aggregatetype drop not null";
    stage.outbox.execute(alter).await?;
    Ok(stage
        .with("errors.tolerance", "all")
        .with("errors.deadletterqueue.topic.name", letters)
        .with("errors.deadletterqueue.topic.replication.factor", "1")
        .with("relay.errors.parked.key", "park"))
}

/// The events go to a topic that takes little.
async fn with_small_topic(stage: Stage) -> Result<(Stage, String)> {
    let small = unique_name("small");
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &stage.kafka);
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    let new = NewTopic::new(&small, 1, TopicReplication::Fixed(1)).set("max.message.bytes", "3000");
    for created in admin.create_topics([&new], &AdminOptions::new()).await? {
        created.map_err(|(topic, error)| anyhow::anyhow!("create {topic}: {error}"))?;
    }
    let stage = stage.with("transforms.outbox.route.topic.replacement", &small);
    Ok((Stage { topic: small.clone(), ..stage }, small))
}

async fn replay(task: &TaskHandle) -> Result<ReplaySummary> {
    let desk = task.dead_letters().context("no dead letters")?;
    let answered = desk.ask().context("too many have asked")?;
    tokio::time::timeout(DEADLINE, answered).await??.map_err(anyhow::Error::msg)
}

async fn until(counter: &AtomicU64, count: u64) -> Result<()> {
    eventually(&format!("a count of {count}"), DEADLINE, || async {
        Ok((counter.load(Ordering::Relaxed) == count).then_some(()))
    })
    .await
}

/// How often each key is there.
fn counted(keys: &[usize]) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    for key in keys {
        *counts.entry(*key).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_there_once_when_the_task_is_killed_and_so_is_its_replayed_event()
-> Result<()> {
    const BAD: usize = ROWS / BAD_EVERY;
    let letters = unique_name("letters");
    let mut stage = stage_with(&letters).await?;
    let task = stage.start()?;
    running(&task).await?;
    stage
        .outbox
        .execute(&format!(
            "insert into inventory.outboxevent (aggregatetype, aggregateid, type, payload) \
             select case when id % {BAD_EVERY} = 0 then null else 'Order' end, id, 'OrderCreated', '{{}}' \
             from generate_series(1, {ROWS}) id"
        ))
        .await?;
    // It dies between two parts.
    stage.until_committed(1).await?;
    task.abandon();
    let task = stage.start()?;
    let committed = stage.until_committed(ROWS - BAD).await?;
    let good: Vec<usize> = (1..=ROWS).filter(|id| id % BAD_EVERY != 0).collect();
    ensure!(committed == good, "{} events", committed.len());
    // Its key is parked since before the start.
    stage.emit(BAD_EVERY..=BAD_EVERY).await?;
    stage.emit(ROWS + 1..=ROWS + 1).await?;
    stage.until_committed(good.len() + 1).await?;
    let kept = topic::wait_for(&stage.kafka, &letters, BAD + 1, DEADLINE).await?;
    assert_eq!(kept.len(), BAD + 1);
    task.stop().await;

    let stage = stage.with("transforms.outbox.route.by.field", "type");
    let task = stage.start()?;
    running(&task).await?;
    let summary = replay(&task).await?;
    assert_eq!((summary.replayed, summary.dead_again, summary.complete), (301, 0, true));
    // Whoever was answered finds it committed.
    let mut expected = counted(&(1..=ROWS + 1).collect::<Vec<_>>());
    expected.insert(BAD_EVERY, 2);
    ensure!(counted(&stage.committed().await?) == expected, "not each event once");
    let nothing = replay(&task).await?;
    assert_eq!(nothing, ReplaySummary { complete: true, ..ReplaySummary::default() });
    task.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_finds_the_letters_that_are_not_committed_yet() -> Result<()> {
    let letters = unique_name("letters");
    let mut stage = stage_with(&letters)
        .await?
        .with("transaction.boundary", "interval")
        .with("transaction.boundary.interval.ms", "20000");
    let task = stage.start()?;
    running(&task).await?;
    stage
        .outbox
        .execute(
            "insert into inventory.outboxevent (aggregatetype, aggregateid, type, payload) \
             values (null, '7', 'OrderCreated', '{}')",
        )
        .await?;
    let counts = task.health().errors();
    until(&counts.dead_letters, 1).await?;
    // It fails again: the key stays parked.
    let summary = replay(&task).await?;
    assert_eq!((summary.dead_again, summary.complete), (1, true));
    stage.emit(8..=8).await?;
    stage.emit(7..=7).await?;
    // A stop reads nothing more.
    until(&counts.parked, 1).await?;
    task.stop().await;
    assert_eq!(stage.until_committed(1).await?, [8]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_kafka_refuses_within_a_transaction_stops_the_task_and_nothing_is_visible()
-> Result<()> {
    let letters = unique_name("letters");
    let (mut stage, small) = with_small_topic(stage_with(&letters).await?).await?;
    stage = stage.with("errors.retry.timeout", "-1");
    let task = stage.start()?;
    running(&task).await?;
    stage
        .outbox
        .execute(
            "insert into inventory.outboxevent (aggregatetype, aggregateid, type, payload) \
             values (null, '1', 'OrderCreated', '{}'), \
                    ('Order', '2', 'OrderCreated', jsonb_build_object('fill', repeat('x', 10000)))",
        )
        .await?;
    let trace = trace_of_failure(&task).await?;
    ensure!(trace.contains("max.message.bytes") && trace.contains(&small), "{trace}");
    for topic in [&small, &letters] {
        assert_eq!(topic::read(&stage.kafka, topic).await?.len(), 0, "{topic}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_takes_less_than_a_batch_refuses_no_transaction_of_small_records() -> Result<()>
{
    let (mut stage, _) = with_small_topic(Stage::new().await?).await?;
    let task = stage.start()?;
    running(&task).await?;
    stage.emit(1..=2_000).await?;
    let committed = stage.until_committed(2_000).await?;
    assert_eq!(committed, (1..=2_000).collect::<Vec<_>>());
    task.stop().await;
    Ok(())
}
