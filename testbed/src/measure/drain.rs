//! The drain: many transactions wait in a slot; the WAL is read once raw and once by the relay.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;
use sqlx::PgConnection;

use super::arrival;
use super::load;
use super::process_figures::{
    machine_processor_time, memory, processor_time, processor_time_by_thread,
};
use super::stage::{Stage, Started, topic_of};
use super::topic_end;
use super::wal_read::{self, WalRead};
use crate::name::unique_name;
use crate::topic;

/// No drain takes that long on a machine that anyone would measure on.
const DRAIN_BOUND: Duration = Duration::from_secs(600);

/// One round.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// Transactions, with one event each.
    pub events: u32,
    /// Bytes of an event's payload.
    pub payload_bytes: i32,
    pub raw: RawRead,
    pub relay: RelayDrain,
    /// The relay's rate as a part of the raw one.
    pub ratio: f64,
}

/// The WAL read by a client that throws it away.
#[derive(Debug, Clone, Serialize)]
pub struct RawRead {
    /// From the connection to the last commit.
    pub elapsed_s: f64,
    pub events_per_s: f64,
    /// From the connection to the first message.
    pub first_message_after_s: f64,
    pub messages: u64,
    pub bytes: u64,
    /// Calls of `read` on the socket.
    pub reads: u64,
    pub walsender_cpu_s_per_million: f64,
}

/// The same WAL published by the relay.
#[derive(Debug, Clone, Serialize)]
pub struct RelayDrain {
    /// From `PUT resume` to the last event in the topic.
    pub elapsed_s: f64,
    pub events_per_s: f64,
    /// From `PUT resume` to the first event in the topic.
    pub first_event_after_s: f64,
    /// User and system time of the relay.
    pub cpu_s_per_million: f64,
    pub walsender_cpu_s_per_million: f64,
    pub broker_cpu_s_per_million: f64,
    /// Resident memory at most (VmHWM) since the start of the process.
    pub rss_peak_bytes: u64,
    /// Processors kept busy by anything else: the higher, the less the figures say.
    pub cores_busy_elsewhere: f64,
    /// Seconds on a processor by the name of the relay's thread.
    pub threads_cpu_s: BTreeMap<String, f64>,
}

/// Loads the slot of a fresh relay and drains it. Which of the two readers comes first changes from round to round.
pub(super) async fn round(number: u32, events: u32, stage: &Stage) -> Result<Round> {
    let aggregate_type = unique_name("Drain");
    topic::create(stage.bootstrap_servers(), &topic_of(&aggregate_type), 1).await?;
    let relay = stage.start_relay(false)?;
    let drained = drain(number, events, &aggregate_type, stage, &relay).await;
    let round = drained.with_context(|| relay.program.tail())?;
    relay.terminate().await?;
    stage.say("drain: comparing what arrived with what was committed");
    let records = topic::read(stage.bootstrap_servers(), &topic_of(&aggregate_type)).await?;
    arrival::compare(&records, events).none()?;
    Ok(round)
}

async fn drain(
    number: u32,
    events: u32,
    aggregate_type: &str,
    stage: &Stage,
    relay: &Started,
) -> Result<Round> {
    stage.wait_for_slot(relay, true).await?;
    stage.change_connector(relay, "pause").await?;
    stage.wait_for_slot(relay, false).await?;
    stage.say(&format!("drain: committing {events} transactions"));
    load::load(&stage.database, aggregate_type, events).await?;
    let mut connection = stage.connect().await?;
    let payload_bytes = load::payload_bytes(&mut connection).await?;
    let copy = copy_slot(stage, &mut connection).await?;
    let raw_first = number % 2 == 1;
    let mut raw = None;
    if raw_first {
        raw = Some(read_raw(events, stage, &copy).await?);
    }
    stage.say("drain: the relay publishes");
    let drained = publish(events, aggregate_type, stage, relay).await?;
    let raw = match raw {
        Some(raw) => raw,
        None => {
            stage.change_connector(relay, "pause").await?;
            stage.wait_for_slot(relay, false).await?;
            let raw = read_raw(events, stage, &copy).await?;
            stage.change_connector(relay, "resume").await?;
            stage.wait_for_slot(relay, true).await?;
            raw
        }
    };
    drop_slot(&copy, &mut connection).await?;
    let ratio = drained.events_per_s / raw.events_per_s;
    Ok(Round { events, payload_bytes, raw, relay: drained, ratio })
}

/// A second slot at the same position, for the other reader.
async fn copy_slot(stage: &Stage, connection: &mut PgConnection) -> Result<String> {
    let copy = unique_name("raw");
    let query = "select pg_copy_logical_replication_slot($1, $2)::text";
    sqlx::query(query).bind(&stage.connector.slot).bind(&copy).execute(connection).await?;
    Ok(copy)
}

/// The walsender that read it may take a moment to notice that its reader is gone.
async fn drop_slot(slot: &str, connection: &mut PgConnection) -> Result<()> {
    const BOUND: Duration = Duration::from_secs(30);
    let until = Instant::now() + BOUND;
    loop {
        let dropped = sqlx::query("select pg_drop_replication_slot($1)::text")
            .bind(slot)
            .execute(&mut *connection)
            .await;
        match dropped {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > until => {
                return Err(error).context("drop the copied slot");
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn read_raw(events: u32, stage: &Stage, slot: &str) -> Result<RawRead> {
    stage.say("drain: the raw read");
    let (database, publication) = (stage.database.clone(), stage.connector.publication.clone());
    let slot = slot.to_owned();
    let reading =
        tokio::task::spawn_blocking(move || wal_read::read(&database, &slot, &publication, events));
    let read: WalRead = reading.await??;
    Ok(RawRead {
        elapsed_s: read.elapsed.as_secs_f64(),
        events_per_s: f64::from(events) / read.elapsed.as_secs_f64(),
        first_message_after_s: read.first_after.as_secs_f64(),
        messages: read.messages,
        bytes: read.bytes,
        reads: read.reads,
        walsender_cpu_s_per_million: per_million(read.walsender_processor_time, events),
    })
}

async fn publish(
    events: u32,
    aggregate_type: &str,
    stage: &Stage,
    relay: &Started,
) -> Result<RelayDrain> {
    let end = stage.topic_end(aggregate_type)?;
    let (end, before) = tokio::task::spawn_blocking(move || {
        let before = end.get();
        (end, before)
    })
    .await?;
    let before = before?;
    let pid = relay.program.pid();
    let broker = stage.servers.kafka.pid().context("Kafka is gone")?;
    let (used, used_by_broker) = (processor_time(pid)?, processor_time(broker)?);
    let (machine, threads) = (machine_processor_time(), processor_time_by_thread(pid));
    let began = Instant::now();
    let waiting = tokio::task::spawn_blocking(move || {
        end.wait_for(before, events, topic_end::RARELY, DRAIN_BOUND)
    });
    stage.change_connector(relay, "resume").await?;
    let reached = waiting.await??;
    let used = processor_time(pid)? - used;
    let used_by_broker = processor_time(broker)? - used_by_broker;
    let machine = machine_processor_time() - machine;
    let threads_cpu_s = processor_time_by_thread(pid)
        .into_iter()
        .map(|(name, time)| {
            let before = threads.get(&name).copied().unwrap_or_default();
            (name, time.saturating_sub(before).as_secs_f64())
        })
        .collect();
    let walsender = stage.wait_for_slot(relay, true).await?.context("the slot has no reader")?;
    let used_by_walsender = processor_time(walsender)?;
    let elapsed = reached.all.duration_since(began);
    let elsewhere = machine.saturating_sub(used + used_by_broker + used_by_walsender);
    Ok(RelayDrain {
        elapsed_s: elapsed.as_secs_f64(),
        events_per_s: f64::from(events) / elapsed.as_secs_f64(),
        first_event_after_s: reached.first.duration_since(began).as_secs_f64(),
        cpu_s_per_million: per_million(used, events),
        walsender_cpu_s_per_million: per_million(used_by_walsender, events),
        broker_cpu_s_per_million: per_million(used_by_broker, events),
        rss_peak_bytes: memory(pid, "VmHWM")?,
        cores_busy_elsewhere: elsewhere.as_secs_f64() / elapsed.as_secs_f64(),
        threads_cpu_s,
    })
}

/// Seconds per million events.
fn per_million(used: Duration, events: u32) -> f64 {
    used.as_secs_f64() / f64::from(events) * 1e6
}
