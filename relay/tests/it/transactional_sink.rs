//! The sink of exactly-once mode on a real broker: what is visible, what is not, and who may go on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use pgoutput::Lsn;
use relay::connector_config::{Boundary, Transactions};
use relay::record::Record;
use relay::sink::transactional::TransactionalSink;
use relay::sink::{Committed, Confirmation, Sink, SinkError};
use relay::source_offset::SourceOffset;
use testbed::server::{Kafka, Options, Progress, RunFolder};
use testbed::{Settings, eventually, servers, topic, unique_name};

/// Within this time each fact must have become true.
const DEADLINE: Duration = Duration::from_secs(60);

struct Stage {
    kafka: String,
    topic: String,
    transactions: Transactions,
}

impl Stage {
    async fn new() -> Result<Self> {
        Self::on(servers().await?.bootstrap_servers()).await
    }

    async fn on(kafka: &str) -> Result<Self> {
        let name = unique_name("transactional");
        let transactions = Transactions {
            boundary: Boundary::Poll,
            transactional_id: format!("{name}-outbox-0"),
            timeout: Duration::from_secs(60),
            offset_topic: format!("{name}_offsets"),
            offset_key: r#"["outbox",{"server":"dbserver1"}]"#.to_owned(),
        };
        topic::create(kafka, &name, 1).await?;
        topic::create(kafka, &transactions.offset_topic, 5).await?;
        Ok(Self { kafka: kafka.to_owned(), topic: name, transactions })
    }

    async fn open(&self) -> Result<(TransactionalSink, Option<SourceOffset>)> {
        // The leaders of partitions that were just made may not be known everywhere: then a task begins anew, too.
        let (sink, opened) = eventually("an open sink", DEADLINE, || async {
            let (kafka, transactions) = (&self.kafka, &self.transactions);
            let mut sink = TransactionalSink::start(kafka, &BTreeMap::new(), transactions)?;
            let opened = sink.open().await?;
            Ok(Some((sink, opened)))
        })
        .await?;
        let Some(Committed { position }) = opened else { anyhow::bail!("no position") };
        Ok((sink, position))
    }

    async fn publish(&self, sink: &mut TransactionalSink, value: &str) -> Result<()> {
        let (topic, key) = (self.topic.clone(), Some(b"1".to_vec()));
        let value = Some(value.as_bytes().to_vec());
        let record = Record { topic, key, value, ..Record::default() };
        // Until the topic's limit is known, one record at a time is under way.
        while !sink.has_room(&record) {
            tokio::time::timeout(DEADLINE, sink.confirmed()).await?;
        }
        sink.publish(0, record);
        Ok(())
    }

    /// What a reader of committed records sees: values, and the number of positions.
    async fn visible(&self) -> Result<(Vec<String>, usize)> {
        let records = topic::read(&self.kafka, &self.topic).await?;
        let positions = topic::read(&self.kafka, &self.transactions.offset_topic).await?;
        Ok((records.iter().map(topic::Record::value_text).collect(), positions.len()))
    }
}

fn position(lsn: u64) -> SourceOffset {
    SourceOffset::at(Lsn::new(lsn), 0)
}

async fn outcome(sink: &mut TransactionalSink) -> Result<Confirmation> {
    let mut confirmations = Vec::new();
    sink.take_confirmations(&mut confirmations);
    while confirmations.is_empty() {
        tokio::time::timeout(DEADLINE, sink.confirmed()).await?;
        sink.take_confirmations(&mut confirmations);
    }
    Ok(confirmations.remove(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn records_and_position_become_visible_together() -> Result<()> {
    let stage = Stage::new().await?;
    let (mut sink, found) = stage.open().await?;
    assert_eq!(found, None);
    for number in 0..100 {
        stage.publish(&mut sink, &number.to_string()).await?;
    }
    assert_eq!(stage.visible().await?, (vec![], 0));
    sink.commit(7, Some(&position(100)));
    let confirmed = outcome(&mut sink).await?;
    assert!(confirmed.outcome.is_ok() && confirmed.sequence == 7, "{confirmed:?}");
    let expected: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    assert_eq!(stage.visible().await?, (expected, 1));
    // One that dies with a transaction open leaves the position where it was.
    stage.publish(&mut sink, "100").await?;
    drop(sink);
    let (sink, found) = stage.open().await?;
    assert_eq!(found, Some(position(100)));
    assert_eq!(stage.visible().await?.0.len(), 100);
    sink.close();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_is_never_visible() -> Result<()> {
    let stage = Stage::new().await?;
    let (mut sink, _) = stage.open().await?;
    stage.publish(&mut sink, "given up").await?;
    tokio::task::spawn_blocking(move || sink.close()).await?;
    let (mut sink, found) = stage.open().await?;
    assert_eq!(found, None);
    stage.publish(&mut sink, "kept").await?;
    sink.commit(0, Some(&position(8)));
    assert!(outcome(&mut sink).await?.outcome.is_ok());
    assert_eq!(stage.visible().await?, (vec!["kept".to_owned()], 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_replaced_is_fenced_and_its_records_are_never_visible() -> Result<()> {
    let stage = Stage::new().await?;
    let (mut old, _) = stage.open().await?;
    stage.publish(&mut old, "first").await?;
    old.commit(0, Some(&position(8)));
    assert!(outcome(&mut old).await?.outcome.is_ok());
    stage.publish(&mut old, "of the old one").await?;
    let (mut new, found) = stage.open().await?;
    assert_eq!(found, Some(position(8)));
    old.commit(1, Some(&position(16)));
    let refused = outcome(&mut old).await?.outcome;
    assert!(matches!(refused, Err(SinkError::Fenced { .. })), "{refused:?}");
    stage.publish(&mut new, "of the new one").await?;
    new.commit(1, Some(&position(16)));
    assert!(outcome(&mut new).await?.outcome.is_ok());
    let expected = ["first", "of the new one"].map(str::to_owned).to_vec();
    assert_eq!(stage.visible().await?, (expected, 2));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_broker_refuses_takes_its_transaction_along() -> Result<()> {
    let stage = Stage::new().await?;
    let (mut sink, _) = stage.open().await?;
    stage.publish(&mut sink, "before").await?;
    // Above the `max.message.bytes` that a topic has when nothing is set.
    stage.publish(&mut sink, &"x".repeat(2 << 20)).await?;
    let refused = outcome(&mut sink).await?.outcome;
    let Err(SinkError::Record { reason, .. }) = &refused else { anyhow::bail!("{refused:?}") };
    assert!(reason.contains("max.message.bytes"), "{reason}");
    tokio::task::spawn_blocking(move || sink.close()).await?;
    assert_eq!(stage.visible().await?, (vec![], 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_takes_too_long_is_told_as_that() -> Result<()> {
    let mut stage = Stage::new().await?;
    stage.transactions.timeout = Duration::from_secs(1);
    let (mut sink, _) = stage.open().await?;
    stage.publish(&mut sink, "late").await?;
    let begun = tokio::time::Instant::now();
    eventually("the time of the transaction is over", DEADLINE, || async {
        Ok((begun.elapsed() > stage.transactions.timeout).then_some(()))
    })
    .await?;
    // Brokers end such transactions from time to time, in the way in which a successor does it.
    drop(stage.open().await?);
    sink.commit(0, Some(&position(8)));
    let refused = outcome(&mut sink).await?.outcome;
    let Err(SinkError::TransactionTimeout { reason }) = &refused else {
        anyhow::bail!("{refused:?}")
    };
    assert!(reason.contains("transaction.timeout.ms"), "{reason}");
    assert_eq!(stage.visible().await?, (vec![], 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_another_producer_s_open_transaction_hides_is_waited_for() -> Result<()> {
    let mut stage = Stage::new().await?;
    // One partition for all keys.
    stage.transactions.offset_topic = unique_name("shared_offsets");
    topic::create(&stage.kafka, &stage.transactions.offset_topic, 1).await?;
    let of_other = Transactions {
        transactional_id: unique_name("other"),
        offset_topic: stage.topic.clone(),
        ..stage.transactions.clone()
    };
    let (mut sink, _) = stage.open().await?;
    let mut other = TransactionalSink::start(&stage.kafka, &BTreeMap::new(), &of_other)?;
    other.open().await?;
    let (topic, key) = (stage.transactions.offset_topic.clone(), Some(b"other".to_vec()));
    let record = Record { topic, key, value: Some(b"{}".to_vec()), ..Record::default() };
    other.publish(0, record);
    tokio::time::timeout(DEADLINE, other.confirmed()).await?;
    // Its transaction is open in front of this position.
    sink.commit(0, Some(&position(8)));
    assert!(outcome(&mut sink).await?.outcome.is_ok());
    drop(sink);
    let opening = stage.open();
    tokio::pin!(opening);
    // What is hidden would be found missing within this time.
    assert!(tokio::time::timeout(Duration::from_secs(2), &mut opening).await.is_err());
    other.commit(0, None);
    assert!(outcome(&mut other).await?.outcome.is_ok());
    let (_, found) = opening.await?;
    assert_eq!(found, Some(position(8)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_whose_commit_a_broker_forgot_is_not_passed_over() -> Result<()> {
    let settings = Settings::read();
    let folder = RunFolder::create(&settings, false)?;
    let quiet: Progress = Arc::new(|_: &str| {});
    let mut kafka = Kafka::start(&settings, &folder, Options::for_tests(), &quiet).await?;
    let stage = Stage::on(kafka.bootstrap_servers()).await?;
    let (mut sink, _) = stage.open().await?;
    for (value, lsn) in [("1", 8), ("2", 16)] {
        stage.publish(&mut sink, value).await?;
        sink.commit(0, Some(&position(lsn)));
        assert!(outcome(&mut sink).await?.outcome.is_ok());
    }
    drop(sink);
    // Opened again, so that every marker is there.
    drop(stage.open().await?);
    let positions = topic::read(&stage.kafka, &stage.transactions.offset_topic).await?;
    let partition = positions.first().context("a position")?.partition;
    kafka.kill().await;
    kafka.take_last_marker(&stage.topic, 0)?;
    kafka.take_last_marker(&stage.transactions.offset_topic, partition)?;
    kafka.restart().await?;
    assert_eq!(stage.visible().await?, (vec!["1".to_owned()], 1));
    // With the position before it, the second event would be published again, and come twice.
    eventually("a refusal that says why", DEADLINE * 2, || async {
        let mut sink =
            TransactionalSink::start(&stage.kafka, &BTreeMap::new(), &stage.transactions)?;
        let refused = sink.open().await;
        anyhow::ensure!(refused.is_err(), "opened with {refused:?}");
        let told = refused.err().map(|error| error.to_string()).unwrap_or_default();
        Ok(told.contains("whose commit a broker forgot").then_some(()))
    })
    .await
}
