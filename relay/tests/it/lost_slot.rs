//! A slot that has really lost its WAL: the task stops and says what to do, and with `when_needed` no kept row is missing.

use anyhow::{Result, ensure};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use testbed::server::{Options, Postgres, Progress, RunFolder};
use testbed::{Settings, eventually, servers, unique_name};

use crate::connect_worker::{DEADLINE, Worker, example_config};
use crate::numbered_events::NumberedEvents;

const NAME: &str = "lost";

async fn execute(sql: &mut PgConnection, statement: &str) -> Result<()> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned())).execute(sql).await?;
    Ok(())
}

/// Lets PostgreSQL remove WAL that the slot needs: it may keep less than is written.
async fn lose(admin: &mut PgConnection, slot: &str) -> Result<()> {
    execute(admin, "alter system set max_slot_wal_keep_size = '1MB'").await?;
    execute(admin, "select pg_reload_conf()").await?;
    let admin = tokio::sync::Mutex::new(admin);
    eventually("the slot is lost", DEADLINE, || async {
        let mut admin = admin.lock().await;
        for _ in 0..3 {
            execute(&mut admin, "select pg_logical_emit_message(true, 'x', 'y')").await?;
            execute(&mut admin, "select pg_switch_wal()").await?;
        }
        execute(&mut admin, "checkpoint").await?;
        let status = "select wal_status from pg_replication_slots where slot_name = $1";
        let status: String = sqlx::query_scalar(status).bind(slot).fetch_one(&mut **admin).await?;
        ensure!(status == "lost", "{status}");
        Ok(Some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_lost_its_wal_stops_the_task_and_when_needed_publishes_every_kept_row()
-> Result<()> {
    let (settings, quiet) = (Settings::read(), std::sync::Arc::new(|_: &str| {}) as Progress);
    let folder = RunFolder::create(&settings, false)?;
    let server = Postgres::start(&settings, &folder, Options::for_tests(), &quiet).await?;
    let mut admin = PgConnection::connect(&server.admin().url()).await?;
    let database = server.create_database("orderdb", "relay", "secret").await?;
    let mut sql = PgConnection::connect(&database.url()).await?;
    execute(&mut sql, include_str!("connect_schema.sql")).await?;
    let mut config = example_config(&database)?;
    let slot = config["slot.name"].as_str().unwrap_or_default().to_owned();
    let events = NumberedEvents::new(&database, &slot, servers().await?.bootstrap_servers());

    let topics = unique_name("lost");
    let worker = Worker::start(&topics, &[]).await?;
    let body = json!({"name": NAME, "config": config});
    assert_eq!(worker.call("POST", "/connectors", Some(&body)).await?.0, 201);
    worker.states(NAME, "RUNNING", Some("RUNNING")).await?;
    events.keep(1, 3).await?;
    events.delivered(3).await?;
    worker.program.terminate().await?;
    events.keep(4, 6).await?;
    lose(&mut admin, &slot).await?;

    let worker = Worker::start_only(servers().await?.bootstrap_servers(), &topics, &[])?;
    let failed = worker.states(NAME, "RUNNING", Some("FAILED")).await?;
    let trace = failed["tasks"][0]["trace"].as_str().unwrap_or_default();
    for word in ["wal_status is lost", "committed after", "snapshot.mode=when_needed"] {
        ensure!(trace.contains(word), "{word} in {trace}");
    }
    assert_eq!(worker.get("/health/ready").await?.0, 503);
    assert_eq!(events.arrived().await?, [1, 2, 3], "nothing was skipped in silence");

    execute(&mut admin, "alter system reset max_slot_wal_keep_size").await?;
    execute(&mut admin, "select pg_reload_conf()").await?;
    config["snapshot.mode"] = json!("when_needed");
    let path = format!("/connectors/{NAME}/config");
    assert_eq!(worker.call("PUT", &path, Some(&config)).await?.0, 200);
    worker.states(NAME, "RUNNING", Some("RUNNING")).await?;
    // What comes while the new slot is there already, and is in no snapshot.
    events.emit(7, 9).await?;
    let all = events.delivered(9).await?;
    assert_eq!(all.last(), Some(&9));
    worker.ready().await?;
    worker.program.terminate().await?;
    Ok(())
}
