//! The slot is watched, keeps to its budget, and a canary comes back through it, on a real PostgreSQL.

use std::time::Duration;

use anyhow::{Result, ensure};
use relay::health::State;
use relay::task::TaskHandle;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use testbed::{eventually, servers, unique_name};

use crate::connect_worker::{Worker, example_config, outbox_database};
use crate::outbox::{DEADLINE, Outbox, keys, records, running, trace_of_failure};

/// As the worker has it.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A MB of WAL that is no event.
const WRITE_MEGABYTE: &str = "insert into inventory.other select n, repeat(md5(n::text), 60) from generate_series(1, 500) n; \
     truncate inventory.other";

async fn until(what: &str, task: &TaskHandle, is: impl Fn(&State) -> bool) -> Result<State> {
    eventually(what, DEADLINE, || async {
        let state = task.health().look();
        ensure!(is(&state), "{state:?}");
        Ok(Some(state))
    })
    .await
}

#[tokio::test]
async fn a_slot_over_its_budget_makes_the_connector_unready_until_it_moves_again() -> Result<()> {
    let mut outbox = Outbox::new()
        .await?
        .with("relay.slot.poll.interval.ms", "20")
        .with("relay.slot.budget.bytes", "40000000");
    let (task, control) = outbox.start(1, false)?;
    running(&task).await?;
    let state = until("a look at the slot", &task, |state| state.slot.is_some()).await?;
    assert_eq!(state.unready(SILENCE_MAX), None);
    let report = state.slot.unwrap();
    assert!(report.look.active && report.look.wal_status == "reserved", "{report:?}");
    assert!(report.look.confirmed_flush_lsn.is_some() && report.budget_bytes == Some(40_000_000));

    outbox.emit("1").await?;
    records(&control, 1).await?;
    // Kafka confirms nothing, so that the slot stays where it is.
    for _ in 0..45 {
        outbox.execute(WRITE_MEGABYTE).await?;
    }
    let over = |state: &State| {
        state.unready(SILENCE_MAX).is_some_and(|why| why.contains("relay.slot.budget.bytes"))
    };
    let state = until("the budget is exceeded", &task, over).await?;
    let report = state.slot.unwrap();
    assert!(report.lag_bytes > 30_000_000 && report.lag > Duration::ZERO, "{report:?}");
    assert!(report.wal_rate > 0.0);
    control.confirm_at_once();
    // PostgreSQL frees WAL when it has noted that a later position is a good one to begin from.
    outbox.execute("select pg_log_standby_snapshot()").await.ok();
    outbox.emit("2").await?;
    until("it is ready again", &task, |state| state.unready(SILENCE_MAX).is_none()).await?;
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_slot_over_its_budget_is_dropped_only_where_that_is_asked_for_and_the_trace_says_what_is_lost()
-> Result<()> {
    let mut outbox = Outbox::new()
        .await?
        .with("relay.slot.poll.interval.ms", "20")
        .with("relay.slot.budget.bytes", "2000000")
        .with("relay.slot.budget.action", "drop");
    let (task, control) = outbox.start(1, false)?;
    running(&task).await?;
    outbox.emit("1").await?;
    records(&control, 1).await?;
    for _ in 0..5 {
        outbox.execute(WRITE_MEGABYTE).await?;
    }
    let trace = trace_of_failure(&task).await?;
    for word in ["was dropped", "relay.slot.budget.action=drop", "when_needed", "are lost"] {
        assert!(trace.contains(word), "{word} in {trace}");
    }
    assert_eq!(outbox.slots().await?, "");
    Ok(())
}

/// Waits for what `/health/ready` says of the connector `c`.
async fn told(worker: &Worker, status: u16, words: &str) -> Result<()> {
    eventually(&format!("{status}, {words}"), DEADLINE, || async {
        let (told, body) = worker.get("/health/ready").await?;
        ensure!(told == status && body["roles"]["c"].to_string().contains(words), "{told} {body}");
        Ok(Some(()))
    })
    .await
}

#[tokio::test]
async fn the_slot_of_a_paused_or_failed_connector_is_watched_and_makes_the_worker_unready()
-> Result<()> {
    let (database, mut sql) = outbox_database().await?;
    sqlx::raw_sql("create table inventory.other (id int primary key, text text)")
        .execute(&mut sql)
        .await?;
    let mut config = example_config(&database)?;
    config["relay.slot.poll.interval.ms"] = json!("20");
    config["relay.slot.budget.bytes"] = json!("40000000");
    let worker = Worker::start(&unique_name("resting"), &[]).await?;
    let path = "/connectors/c/config";
    let (status, answer) = worker.call("PUT", path, Some(&config)).await?;
    ensure!(status == 201, "{answer}");
    worker.states("c", "RUNNING", Some("RUNNING")).await?;
    assert_eq!(worker.call("PUT", "/connectors/c/pause", None).await?.0, 202);
    told(&worker, 200, "paused").await?;
    for _ in 0..45 {
        sqlx::raw_sql(WRITE_MEGABYTE).execute(&mut sql).await?;
    }
    told(&worker, 503, "relay.slot.budget.bytes").await?;
    worker.program.line("its budget is exceeded", DEADLINE).await?;
    let slot = config["slot.name"].as_str().unwrap_or_default().to_owned();
    let lag = format!("relay_slot_lag_bytes{{connector=\"c\",slot=\"{slot}\"}}");
    assert!(worker.text("/metrics").await?.contains(&lag));

    // A task that has failed for what an event lacks.
    config["transforms.outbox.table.fields.additional.placement"] = json!("nowhere:header");
    assert_eq!(worker.call("PUT", path, Some(&config)).await?.0, 200);
    assert_eq!(worker.call("PUT", "/connectors/c/resume", None).await?.0, 202);
    let emit = "insert into inventory.outboxevent (id, aggregatetype, aggregateid, type, timestamp, payload) \
                values (gen_random_uuid(), 'Order', '1', 'OrderCreated', now(), '{}')";
    sqlx::raw_sql(emit).execute(&mut sql).await?;
    worker.states("c", "RUNNING", Some("FAILED")).await?;
    eventually("figures of the slot", DEADLINE, || async {
        Ok(worker.text("/metrics").await?.contains(&lag).then_some(()))
    })
    .await?;
    told(&worker, 503, "the task failed").await?;

    config["relay.slot.budget.action"] = json!("drop");
    assert_eq!(worker.call("PUT", "/connectors/c/stop", None).await?.0, 204);
    assert_eq!(worker.call("PUT", path, Some(&config)).await?.0, 200);
    let count = format!("select count(*) from pg_replication_slots where slot_name = '{slot}'");
    eventually("the slot is dropped", DEADLINE, || async {
        let mut sql = PgConnection::connect(&database.url()).await?;
        let (count,): (i64,) =
            sqlx::query_as(sqlx::AssertSqlSafe(count.clone())).fetch_one(&mut sql).await?;
        Ok((count == 0).then_some(()))
    })
    .await?;
    worker.program.line("was dropped as relay.slot.budget.action=drop asks", DEADLINE).await?;
    told(&worker, 200, "paused").await?;
    Ok(())
}

#[tokio::test]
async fn a_canary_comes_back_again_and_again_and_is_never_published() -> Result<()> {
    let outbox = Outbox::new()
        .await?
        .with("relay.canary.interval.ms", "20")
        .with("provide.transaction.metadata", "true")
        .with("transforms", "");
    let (task, control) = outbox.start(100, true)?;
    let state = until("five canaries", &task, |state| state.canary.count() >= 5).await?;
    assert!(state.canary.round_trip().is_some_and(|time| time < DEADLINE));
    assert_eq!(state.unready(SILENCE_MAX), None);
    let published = control.records();
    assert!(published.is_empty(), "{published:?}");
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_stream_that_stands_still_is_not_ready_because_its_canary_is_late() -> Result<()> {
    let mut outbox = Outbox::new()
        .await?
        .with("relay.canary.interval.ms", "20")
        .with("relay.canary.timeout.ms", "500");
    let (task, control) = outbox.start(1, false)?;
    until("a canary", &task, |state| state.canary.count() >= 1).await?;
    // The sink is full, and what comes behind in the stream is not read: canaries go out and do not come back.
    outbox.emit("1").await?;
    outbox.emit("2").await?;
    let late =
        |state: &State| state.unready(SILENCE_MAX).is_some_and(|why| why.contains("no canary"));
    until("the canary is late", &task, late).await?;
    control.confirm_at_once();
    until("it is ready again", &task, |state| state.unready(SILENCE_MAX).is_none()).await?;
    assert_eq!(keys(&control.records()), ["1", "2"]);
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_stream_whose_records_nobody_confirms_is_not_ready() -> Result<()> {
    let mut outbox = Outbox::new().await?;
    let (task, control) = outbox.start(10, false)?;
    running(&task).await?;
    outbox.emit("1").await?;
    let patience = Duration::from_millis(1);
    let unconfirmed = |state: &State| {
        state.unready(patience).is_some_and(|why| why.contains("Kafka has confirmed nothing"))
    };
    until("it is not ready", &task, unconfirmed).await?;
    control.confirm_at_once();
    until("nothing is on its way", &task, |state| state.unconfirmed_for().is_none()).await?;
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_slot_that_cannot_be_looked_at_is_told_and_the_stream_goes_on() -> Result<()> {
    let mut outbox = Outbox::new()
        .await?
        .with("relay.slot.poll.interval.ms", "20")
        .with("relay.slot.budget.bytes", "1000000000");
    let (task, control) = outbox.start(100, true)?;
    running(&task).await?;
    until("a look at the slot", &task, |state| state.slot.is_some()).await?;
    // From here on the shape of the table is known, which takes a session as well.
    outbox.emit("1").await?;
    records(&control, 1).await?;
    // The stream's session stays; nobody gets another one, and the watch loses its own.
    let administrator = servers().await?.postgres_administrator(&outbox.database);
    let mut admin = PgConnection::connect(&administrator.url()).await?;
    let user = outbox.database.user.clone();
    let lock_out = format!(
        "alter role \"{user}\" connection limit 0; \
         select pg_terminate_backend(pid) from pg_stat_activity where usename = '{user}' \
         and query like '%safe_wal_size%' and backend_type = 'client backend'"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(lock_out)).execute(&mut admin).await?;
    let state = until("an error of the watch", &task, |state| state.slot_errors > 1).await?;
    assert!(state.slot_error.is_some());
    assert_eq!(state.unready(SILENCE_MAX), None);
    // A budget that nobody keeps for a minute is not kept.
    let unwatched = |state: &State| {
        let why = state.unready(Duration::from_millis(1));
        why.is_some_and(|why| why.contains("nobody keeps relay.slot.budget.bytes"))
    };
    until("nobody keeps the budget", &task, unwatched).await?;
    outbox.emit("2").await?;
    assert_eq!(keys(&records(&control, 2).await?), ["1", "2"]);
    let free = format!("alter role \"{user}\" connection limit -1");
    sqlx::raw_sql(sqlx::AssertSqlSafe(free)).execute(&mut admin).await?;
    until("a look that works", &task, |state| state.slot_error.is_none()).await?;
    task.stop().await;
    Ok(())
}
