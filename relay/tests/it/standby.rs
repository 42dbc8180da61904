//! Several relays with the same group and storage topics: one streams, the others stand by and take over.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use relay::health::Role;
use serde_json::{Value, json};
use sqlx::PgConnection;
use testbed::proxy::{Network, Proxy};
use testbed::{PostgresDatabase, eventually, servers, unique_name};

use crate::connect_worker::{DEADLINE, Worker, example_config, outbox_database};
use crate::numbered_events::NumberedEvents;
use crate::outbox::{Outbox, keys, records, running};

const NAME: &str = "shared";

/// The bound is two seconds; it is measured by `cargo chaos takeover` on a quiet machine. Here many tests share
/// two cores.
const TAKEOVER_MAX: Duration = Duration::from_secs(10);

/// A connector that two relays share.
struct Pair {
    sql: PgConnection,
    active: Worker,
    standby: Worker,
    events: NumberedEvents,
    slot: String,
    topics: String,
}

impl Pair {
    async fn start(options: &[(&str, &str)]) -> Result<Self> {
        let (database, sql) = outbox_database().await?;
        Self::on(database, sql, options, &[]).await
    }

    /// The active one reaches PostgreSQL through a network of its own.
    async fn start_behind_a_network(options: &[(&str, &str)]) -> Result<(Self, Proxy)> {
        let (database, sql) = outbox_database().await?;
        let network = Proxy::to(database.port).await?;
        let via = format!("{}:{}=127.0.0.1:{}", database.host, database.port, network.port());
        let pair = Self::on(database, sql, options, &[("RELAY_CONNECT_TO", &via)]).await?;
        Ok((pair, network))
    }

    async fn on(
        database: PostgresDatabase,
        sql: PgConnection,
        options: &[(&str, &str)],
        env_of_active: &[(&str, &str)],
    ) -> Result<Self> {
        let topics = unique_name("pair");
        let active = Worker::start(&topics, env_of_active).await?;
        let mut config = example_config(&database)?;
        for (option, value) in options {
            config[*option] = json!(value);
        }
        let slot = config["slot.name"].as_str().unwrap_or_default().to_owned();
        let body = json!({"name": NAME, "config": config});
        let (status, answer) = active.call("POST", "/connectors", Some(&body)).await?;
        ensure!(status == 201, "{answer}");
        active.states(NAME, "RUNNING", Some("RUNNING")).await?;
        let standby = Worker::start(&topics, &[]).await?;
        standby.has_role("standby").await?;
        let events = NumberedEvents::new(&database, &slot, servers().await?.bootstrap_servers());
        Ok(Self { sql, active, standby, events, slot, topics })
    }
}

impl Worker {
    /// Waits until `/health/ready` tells this role of the connector, and returns the status of that answer.
    pub(crate) async fn has_role(&self, role: &str) -> Result<u16> {
        let what = format!("role {role} at {}", self.address);
        let found = eventually(&what, DEADLINE, || async {
            let (status, body) = self.get("/health/ready").await?;
            ensure!(body["roles"][NAME]["role"] == role, "{body}");
            Ok(Some(status))
        });
        found.await.with_context(|| self.program.tail())
    }

    /// Waits until connector and task are RUNNING by `worker`, as this one tells.
    async fn tells_running_by(&self, worker: &str) -> Result<()> {
        let what = format!("RUNNING by {worker}");
        let found = eventually(&what, DEADLINE, || async {
            let (_, status) = self.get(&format!("/connectors/{NAME}/status")).await?;
            for part in [&status["connector"], &status["tasks"][0]] {
                ensure!(part["state"] == "RUNNING" && part["worker_id"] == worker, "{status}");
            }
            Ok(Some(()))
        });
        found.await.with_context(|| self.program.tail())
    }

    fn send(&self, signal: &str) -> Result<()> {
        let pid = self.program.pid().to_string();
        ensure!(Command::new("kill").args([signal, &pid]).status()?.success());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_from_a_killed_relay_and_no_event_is_lost() -> Result<()> {
    let pair = Pair::start(&[]).await?;
    pair.events.emit(1, 20).await?;
    pair.events.delivered(20).await?;
    // Both tell the same: who streams.
    for worker in [&pair.active, &pair.standby] {
        worker.tells_running_by(&pair.active.address).await?;
        assert_eq!(worker.get("/health/ready").await?.0, 200);
    }
    let emitter = pair.events.emit_from(21);
    pair.active.program.kill().await;
    let killed = Instant::now();
    pair.standby.has_role("streaming").await?;
    let took = killed.elapsed();
    let last = emitter.stop().await?;
    assert!(took < TAKEOVER_MAX, "{took:?}");
    println!("takeover after {took:?}");
    pair.events.delivered(last).await?;
    pair.standby.tells_running_by(&pair.standby.address).await?;
    let metrics = pair.standby.text("/metrics").await?;
    let told = format!("relay_takeovers_total{{connector=\"{NAME}\"}} 1\n");
    assert!(metrics.contains(&told), "{metrics}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_relays_one_streams_at_a_time_until_the_last_is_left() -> Result<()> {
    let pair = Pair::start(&[("exactly.once.support", "required")]).await?;
    let third = Worker::start(&pair.topics, &[]).await?;
    third.has_role("standby").await?;
    let emitter = pair.events.emit_from(1);
    pair.events.more_than(20).await?;
    pair.active.program.kill().await;
    // Whichever is first: the other one goes on waiting.
    let (next, last) = eventually("the next one streams", DEADLINE, || async {
        let streams = async |worker: &Worker| -> Result<bool> {
            let (_, body) = worker.get("/health/ready").await?;
            Ok(body["roles"][NAME]["role"] == "streaming")
        };
        Ok(match (streams(&pair.standby).await?, streams(&third).await?) {
            (true, false) => Some((&pair.standby, &third)),
            (false, true) => Some((&third, &pair.standby)),
            (false, false) => None,
            (true, true) => anyhow::bail!("both stream"),
        })
    })
    .await?;
    assert_eq!(last.has_role("standby").await?, 200);
    let before = pair.events.arrived().await?.len();
    pair.events.more_than(before).await?;
    next.program.kill().await;
    last.has_role("streaming").await?;
    let emitted = emitter.stop().await?;
    let all = pair.events.delivered(emitted).await?;
    assert_eq!(all.len(), usize::try_from(emitted)?, "each once");
    last.tells_running_by(&last.address).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_relay_loses_the_slot_in_a_bound_and_stands_by_when_it_wakes() -> Result<()> {
    let pair = Pair::start(&[("relay.wal.sender.timeout.ms", "1500")]).await?;
    let emitter = pair.events.emit_from(1);
    pair.active.send("-STOP")?;
    let frozen = Instant::now();
    pair.standby.has_role("streaming").await?;
    let took = frozen.elapsed();
    assert!(took < Duration::from_millis(1500) + TAKEOVER_MAX, "{took:?}");
    let last = emitter.stop().await?;
    pair.active.send("-CONT")?;
    assert_eq!(pair.active.has_role("standby").await?, 200);
    pair.events.delivered(last).await?;
    for worker in [&pair.active, &pair.standby] {
        worker.tells_running_by(&pair.standby.address).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_cut_off_from_postgresql_alone_is_replaced_and_publishes_nothing_twice()
-> Result<()> {
    for support in ["requested", "required"] {
        let options = [("relay.wal.sender.timeout.ms", "4000"), ("exactly.once.support", support)];
        let (pair, network) = Pair::start_behind_a_network(&options).await?;
        pair.events.emit(1, 20).await?;
        pair.events.delivered(20).await?;
        let emitter = pair.events.emit_from(21);
        // Neither side is told, and Kafka is reached by both.
        network.set(Network::BlackHole);
        let cut = Instant::now();
        pair.standby.has_role("streaming").await?;
        let took = cut.elapsed();
        assert!(took < Duration::from_millis(4000) + TAKEOVER_MAX, "{support}: {took:?}");
        network.set(Network::Good);
        assert_eq!(pair.active.has_role("standby").await?, 200);
        let last = emitter.stop().await?;
        let all = pair.events.delivered(last).await?;
        if support == "required" {
            assert_eq!(all.len(), usize::try_from(last)?, "each once");
        }
        for worker in [&pair.active, &pair.standby] {
            worker.tells_running_by(&pair.standby.address).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_from_a_relay_that_stops_and_the_status_says_so() -> Result<()> {
    let pair = Pair::start(&[]).await?;
    pair.events.emit(1, 10).await?;
    assert!(pair.active.program.terminate().await?.success());
    pair.standby.tells_running_by(&pair.standby.address).await?;
    pair.events.emit(11, 20).await?;
    let all = pair.events.delivered(20).await?;
    assert_eq!(all.len(), 20, "a relay that stops in good order leaves nothing to repeat");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_reach_every_relay_whichever_is_asked() -> Result<()> {
    let mut pair = Pair::start(&[]).await?;
    let path = format!("/connectors/{NAME}");
    let standby = &pair.standby;
    assert_eq!(standby.call("PUT", &format!("{path}/pause"), None).await?.0, 202);
    for worker in [&pair.active, standby] {
        worker.states(NAME, "PAUSED", Some("PAUSED")).await?;
        worker.has_role("paused").await?;
    }
    assert_eq!(standby.call("PUT", &format!("{path}/resume"), None).await?.0, 202);
    pair.events.emit(1, 5).await?;
    pair.events.delivered(5).await?;
    // Whoever came first has it now; the restart goes to the other one.
    let (_, status) = pair.standby.get(&format!("{path}/status")).await?;
    let streams = status["tasks"][0]["worker_id"].clone();
    let asked = if streams == json!(pair.active.address) { &pair.standby } else { &pair.active };
    let restart = format!("{path}/tasks/0/restart");
    assert_eq!(asked.call("POST", &restart, None).await?.0, 204);
    asked.program.line("task drained and stopped", DEADLINE).await?;
    pair.events.emit(6, 10).await?;
    pair.events.delivered(10).await?;
    assert_eq!(pair.standby.call("PUT", &format!("{path}/stop"), None).await?.0, 204);
    for worker in [&pair.active, &pair.standby] {
        worker.states(NAME, "STOPPED", None).await?;
    }
    let active =
        format!("select active from pg_replication_slots where slot_name = '{}'", pair.slot);
    let (active,): (bool,) =
        sqlx::query_as(sqlx::AssertSqlSafe(active)).fetch_one(&mut pair.sql).await?;
    assert!(!active, "nobody streams");
    assert_eq!(pair.active.call("DELETE", &path, None).await?.0, 204);
    eventually("gone at both", DEADLINE, || async {
        Ok((pair.standby.get(&path).await?.0 == 404).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn running_is_not_told_when_nobody_streams() -> Result<()> {
    let (database, _sql) = outbox_database().await?;
    let topics = unique_name("alone");
    let first = Worker::start(&topics, &[]).await?;
    let body = json!({"name": NAME, "config": example_config(&database)?});
    first.call("POST", "/connectors", Some(&body)).await?;
    first.tells_running_by(&first.address).await?;
    first.program.kill().await;
    // Another worker by name, as a container that is started anew, and PostgreSQL is away.
    let away = format!("{}:{}=127.0.0.1:1", database.host, database.port);
    let bootstrap_servers = servers().await?.bootstrap_servers();
    let second = Worker::start_only(bootstrap_servers, &topics, &[("RELAY_CONNECT_TO", &away)])?;
    second.program.line("waiting: cannot connect", DEADLINE).await?;
    let status = second.states(NAME, "RUNNING", Some("UNASSIGNED")).await?;
    let trace: &Value = &status["tasks"][0]["trace"];
    assert!(trace.as_str().is_some_and(|trace| trace.contains("cannot connect")), "{status}");
    assert_eq!(second.has_role("waiting").await?, 503);
    Ok(())
}

#[tokio::test]
async fn a_snapshot_is_published_once_however_many_relays_begin() -> Result<()> {
    for mode in ["initial", "initial_only"] {
        let mut outbox = Outbox::new().await?.with("snapshot.mode", mode);
        outbox.keep("inventory.outboxevent", &["1", "2", "3"]).await?;
        // The sink of the first is full after two rows, so that its snapshot lasts until it is told to go on.
        let (first, first_control) = outbox.start(2, false)?;
        records(&first_control, 2).await?;
        let (second, second_control) = outbox.start(100, true)?;
        let stands_by = || async {
            let role = second.health().role();
            Ok(matches!(role, Role::StandingBy { .. }).then_some(()))
        };
        eventually("the second stands by", DEADLINE, stands_by).await?;
        first_control.confirm_at_once();
        running(&first).await?;
        assert_eq!(keys(&first_control.records()), ["1", "2", "3"], "{mode}");
        eventually("the second stands by", DEADLINE, stands_by).await?;
        assert!(first.stop().await && second.stop().await);
        assert_eq!(second_control.records().len(), 0, "{mode}");
    }
    Ok(())
}
