//! SIGTERM in every phase: the relay ends within its bound, says what it drained, and nothing is lost.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use testbed::proxy::{Network, Proxy};
use testbed::server::{Kafka, Options, RunFolder};
use testbed::{Settings, eventually, servers};

use crate::connect_worker::{DEADLINE, Worker};
use crate::flow::{DRAIN_MAX, Flow, NAME};

/// What a stop may take beyond `SHUTDOWN_TIMEOUT`, as documented; and as much again for a machine with many tests on
/// it.
const GRACE: Duration = Duration::from_secs(2 * 4);

/// Stops it with SIGTERM; returns what it printed.
async fn stop(worker: &Worker) -> Result<String> {
    let begun = Instant::now();
    let status = worker.program.terminate().await?;
    let took = begun.elapsed();
    let output = worker.program.output().join("\n");
    ensure!(status.success(), "{status}\n{output}");
    ensure!(took < DRAIN_MAX + GRACE, "{took:?}\n{output}");
    ensure!(output.contains("relay stopped"), "{output}");
    Ok(output)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_starts_or_waits_for_postgresql_stops_at_once_and_loses_nothing() -> Result<()>
{
    let flow = Flow::new(servers().await?.bootstrap_servers(), &[]).await?;
    let worker = flow.streaming().await?;
    flow.events.emit(1, 5).await?;
    flow.events.delivered(5).await?;
    stop(&worker).await?;
    flow.events.emit(6, 10).await?;
    // Starting: it has just begun to read its topics.
    let worker = flow.start(&[])?;
    worker.program.line("REST API listens", DEADLINE).await?;
    stop(&worker).await?;
    let away = format!("{}:{}=127.0.0.1:1", flow.database.host, flow.database.port);
    let worker = flow.start(&[("RELAY_CONNECT_TO", &away)])?;
    worker.program.line("waiting: cannot connect", DEADLINE).await?;
    stop(&worker).await?;
    let worker = flow.start(&[])?;
    flow.events.delivered(10).await?;
    stop(&worker).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_mid_snapshot_ends_in_time_and_the_next_start_publishes_every_row() -> Result<()>
{
    // However fast the machine is, the snapshot lasts for seconds, longer than it takes to see its first row in the topic.
    const TABLE: &str = "inventory.outboxevent";
    const ROWS: u32 = 4_000;
    let options = [
        ("snapshot.select.statement.overrides", TABLE),
        (
            "snapshot.select.statement.overrides.inventory.outboxevent",
            "select * from inventory.outboxevent where pg_sleep(0.002) is not null",
        ),
    ];
    let flow = Flow::new(servers().await?.bootstrap_servers(), &options).await?;
    flow.events.keep(1, ROWS).await?;
    let worker = flow.start(&[])?;
    flow.register(&worker).await?;
    flow.arrived(1).await?;
    let output = stop(&worker).await?;
    ensure!(!output.contains("snapshot of the existing rows published"), "too late\n{output}");
    let worker = flow.start(&[])?;
    flow.events.delivered(ROWS).await?;
    flow.events.emit(ROWS + 1, ROWS + 5).await?;
    flow.events.delivered(ROWS + 5).await?;
    stop(&worker).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_drains_so_that_nothing_is_lost_or_repeated() -> Result<()> {
    // With `interval` a stop comes while a Kafka transaction is open.
    let once = ("exactly.once.support", "required");
    let interval =
        [once, ("transaction.boundary", "interval"), ("transaction.boundary.interval.ms", "1000")];
    for options in [&[][..], &[once], &interval] {
        let flow = Flow::new(servers().await?.bootstrap_servers(), options).await?;
        let worker = flow.streaming().await?;
        let emitter = flow.events.emit_from(1);
        flow.arrived(50).await?;
        let output = stop(&worker).await?;
        ensure!(output.contains("drained_records="), "{output}");
        ensure!(output.contains("left_records=0"), "{output}");
        ensure!(output.contains("task drained and stopped"), "{output}");
        let worker = flow.start(&[])?;
        worker.states(NAME, "RUNNING", Some("RUNNING")).await?;
        let last = emitter.stop().await?;
        let all = flow.events.delivered(last).await?;
        assert_eq!(all.len(), usize::try_from(last)?, "each once: {options:?}");
        stop(&worker).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_middle_of_a_large_transaction_loses_nothing() -> Result<()> {
    const ROWS: u32 = 20_000;
    for support in ["requested", "required"] {
        let options = [("exactly.once.support", support)];
        let flow = Flow::new(servers().await?.bootstrap_servers(), &options).await?;
        // The transaction takes longer to come than a stop may take to drain.
        let network = Proxy::to(flow.database.port).await?;
        let (host, port) = (&flow.database.host, flow.database.port);
        let via = format!("{host}:{port}=127.0.0.1:{}", network.port());
        let worker = flow.start(&[("RELAY_CONNECT_TO", &via)])?;
        flow.register(&worker).await?;
        worker.states(NAME, "RUNNING", Some("RUNNING")).await?;
        network.set(Network::Drip(1024));
        flow.events.keep(1, ROWS).await?;
        flow.arrived(1).await?;
        stop(&worker).await?;
        let so_far = flow.events.arrived().await?.len();
        let worker = flow.start(&[])?;
        let all = flow.events.delivered(ROWS).await?;
        ensure!(so_far < usize::try_from(ROWS)?, "{support}: too late, {so_far} were there");
        if support == "required" {
            assert_eq!(all.len(), usize::try_from(ROWS)?, "each once");
        }
        stop(&worker).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_the_broker_is_away_gives_up_in_time_and_says_what_is_left() -> Result<()> {
    let folder = RunFolder::create(&Settings::read(), false)?;
    let quiet: testbed::server::Progress = std::sync::Arc::new(|_: &str| {});
    let mut kafka = Kafka::start(&Settings::read(), &folder, Options::for_tests(), &quiet).await?;
    let flow = Flow::new(kafka.bootstrap_servers(), &[]).await?;
    let worker = flow.streaming().await?;
    flow.events.emit(1, 5).await?;
    flow.events.delivered(5).await?;
    kafka.kill().await;
    flow.events.emit(6, 15).await?;
    let mut sql = PgConnection::connect(&flow.database.url()).await?;
    let end = "select (pg_current_wal_lsn() - '0/0')::float8";
    let end: f64 = sqlx::query_scalar(end).fetch_one(&mut sql).await?;
    let received = || async {
        let metrics = worker.text("/metrics").await?;
        let told = metrics.lines().find(|line| line.starts_with("relay_stream_received_lsn{"));
        let told = told.and_then(|line| line.split(' ').nth(1)).context("no position")?;
        Ok((told.parse::<f64>()? >= end).then_some(()))
    };
    eventually("the events are received", DEADLINE, received).await?;
    let output = stop(&worker).await.context("the broker is away")?;
    ensure!(output.contains("left_records=10"), "{output}");
    kafka.restart().await?;
    let worker = flow.start(&[])?;
    flow.events.delivered(15).await?;
    stop(&worker).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_stops_at_once_and_the_stream_of_the_other_goes_on() -> Result<()> {
    let flow = Flow::new(servers().await?.bootstrap_servers(), &[]).await?;
    let active = flow.streaming().await?;
    let standby = flow.start(&[])?;
    standby.program.line("standing by until it is free", DEADLINE).await?;
    stop(&standby).await?;
    flow.events.emit(1, 5).await?;
    flow.events.delivered(5).await?;
    let (_, status) = active.get(&format!("/connectors/{NAME}/status")).await?;
    for part in [&status["connector"], &status["tasks"][0]] {
        assert_eq!(
            (&part["state"], &part["worker_id"]),
            (&json!("RUNNING"), &json!(active.address))
        );
    }
    stop(&active).await?;
    Ok(())
}
