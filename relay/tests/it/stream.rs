//! From the WAL to the sink, on a real PostgreSQL: with a sink in memory where the moment of a confirmation matters.

use anyhow::{Context, Result};
use relay::sink::SinkError;
use relay::task::TaskState;
use sqlx::{Connection, PgConnection};
use testbed::eventually;

use crate::outbox::{DEADLINE, Outbox, keys, records, running, trace_of_failure};

#[tokio::test]
async fn a_row_becomes_a_record_with_topic_key_headers_and_plain_json() -> Result<()> {
    let mut outbox = Outbox::new().await?;
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    outbox.emit("1").await?;
    let records = records(&control, 1).await?;
    let record = &records[0];
    assert_eq!(record.topic, "OrderEvents");
    assert_eq!(record.partition, None);
    assert_eq!(record.key.as_deref(), Some(&b"1"[..]));
    assert_eq!(record.value.as_deref(), Some(&br#"{"id":1}"#[..]));
    let names: Vec<&str> = record.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["id", "eventType"]);
    assert_eq!(record.headers[1].1.as_deref(), Some(&b"OrderCreated"[..]));
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn nothing_is_acknowledged_before_it_is_confirmed() -> Result<()> {
    let mut outbox = Outbox::new().await?;
    let (task, control) = outbox.start(100, false)?;
    outbox.streaming().await?;
    let within_first = outbox.emit_and_locate("1").await?;
    outbox.emit("2").await?;
    let after_second = outbox.wal_end().await?;
    // Traffic in other tables brings keepalives, none of which may pass the open records.
    for id in 0..50 {
        outbox.execute(&format!("insert into inventory.other values ({id}, 'x')")).await?;
    }
    outbox.emit("3").await?;
    records(&control, 3).await?;
    // An acknowledgement that was sent after all of this was read goes as far as the first record, and no further.
    control.confirm_oldest();
    outbox.until_acknowledged(&within_first).await?;
    assert!(!outbox.acknowledged(&after_second).await?, "acknowledged without a confirmation");
    control.confirm_all();
    let end = outbox.wal_end().await?;
    outbox.until_acknowledged(&end).await?;
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_quiet_outbox_in_a_busy_database_holds_back_no_wal() -> Result<()> {
    let mut outbox = Outbox::new().await?;
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    for id in 0..100 {
        outbox.execute(&format!("insert into inventory.other values ({id}, 'x')")).await?;
    }
    let end = outbox.wal_end().await?;
    outbox.until_acknowledged(&end).await?;
    assert!(control.records().is_empty());
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn updates_deletes_and_rolled_back_rows_make_no_record() -> Result<()> {
    let mut outbox = Outbox::new().await?;
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    let insert = "insert into inventory.outboxevent (aggregatetype, aggregateid, type, payload)";
    outbox
        .execute(&format!(
            "begin; {insert} values ('Order', '8', 'OrderCreated', '{{}}'); rollback"
        ))
        .await?;
    // As the original order-service does: insert, update and delete in one transaction.
    outbox
        .execute(&format!(
            "begin; {insert} values ('Order', '9', 'OrderCreated', '{{}}'); \
             update inventory.outboxevent set type = type; delete from inventory.outboxevent; commit"
        ))
        .await?;
    outbox.emit("10").await?;
    assert_eq!(keys(&records(&control, 2).await?), ["9", "10"]);
    assert_eq!(task.state(), TaskState::Running);
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn rows_that_exist_at_the_first_start_are_published_once() -> Result<()> {
    let mut outbox = Outbox::new().await?;
    outbox
        .execute(
            "insert into inventory.outboxevent (aggregatetype, aggregateid, type, payload) \
             select 'Order', n::text, 'OrderCreated', '{}' from generate_series(1, 1200) n",
        )
        .await?;
    let (task, control) = outbox.start(100, false)?;
    // The sink is full long before the table is read: nothing moves until it confirms.
    records(&control, 100).await?;
    control.confirm_at_once();
    outbox.streaming().await?;
    outbox.emit("1201").await?;
    let published = keys(&records(&control, 1201).await?);
    let expected: Vec<String> = (1..=1201).map(|number| number.to_string()).collect();
    assert_eq!(published, expected);
    task.stop().await;

    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    outbox.emit("1202").await?;
    assert_eq!(keys(&records(&control, 1).await?), ["1202"]);
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_start_that_died_within_the_snapshot_reads_it_again() -> Result<()> {
    let mut outbox = Outbox::new().await?;
    for id in 1..=3 {
        outbox
            .execute(&format!(
                "insert into inventory.outboxevent (aggregatetype, aggregateid, type, payload) \
                 values ('Order', '{id}', 'OrderCreated', '{{}}')"
            ))
            .await?;
    }
    let (task, control) = outbox.start(2, false)?;
    records(&control, 2).await?;
    drop(task);
    // The first start has ended with two rows published and none confirmed: no slot is there.
    let (url, slot) = (outbox.database.url(), outbox.slot.clone());
    let (task, control) = outbox.start(100, true)?;
    assert_eq!(keys(&records(&control, 3).await?), ["1", "2", "3"]);
    outbox.streaming().await?;
    eventually("the lasting slot alone", DEADLINE, || async {
        let mut sql = PgConnection::connect(&url).await?;
        let slots: Vec<(String,)> = sqlx::query_as(
            "select slot_name::text from pg_replication_slots where database = current_database()",
        )
        .fetch_all(&mut sql)
        .await?;
        Ok((slots == [(slot.clone(),)]).then_some(()))
    })
    .await?;
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn without_a_snapshot_existing_rows_are_left_alone() -> Result<()> {
    let mut outbox = Outbox::new().await?.with("snapshot.mode", "no_data");
    outbox
        .execute(
            "insert into inventory.outboxevent (aggregatetype, aggregateid, type, payload) \
             values ('Order', '1', 'OrderCreated', '{}')",
        )
        .await?;
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    outbox.emit("2").await?;
    assert_eq!(keys(&records(&control, 1).await?), ["2"]);
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_lost_connection_repeats_nothing_that_was_published() -> Result<()> {
    let mut outbox = Outbox::new().await?;
    let (task, control) = outbox.start(100, false)?;
    outbox.streaming().await?;
    for id in 1..=5 {
        outbox.emit(&id.to_string()).await?;
    }
    records(&control, 5).await?;
    outbox
        .execute(&format!(
            "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '{}'",
            outbox.slot
        ))
        .await?;
    // Nothing was acknowledged, so PostgreSQL sends the five again; they are in flight or confirmed already.
    control.confirm_at_once();
    outbox.emit("6").await?;
    assert_eq!(keys(&records(&control, 6).await?), ["1", "2", "3", "4", "5", "6"]);
    let end = outbox.wal_end().await?;
    outbox.until_acknowledged(&end).await?;
    assert_eq!(control.records().len(), 6);
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_full_sink_stops_the_reading_and_loses_nothing() -> Result<()> {
    let mut outbox = Outbox::new().await?;
    let (task, control) = outbox.start(10, false)?;
    outbox.streaming().await?;
    outbox
        .execute(
            "insert into inventory.outboxevent (aggregatetype, aggregateid, type, payload) \
             select 'Order', n::text, 'OrderCreated', '{}' from generate_series(1, 5000) n",
        )
        .await?;
    assert_eq!(records(&control, 10).await?.len(), 10);
    control.confirm_at_once();
    let published = keys(&records(&control, 5000).await?);
    let expected: Vec<String> = (1..=5000).map(|number| number.to_string()).collect();
    assert_eq!(published, expected);
    let end = outbox.wal_end().await?;
    outbox.until_acknowledged(&end).await?;
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_stop_drains_what_is_in_flight_and_the_next_start_repeats_nothing() -> Result<()> {
    let mut outbox = Outbox::new().await?;
    let (task, control) = outbox.start(10, false)?;
    outbox.streaming().await?;
    outbox
        .execute(
            "insert into inventory.outboxevent (aggregatetype, aggregateid, type, payload) \
             select 'Order', n::text, 'OrderCreated', '{}' from generate_series(1, 50) n",
        )
        .await?;
    records(&control, 10).await?;
    // Half a transaction is published: the stop goes on to its end.
    let stopping = tokio::spawn(task.stop());
    control.confirm_at_once();
    stopping.await.context("stop")?;
    assert_eq!(control.records().len(), 50);

    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    outbox.emit("51").await?;
    assert_eq!(keys(&records(&control, 1).await?), ["51"]);
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_refused_record_stops_the_task_with_a_trace_and_is_not_acknowledged() -> Result<()> {
    let mut outbox = Outbox::new().await?;
    let (task, control) = outbox.start(100, false)?;
    outbox.streaming().await?;
    let before = outbox.wal_end().await?;
    outbox.emit("1").await?;
    records(&control, 1).await?;
    control.refuse_oldest(SinkError::Record {
        topic: "OrderEvents".to_owned(),
        reason: "it is larger than the topic takes".to_owned(),
    });
    let trace = trace_of_failure(&task).await?;
    assert!(trace.contains("OrderEvents") && trace.contains("restart"), "{trace}");
    let end = outbox.wal_end().await?;
    assert!(!outbox.acknowledged(&end).await?);
    assert!(outbox.acknowledged(&before).await? || control.records().len() == 1);

    let (task, control) = outbox.start(100, true)?;
    assert_eq!(keys(&records(&control, 1).await?), ["1"]);
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_row_that_cannot_be_routed_stops_the_task_and_names_table_and_position() -> Result<()> {
    let mut outbox = Outbox::new().await?;
    outbox.execute("alter table inventory.outboxevent alter aggregatetype drop not null").await?;
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    outbox
        .execute(
            "insert into inventory.outboxevent (aggregateid, type, payload) \
             values ('1', 'OrderCreated', '{}')",
        )
        .await?;
    let trace = trace_of_failure(&task).await?;
    assert!(trace.contains("inventory.outboxevent") && trace.contains("aggregatetype"), "{trace}");
    assert!(trace.contains("0/"), "{trace}");
    assert!(control.records().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_second_relay_stands_by_until_the_slot_is_free() -> Result<()> {
    let mut outbox = Outbox::new().await?;
    let (first, first_control) = outbox.start(100, true)?;
    // The slot is active before, while it is made of that of the snapshot.
    running(&first).await?;
    let (second, second_control) = outbox.start(100, true)?;
    outbox.emit("1").await?;
    records(&first_control, 1).await?;
    assert!(matches!(second.state(), TaskState::Starting | TaskState::StandingBy { .. }));
    assert!(second_control.records().is_empty());
    first.stop().await;
    outbox.emit("2").await?;
    assert_eq!(keys(&records(&second_control, 1).await?), ["2"]);
    second.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_outbox_table_may_come_later() -> Result<()> {
    let mut outbox = Outbox::new().await?;
    outbox.execute("alter table inventory.outboxevent rename to later").await?;
    let (task, control) = outbox.start(100, true)?;
    outbox.execute("alter table inventory.later rename to outboxevent").await?;
    outbox.streaming().await?;
    outbox.emit("1").await?;
    assert_eq!(keys(&records(&control, 1).await?), ["1"]);
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_wrong_password_stops_the_task_and_is_not_shown() -> Result<()> {
    let outbox = Outbox::new().await?.with("database.password", "a-wrong-secret");
    let (task, _control) = outbox.start(100, true)?;
    let trace = trace_of_failure(&task).await?;
    assert!(trace.contains("28P01"), "{trace}");
    assert!(!trace.contains("a-wrong-secret"));
    Ok(())
}

#[tokio::test]
async fn a_slot_that_vanishes_stops_the_task_instead_of_skipping_the_gap() -> Result<()> {
    let mut outbox = Outbox::new().await?;
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    outbox.emit("1").await?;
    records(&control, 1).await?;
    let slot = outbox.slot.clone();
    // The relay comes back at once, so that ending its session and dropping the slot must be one step.
    outbox
        .execute(&format!(
            "do $$ begin \
               for i in 1..10000 loop \
                 perform pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '{slot}'; \
                 begin \
                   perform pg_drop_replication_slot('{slot}'); return; \
                 exception when object_in_use then null; \
                 end; \
               end loop; \
             end $$"
        ))
        .await?;
    outbox.emit("2").await?;
    let trace = trace_of_failure(&task).await?;
    assert!(trace.contains("it was there and is gone"), "{trace}");
    assert_eq!(keys(&control.records()), ["1"]);
    Ok(())
}

#[tokio::test]
async fn running_means_that_the_slot_exists() -> Result<()> {
    let mut outbox = Outbox::new().await?;
    let (task, control) = outbox.start(100, true)?;
    let mut state = task.subscribe();
    tokio::time::timeout(DEADLINE, state.wait_for(|state| *state == TaskState::Running)).await??;
    outbox.emit("1").await?;
    assert_eq!(keys(&records(&control, 1).await?), ["1"]);
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_table_whose_shape_changes_in_mid_stream_goes_on() -> Result<()> {
    let mut outbox = Outbox::new().await?;
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    outbox.emit("1").await?;
    outbox.execute("alter table inventory.outboxevent add column more text default 'x'").await?;
    outbox.emit("2").await?;
    outbox.execute("alter table inventory.outboxevent drop column tracingspancontext").await?;
    outbox.emit("3").await?;
    assert_eq!(keys(&records(&control, 3).await?), ["1", "2", "3"]);
    task.stop().await;
    Ok(())
}
