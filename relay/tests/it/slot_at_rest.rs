//! The slot of a stopped connector, where more than one has to do with it.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use testbed::{PostgresDatabase, eventually, unique_name};

use crate::connect_slot_holder::SlotHolder;
use crate::connect_worker::{DEADLINE, Worker, example_config, outbox_database};

/// A MB of WAL that is no event.
const WRITE_MEGABYTE: &str = "insert into inventory.other select n, repeat(md5(n::text), 60) from generate_series(1, 500) n; \
     truncate inventory.other";

/// A connector with a small budget, which gives its slot up.
fn greedy(database: &PostgresDatabase) -> Result<Value> {
    let mut config = example_config(database)?;
    config["relay.slot.poll.interval.ms"] = json!("20");
    config["relay.slot.budget.bytes"] = json!("2000000");
    config["relay.slot.budget.action"] = json!("drop");
    Ok(config)
}

async fn execute(sql: &mut PgConnection, statement: &str) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(sql).await?;
    Ok(())
}

async fn write_too_much(sql: &mut PgConnection) -> Result<()> {
    for _ in 0..5 {
        execute(sql, WRITE_MEGABYTE).await?;
    }
    Ok(())
}

/// Makes the slot of a connector, and leaves it without a reader.
async fn rest(worker: &Worker, name: &str, config: &Value) -> Result<String> {
    let (status, answer) =
        worker.call("PUT", &format!("/connectors/{name}/config"), Some(config)).await?;
    ensure!(status == 201, "{answer}");
    worker.states(name, "RUNNING", Some("RUNNING")).await?;
    assert_eq!(worker.call("PUT", &format!("/connectors/{name}/stop"), None).await?.0, 204);
    worker.states(name, "STOPPED", None).await?;
    Ok(config["slot.name"].as_str().unwrap_or_default().to_owned())
}

async fn there_is(sql: &mut PgConnection, slot: &str) -> Result<bool> {
    let query = "select exists (select from pg_replication_slots where slot_name = $1)";
    Ok(sqlx::query_scalar(query).bind(slot).fetch_one(sql).await?)
}

async fn until_dropped(sql: &mut PgConnection, slot: &str) -> Result<()> {
    let sql = tokio::sync::Mutex::new(sql);
    eventually("the slot is dropped", DEADLINE, || async {
        Ok((!there_is(&mut **sql.lock().await, slot).await?).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_somebody_reads_from_is_dropped_when_it_is_free_and_two_workers_do_not_mind()
-> Result<()> {
    let (database, mut sql) = outbox_database().await?;
    execute(&mut sql, "create table inventory.other (id int primary key, text text)").await?;
    let topics = unique_name("held");
    let workers = [Worker::start(&topics, &[]).await?, Worker::start(&topics, &[]).await?];
    let slot = rest(&workers[0], "c", &greedy(&database)?).await?;
    let holder = SlotHolder::hold_still(&database, &slot, &mut sql).await?;
    execute(&mut sql, "call inventory.load_events('Order', 1, 1, false, 0)").await?;
    write_too_much(&mut sql).await?;
    for worker in &workers {
        worker.program.line("it is tried again at the next look", DEADLINE).await?;
    }
    assert!(there_is(&mut sql, &slot).await?);
    holder.die(&mut sql).await?;
    until_dropped(&mut sql, &slot).await?;
    for worker in &workers {
        worker.ready().await?;
        worker.states("c", "STOPPED", None).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_another_database_that_has_the_name_is_neither_watched_nor_dropped() -> Result<()> {
    let (theirs, mut their_sql) = outbox_database().await?;
    let (ours, mut sql) = outbox_database().await?;
    ensure!(theirs.name != ours.name, "two databases");
    execute(&mut sql, "create table inventory.other (id int primary key, text text)").await?;
    let worker = Worker::start(&unique_name("theirs"), &[]).await?;
    let mut config = greedy(&ours)?;
    let name = unique_name("theirs").replace('-', "_");
    config["slot.name"] = json!(name);
    let make = format!("select pg_create_logical_replication_slot('{name}', 'pgoutput')");
    execute(&mut their_sql, &make).await?;
    let body = json!({"name": "theirs", "config": config, "initial_state": "STOPPED"});
    assert_eq!(worker.call("POST", "/connectors", Some(&body)).await?.0, 201);
    worker.states("theirs", "STOPPED", None).await?;
    // Of the same age and budget, and looked at no earlier than theirs: when it is gone, theirs would be.
    let slot = rest(&worker, "ours", &greedy(&ours)?).await?;
    write_too_much(&mut sql).await?;
    until_dropped(&mut sql, &slot).await?;
    worker.ready().await?;
    assert!(there_is(&mut sql, &name).await?);
    let metrics = worker.text("/metrics").await?;
    assert!(!metrics.contains(&format!("slot=\"{name}\"")), "{metrics}");
    execute(&mut their_sql, &format!("select pg_drop_replication_slot('{name}')")).await
}
