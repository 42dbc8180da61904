//! `snapshot.*` on a real PostgreSQL: what is published of rows that exist when a connector starts.

use std::time::{Duration, Instant};

use anyhow::Result;
use relay::task::TaskState;
use sqlx::{Connection, PgConnection};

use crate::outbox::{DEADLINE, Outbox, keys, records, running};

const TABLE: &str = "inventory.outboxevent";

/// The session that reads a snapshot.
const READER: &str =
    "from pg_stat_activity where datname = current_database() and query like 'fetch %'";

#[tokio::test]
async fn always_publishes_what_is_there_at_each_start_and_loses_nothing_between() -> Result<()> {
    let mut outbox = Outbox::new().await?.with("snapshot.mode", "always");
    outbox.keep(TABLE, &["1"]).await?;
    let (task, control) = outbox.start(100, true)?;
    // Before it streams, a lost connection would have the snapshot taken again.
    running(&task).await?;
    outbox
        .execute(&format!(
            "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '{}'",
            outbox.slot
        ))
        .await?;
    outbox.keep(TABLE, &["2"]).await?;
    // A lost connection is no start.
    assert_eq!(keys(&records(&control, 2).await?), ["1", "2"]);
    let end = outbox.wal_end().await?;
    outbox.until_acknowledged(&end).await?;
    task.stop().await;

    let deleted = "begin; insert into inventory.outboxevent (aggregatetype, aggregateid, type, payload) \
                   values ('Order', '3', 'OrderCreated', '{}'); \
                   delete from inventory.outboxevent where aggregateid = '3'; commit";
    outbox.execute(deleted).await?;
    let (task, control) = outbox.start(100, true)?;
    // 3 is in no snapshot: its row is gone. The slot has it.
    assert_eq!(keys(&records(&control, 3).await?), ["1", "2", "3"]);
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn initial_only_publishes_what_is_there_and_streams_nothing() -> Result<()> {
    let mut outbox = Outbox::new().await?.with("snapshot.mode", "initial_only");
    outbox.keep(TABLE, &["1", "2"]).await?;
    let (task, control) = outbox.start(100, true)?;
    running(&task).await?;
    assert_eq!(keys(&control.records()), ["1", "2"]);
    // As with Debezium the task goes on running, without a slot and without a publication.
    assert_eq!(outbox.slots().await?, "");
    let publications = outbox.value("select count(*) from pg_publication").await?;
    assert_eq!(publications.as_deref(), Some("0"));
    assert_eq!(task.state(), TaskState::Running);
    assert!(task.stop().await);
    assert_eq!(control.records().len(), 2);
    Ok(())
}

#[tokio::test]
async fn when_needed_reads_again_what_is_there_when_the_slot_is_gone() -> Result<()> {
    let mut outbox = Outbox::new().await?.with("snapshot.mode", "when_needed");
    outbox.keep(TABLE, &["1"]).await?;
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    outbox.keep(TABLE, &["2"]).await?;
    assert_eq!(keys(&records(&control, 2).await?), ["1", "2"]);
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
    assert_eq!(keys(&records(&control, 4).await?), ["1", "2", "1", "2"]);
    outbox.streaming().await?;
    outbox.emit("3").await?;
    assert_eq!(keys(&records(&control, 5).await?).last().map(String::as_str), Some("3"));
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_snapshot_reads_the_tables_and_rows_that_it_is_told_to() -> Result<()> {
    let mut outbox = Outbox::new()
        .await?
        .with("table.include.list", "inventory.*")
        .with("snapshot.include.collection.list", "inventory.outboxEvent")
        .with("snapshot.select.statement.overrides", TABLE)
        .with(
            "snapshot.select.statement.overrides.inventory.outboxevent",
            "select * from inventory.outboxevent where aggregateid <> '2' order by aggregateid desc;",
        );
    outbox.execute("drop table inventory.other").await?;
    outbox
        .execute("create table inventory.second (like inventory.outboxevent including all)")
        .await?;
    outbox.keep(TABLE, &["1", "2", "3"]).await?;
    outbox.keep("inventory.second", &["4"]).await?;
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    outbox.keep("inventory.second", &["5"]).await?;
    // 4 is in a table that the snapshot leaves out; the stream does not.
    assert_eq!(keys(&records(&control, 3).await?), ["3", "1", "5"]);
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_snapshot_with_shared_locks_waits_for_a_lock_only_so_long() -> Result<()> {
    let mut outbox = Outbox::new()
        .await?
        .with("snapshot.mode", "always")
        .with("snapshot.locking.mode", "shared")
        .with("snapshot.lock.timeout.ms", "50");
    let (task, _control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    task.stop().await;
    outbox.keep(TABLE, &["1"]).await?;
    // Who changes the shape of a table takes this lock.
    let mut changer = PgConnection::connect(&outbox.database.url()).await?;
    sqlx::raw_sql("begin; lock table inventory.outboxevent in access exclusive mode")
        .execute(&mut changer)
        .await?;
    let (task, control) = outbox.start(100, true)?;
    let mut state = task.subscribe();
    let waits = |state: &TaskState| matches!(state, TaskState::Waiting { reason } if reason.contains("55P03"));
    tokio::time::timeout(DEADLINE, state.wait_for(waits)).await??;
    assert!(control.records().is_empty());
    sqlx::raw_sql("rollback").execute(&mut changer).await?;
    // Perhaps twice: the slot has the row as well.
    assert!(keys(&records(&control, 1).await?).iter().all(|key| key == "1"));
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_snapshot_fetches_as_many_rows_at_once_as_it_is_told_to() -> Result<()> {
    let mut outbox = Outbox::new().await?.with("snapshot.fetch.size", "3");
    outbox.keep(TABLE, &["1", "2", "3", "4", "5", "6", "7"]).await?;
    let (task, control) = outbox.start(5, false)?;
    records(&control, 5).await?;
    // The sink is full: the reader has its second fetch in hand.
    let last = format!("select query {READER}");
    outbox.until_value(&last, "fetch 3 from outbox_snapshot").await?;
    control.confirm_at_once();
    assert_eq!(records(&control, 7).await?.len(), 7);
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_snapshot_and_the_stream_begin_after_their_delays() -> Result<()> {
    let mut outbox =
        Outbox::new().await?.with("snapshot.delay.ms", "700").with("streaming.delay.ms", "700");
    outbox.keep(TABLE, &["1"]).await?;
    let begun = Instant::now();
    let (task, control) = outbox.start(100, true)?;
    records(&control, 1).await?;
    assert!(begun.elapsed() >= Duration::from_millis(700));
    running(&task).await?;
    assert!(begun.elapsed() >= Duration::from_millis(1400));
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn initial_statements_are_run_where_tables_are_read_and_not_on_the_stream() -> Result<()> {
    let mut outbox = Outbox::new()
        .await?
        .with("database.initial.statements", "set application_name = 'a;;b'; select 1");
    outbox.keep(TABLE, &["1", "2"]).await?;
    let (task, control) = outbox.start(1, false)?;
    records(&control, 1).await?;
    outbox.until_value(&format!("select application_name {READER}"), "a;b").await?;
    control.confirm_at_once();
    running(&task).await?;
    outbox.streaming().await?;
    let named = "select application_name from pg_stat_replication r \
                 join pg_replication_slots s on s.active_pid = r.pid and s.database = current_database()";
    // The slot is active a moment before the walsender shows itself.
    outbox.until_value(named, "outbox relay").await?;
    task.stop().await;
    Ok(())
}
