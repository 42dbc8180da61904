//! Exactly once: what a reader of committed records sees when tasks are killed, on a real PostgreSQL and a real Kafka.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use relay::config::{StorageTopic, WorkerConfig};
use relay::health::Role;
use relay::task::TaskHandle;
use serde_json::Value;
use testbed::server::{Kafka, Options, Progress, RunFolder, Signal};
use testbed::{Settings, eventually, servers, topic, unique_name};

use crate::outbox::{DEADLINE, Outbox, running};

/// An outbox whose connector delivers exactly once to a topic of its own.
pub(crate) struct Stage {
    pub(crate) outbox: Outbox,
    pub(crate) worker: WorkerConfig,
    pub(crate) kafka: String,
    pub(crate) topic: String,
    pub(crate) offsets: String,
}

impl Stage {
    pub(crate) async fn new() -> Result<Self> {
        Self::on(Outbox::new().await?).await
    }

    /// The same with an outbox that is there.
    pub(crate) async fn on(outbox: Outbox) -> Result<Self> {
        Self::with_broker(outbox, servers().await?.bootstrap_servers()).await
    }

    /// The same with a broker of its own.
    async fn with_broker(outbox: Outbox, kafka: &str) -> Result<Self> {
        let name = unique_name("once");
        let (topic, offsets) = (format!("Order_{name}"), format!("{name}_offsets"));
        topic::create(kafka, &topic, 1).await?;
        topic::create(kafka, &offsets, 1).await?;
        let outbox = outbox
            .with("exactly.once.support", "required")
            .with("transforms.outbox.route.topic.replacement", &topic);
        let worker = WorkerConfig {
            bootstrap_servers: kafka.to_owned(),
            group_id: name,
            offset_topic: StorageTopic { name: offsets.clone(), ..StorageTopic::default() },
            offset_flush_interval: Duration::from_secs(60),
            ..WorkerConfig::default()
        };
        Ok(Self { outbox, worker, kafka: kafka.to_owned(), topic, offsets })
    }

    pub(crate) fn with(mut self, option: &str, value: &str) -> Self {
        self.outbox = self.outbox.with(option, value);
        self
    }

    pub(crate) fn start(&self) -> Result<TaskHandle> {
        self.outbox.start_to_kafka(&self.worker, None)
    }

    /// One transaction of the database with rows of these ids.
    pub(crate) async fn emit(&mut self, ids: std::ops::RangeInclusive<usize>) -> Result<()> {
        let (first, last) = (ids.start(), ids.end());
        self.outbox
            .execute(&format!(
                "begin; insert into inventory.outboxevent (aggregatetype, aggregateid, type, payload) \
                 select 'Order', id, 'OrderCreated', '{{}}' from generate_series({first}, {last}) id; \
                 delete from inventory.outboxevent; commit"
            ))
            .await
    }

    /// The keys that a reader of committed records sees.
    pub(crate) async fn committed(&self) -> Result<Vec<usize>> {
        let records = topic::read(&self.kafka, &self.topic).await?;
        records.iter().map(|record| Ok(record.key_text().parse()?)).collect()
    }

    pub(crate) async fn until_committed(&self, count: usize) -> Result<Vec<usize>> {
        eventually(&format!("{count} committed records"), DEADLINE, || async {
            let committed = self.committed().await?;
            Ok((committed.len() >= count).then_some(committed))
        })
        .await
    }

    /// The positions that were committed, the last one at the end.
    pub(crate) async fn positions(&self) -> Result<Vec<Value>> {
        let records = topic::read(&self.kafka, &self.offsets).await?;
        let value = |record: &topic::Record| Ok(serde_json::from_str(&record.value_text())?);
        records.iter().map(value).collect()
    }

    pub(crate) async fn position(&self) -> Result<Value> {
        self.positions().await?.pop().context("no position is stored")
    }

    async fn check(&self, expected: usize) -> Result<()> {
        let committed = self.until_committed(expected).await?;
        assert_eq!(committed, (1..=expected).collect::<Vec<_>>());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_committed_records_sees_each_event_once_whenever_the_task_is_killed()
-> Result<()> {
    let mut stage = Stage::new().await?;
    let task = stage.start()?;
    running(&task).await?;
    task.abandon();
    let mut emitted = 0;
    for kill in 0..8_usize {
        let task = stage.start()?;
        let end = emitted + 120;
        while emitted < end {
            // Transactions of one and of several rows; in each life the task dies behind another number of them.
            let rows = 1 + emitted % 3;
            stage.emit(emitted + 1..=emitted + rows).await?;
            emitted += rows;
            if kill % 2 == 0 && emitted + 7 * kill > end {
                break;
            }
        }
        if kill % 3 != 0 {
            stage.until_committed(emitted - kill * 10).await?;
        }
        task.abandon();
    }
    let task = stage.start()?;
    stage.check(emitted).await?;
    assert!(task.stop().await);
    // A stop leaves the slot where the position is: nothing comes again, and nothing is refused.
    let task = stage.start()?;
    running(&task).await?;
    stage.emit(emitted + 1..=emitted + 1).await?;
    stage.check(emitted + 1).await?;
    task.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_database_transaction_is_published_in_parts_and_each_row_once() -> Result<()> {
    const ROWS: usize = 30_000;
    let mut stage = Stage::new().await?;
    let task = stage.start()?;
    running(&task).await?;
    stage.emit(1..=ROWS).await?;
    stage.until_committed(1).await?;
    task.abandon();
    let task = stage.start()?;
    stage.check(ROWS).await?;
    task.stop().await;
    let parts: BTreeSet<u64> =
        stage.positions().await?.iter().filter_map(|position| position["lsn"].as_u64()).collect();
    assert!(parts.len() >= ROWS / 10_000, "{parts:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_database_transaction_is_one_kafka_transaction() -> Result<()> {
    for (boundary, is_each) in [("connector", true), ("poll", false)] {
        let mut stage = Stage::new().await?.with("transaction.boundary", boundary);
        let task = stage.start()?;
        running(&task).await?;
        // The slot is known from now on.
        stage.emit(1..=1).await?;
        stage.until_committed(1).await?;
        task.stop().await;
        for first in (2..=11).step_by(2) {
            stage.emit(first..=first + 1).await?;
        }
        let task = stage.start()?;
        stage.check(11).await?;
        task.stop().await;
        // Each Kafka transaction ends with a marker, which has an offset of its own.
        let records = topic::read(&stage.kafka, &stage.topic).await?;
        let offsets: Vec<i64> = records.iter().map(|record| record.offset).collect();
        let steps: Vec<i64> = offsets.windows(2).map(|pair| pair[1] - pair[0]).collect();
        // Event 1 came alone; then there are five database transactions of two events each.
        let each = [2, 1, 2, 1, 2, 1, 2, 1, 2, 1];
        assert_eq!(steps.iter().filter(|step| **step == 1).count() > 5, !is_each, "{boundary}");
        assert!(!is_each || steps == each, "{boundary}: {steps:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_visible_after_the_interval() -> Result<()> {
    const INTERVAL: Duration = Duration::from_millis(1_500);
    let mut stage = Stage::new()
        .await?
        .with("transaction.boundary", "interval")
        .with("transaction.boundary.interval.ms", "1500");
    let task = stage.start()?;
    running(&task).await?;
    let begun = Instant::now();
    stage.emit(1..=1).await?;
    stage.emit(2..=2).await?;
    let visible = stage.until_committed(1).await?;
    assert_eq!(visible, [1, 2], "both are in one transaction");
    assert!(begun.elapsed() >= INTERVAL, "{:?}", begun.elapsed());
    task.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_position_decides_when_the_slot_has_not_heard_of_it() -> Result<()> {
    let mut stage = Stage::new().await?;
    let task = stage.start()?;
    running(&task).await?;
    stage.emit(1..=1).await?;
    stage.until_committed(1).await?;
    task.stop().await;
    let (slot, early) = (stage.outbox.slot.clone(), format!("{}_early", stage.outbox.slot));
    stage
        .outbox
        .execute(&format!("select pg_copy_logical_replication_slot('{slot}', '{early}')"))
        .await?;
    stage.emit(2..=20).await?;
    let task = stage.start()?;
    stage.until_committed(20).await?;
    task.stop().await;
    // The slot as a crash would have left it, with what was published already before it.
    stage
        .outbox
        .execute(&format!(
            "select pg_drop_replication_slot('{slot}'); \
             select pg_copy_logical_replication_slot('{early}', '{slot}'); \
             select pg_drop_replication_slot('{early}')"
        ))
        .await?;
    stage.emit(21..=21).await?;
    let task = stage.start()?;
    stage.check(21).await?;
    task.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_an_initial_snapshot_are_visible_together_and_once() -> Result<()> {
    let mut stage = Stage::new().await?;
    for id in 1..=3 {
        stage.outbox.keep("inventory.outboxevent", &[&id.to_string()]).await?;
    }
    let task = stage.start()?;
    stage.check(3).await?;
    running(&task).await?;
    task.abandon();
    let task = stage.start()?;
    stage.outbox.keep("inventory.outboxevent", &["4"]).await?;
    stage.check(4).await?;
    task.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_position_of_an_idle_slot_is_stored_before_it_is_acknowledged() -> Result<()> {
    let mut stage = Stage::new().await?;
    let task = stage.start()?;
    running(&task).await?;
    for id in 0..50 {
        stage.outbox.execute(&format!("insert into inventory.other values ({id}, 'x')")).await?;
    }
    let end = stage.outbox.wal_end().await?;
    stage.outbox.until_acknowledged(&end).await?;
    let stored = stage.position().await?["relay_lsn_flush"].as_u64().context("no bound")?;
    let beyond = format!(
        "select confirmed_flush_lsn > '0/0'::pg_lsn + {stored} from pg_replication_slots \
         where slot_name = '{}'",
        stage.outbox.slot
    );
    // Read in this order, the slot may have moved on, and the position with it: then it is read again.
    let is_beyond = stage.outbox.value(&beyond).await?;
    if is_beyond.as_deref() == Some("true") {
        let later = stage.position().await?["relay_lsn_flush"].as_u64().context("no bound")?;
        assert!(later > stored, "acknowledged beyond the stored position");
    }
    assert!(stage.committed().await?.is_empty());
    task.stop().await;
    Ok(())
}

/// Waits until `second` stands by, while `first` goes on.
async fn stands_by(second: &TaskHandle) -> Result<()> {
    eventually("the second stands by", DEADLINE, || async {
        let role = second.health().role();
        Ok(matches!(role, Role::StandingBy { .. }).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_stands_by_does_not_end_the_transactions_of_the_one_that_streams() -> Result<()>
{
    let mut stage = Stage::new().await?;
    let first = stage.start()?;
    running(&first).await?;
    stage.emit(1..=1).await?;
    stage.check(1).await?;
    let second = stage.start()?;
    stands_by(&second).await?;
    for id in 2..=20 {
        stage.emit(id..=id).await?;
    }
    stage.check(20).await?;
    assert_eq!(first.health().role(), Role::Streaming);
    assert_eq!(first.health().look().takeovers, 0);
    stands_by(&second).await?;
    first.abandon();
    stage.emit(21..=40).await?;
    stage.check(40).await?;
    assert_eq!(second.health().role(), Role::Streaming);
    second.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_comes_during_the_snapshot_of_another_one_leaves_it_alone() -> Result<()> {
    // The transactions are open during the delay, and there is no slot yet.
    let mut stage = Stage::new().await?.with("snapshot.delay.ms", "3000");
    for id in 1..=3 {
        stage.outbox.keep("inventory.outboxevent", &[&id.to_string()]).await?;
    }
    let first = stage.start()?;
    let locked = "select count(*) from pg_locks where locktype = 'advisory' and granted \
                  and database = (select oid from pg_database where datname = current_database())";
    stage.outbox.until_value(locked, "1").await?;
    let second = stage.start()?;
    stands_by(&second).await?;
    running(&first).await?;
    stage.check(3).await?;
    assert_eq!(first.health().role(), Role::Streaming);
    assert_eq!(first.health().look().takeovers, 0);
    first.abandon();
    stage.outbox.keep("inventory.outboxevent", &["4"]).await?;
    stage.check(4).await?;
    assert_eq!(second.health().role(), Role::Streaming);
    second.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_takes_longer_than_a_kafka_transaction_may_is_published_in_parts()
-> Result<()> {
    // However fast the machine is, reading the rows takes twice as long as a transaction may.
    let slowly = "select * from inventory.outboxevent where pg_sleep(0.004) is not null";
    let mut stage = Stage::new()
        .await?
        .with("producer.override.transaction.timeout.ms", "2000")
        // A fetch is read whole before a row of it is published: each takes a tenth of a second.
        .with("snapshot.fetch.size", "25")
        .with("snapshot.select.statement.overrides", "inventory.outboxevent")
        .with("snapshot.select.statement.overrides.inventory.outboxevent", slowly);
    let rows = 1_000;
    stage
        .outbox
        .execute(&format!(
            "insert into inventory.outboxevent (aggregatetype, aggregateid, type, payload) \
             select 'Order', id, 'OrderCreated', '{{}}' from generate_series(1, {rows}) id"
        ))
        .await?;
    let task = stage.start()?;
    stage.check(rows).await?;
    running(&task).await?;
    task.stop().await;
    // Each commit leaves a marker in the topic, which has an offset and is no record.
    let records = topic::read(&stage.kafka, &stage.topic).await?;
    let last = records.last().context("a record")?.offset;
    assert!(last >= i64::try_from(rows)?, "{last}: one part");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_for_longer_than_transactions_may_take_costs_nothing() -> Result<()> {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let (settings, quiet): (_, Progress) = (Settings::read(), Arc::new(|_: &str| {}));
    let folder = RunFolder::create(&settings, false)?;
    let mut kafka = Kafka::start(&settings, &folder, Options::for_tests(), &quiet).await?;
    let stage = Stage::with_broker(Outbox::new().await?, kafka.bootstrap_servers()).await?;
    let timeout = TIMEOUT.as_millis().to_string();
    let mut stage = stage.with("producer.override.transaction.timeout.ms", &timeout);
    let task = stage.start()?;
    running(&task).await?;
    stage.emit(1..=10).await?;
    stage.check(10).await?;
    // Killed: connections are refused. Standing still: nothing answers.
    for (is_killed, first) in [(true, 11), (false, 31)] {
        let last = first + 19;
        if is_killed {
            kafka.kill().await;
        } else {
            kafka.signal(Signal::STOP);
        }
        let away = Instant::now();
        for id in first..=last {
            stage.emit(id..=id).await?;
        }
        // The one that was open is over on both sides by then, and so are attempts to begin anew.
        eventually("the time of four transactions is over", DEADLINE, || {
            std::future::ready(Ok((away.elapsed() > TIMEOUT * 4).then_some(())))
        })
        .await?;
        if is_killed {
            kafka.restart().await?;
        } else {
            kafka.signal(Signal::CONT);
        }
        stage.check(last).await?;
    }
    task.stop().await;
    kafka.stop().await;
    Ok(())
}
