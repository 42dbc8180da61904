//! Heartbeats and boundaries of transactions on a real PostgreSQL; their form is the conformance suite's to show.

use anyhow::Result;
use relay::record::Record;
use testbed::eventually;

use crate::outbox::{DEADLINE, Outbox, records};

#[tokio::test]
async fn the_query_of_a_heartbeat_is_run_again_and_again() -> Result<()> {
    let mut outbox = Outbox::new()
        .await?
        .with("heartbeat.interval.ms", "50")
        .with("heartbeat.action.query", "insert into inventory.beats default values");
    let (task, control) = outbox.start(100_000, true)?;
    // The table is not there yet: the stream goes on, and so do the attempts.
    outbox.streaming().await?;
    records(&control, 3).await?;
    outbox.execute("create table inventory.beats (id serial primary key)").await?;
    outbox.until_value("select count(*) >= 3 from inventory.beats", "true").await?;
    assert!(
        control.records().iter().all(|record| record.topic == "__debezium-heartbeat.dbserver1")
    );
    task.stop().await;
    let count = "select count(*) from inventory.beats";
    let before = outbox.value(count).await?;
    let records_before = control.records().len();
    // Another connector beats, long enough for this one to show that it does not.
    let other = Outbox::new().await?.with("heartbeat.interval.ms", "50");
    let (task, control_of_other) = other.start(100_000, true)?;
    records(&control_of_other, 5).await?;
    assert_eq!(outbox.value(count).await?, before);
    assert_eq!(control.records().len(), records_before);
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn begin_and_end_of_a_transaction_are_told_once_over_a_lost_connection() -> Result<()> {
    let mut outbox = Outbox::new()
        .await?
        .with("provide.transaction.metadata", "true")
        .with("topic.transaction", "tx");
    // Room for the begin and two of four events: the rest of the transaction waits.
    let (task, control) = outbox.start(3, false)?;
    outbox.streaming().await?;
    outbox
        .execute(
            "insert into inventory.outboxevent (aggregatetype, aggregateid, type, payload) \
             select 'Order', n::text, 'OrderCreated', '{}' from generate_series(1, 4) n",
        )
        .await?;
    records(&control, 3).await?;
    outbox
        .execute(&format!(
            "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '{}'",
            outbox.slot
        ))
        .await?;
    control.confirm_at_once();
    let all = eventually("the transaction's end", DEADLINE, || async {
        let records = control.records();
        let is_end = |record: &Record| value(record).contains("\"status\":\"END\"");
        Ok(records.iter().any(is_end).then_some(records))
    })
    .await?;
    let topics: Vec<&str> = all.iter().map(|record| record.topic.as_str()).collect();
    let events = ["OrderEvents"; 4];
    assert_eq!(topics, [&["dbserver1.tx"][..], &events, &["dbserver1.tx"]].concat());
    assert!(value(&all[5]).contains(
        "\"event_count\":4,\"data_collections\":[{\"data_collection\":\"inventory.outboxevent\",\"event_count\":4}]"
    ));
    // The end is confirmed before the slot moves.
    let end = outbox.wal_end().await?;
    outbox.until_acknowledged(&end).await?;
    task.stop().await;
    Ok(())
}

fn value(record: &Record) -> String {
    String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
}
