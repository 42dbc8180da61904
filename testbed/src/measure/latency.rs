//! The latency: from the return of COMMIT to a consumer, at a steady rate.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at};
use uuid::Uuid;

use super::load;
use super::process_figures::processor_time;
use super::stage::{Stage, Started, topic_of};
use super::stopwatch::percentile;
use crate::topic::{self, Reader};

/// Events a second.
const RATE: u32 = 200;

/// Connections that write, so that one commit that waits for the disk does not hold up the next.
const WRITERS: u32 = 4;

/// Events of this time do not count.
const WARM_UP: Duration = Duration::from_secs(2);

/// For the last event to arrive.
const ARRIVAL_BOUND: Duration = Duration::from_secs(30);

const AGGREGATE_TYPE: &str = "Latency";

/// From the return of COMMIT to the consumer, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    /// Events that count.
    pub events: usize,
    /// Events a second, as it came out.
    pub rate: f64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// Processors that the relay kept busy meanwhile.
    pub relay_cores: f64,
}

/// When events came back from COMMIT, or reached the consumer.
type Times = Vec<(Uuid, Instant)>;

pub(super) async fn measure(lasting: Duration, stage: &Stage, relay: &Started) -> Result<Latency> {
    stage.say(&format!("latency: {RATE} events/s for {} s", lasting.as_secs()));
    let topic = topic_of(AGGREGATE_TYPE);
    topic::create(stage.bootstrap_servers(), &topic, 1).await?;
    let reader = Reader::open(stage.bootstrap_servers(), &topic)?;
    let (committed, done) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let consuming = {
        let (committed, done) = (Arc::clone(&committed), Arc::clone(&done));
        tokio::task::spawn_blocking(move || consume(reader, &committed, &done))
    };
    let began = Instant::now();
    let pid = relay.program.pid();
    let before = processor_time(pid)?;
    let written = write(WARM_UP + lasting, stage, &committed).await;
    // Whatever happened: the consumer must come to its end.
    done.store(true, Ordering::Release);
    let received = consuming.await?.with_context(|| relay.program.tail())?;
    let written = written?;
    let used = processor_time(pid)? - before;
    let elapsed = began.elapsed().as_secs_f64();
    let latencies = latencies(&written, &received, began + WARM_UP)?;
    Ok(Latency {
        events: latencies.len(),
        rate: rate(&written),
        p50_ms: percentile(&latencies, 50),
        p95_ms: percentile(&latencies, 95),
        p99_ms: percentile(&latencies, 99),
        max_ms: percentile(&latencies, 100),
        relay_cores: used.as_secs_f64() / elapsed,
    })
}

/// Commits events at the rate, over several connections that take turns.
async fn write(lasting: Duration, stage: &Stage, committed: &Arc<AtomicU32>) -> Result<Times> {
    let mut connections = Vec::new();
    for _ in 0..WRITERS {
        connections.push(stage.connect().await?);
    }
    let step = Duration::from_secs(1) / RATE;
    let count = u32::try_from(lasting.as_millis() / step.as_millis())?;
    let start = tokio::time::Instant::now();
    let mut writers = JoinSet::new();
    for (turn, mut connection) in (0..WRITERS).zip(connections) {
        let committed = Arc::clone(committed);
        writers.spawn(async move {
            let mut pace = interval_at(start + step * turn, step * WRITERS);
            // A late commit is made up for: the rate is the promise.
            pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut times = Times::new();
            for seq in (turn..count).step_by(WRITERS as usize) {
                pace.tick().await;
                let id = Uuid::new_v4();
                load::write_event(&mut connection, id, AGGREGATE_TYPE, seq + 1).await?;
                times.push((id, Instant::now()));
                committed.fetch_add(1, Ordering::AcqRel);
            }
            anyhow::Ok(times)
        });
    }
    let mut all = Times::new();
    while let Some(times) = writers.join_next().await {
        all.extend(times??);
    }
    Ok(all)
}

/// Notes when each event arrives, until as many have as were committed. Blocks.
fn consume(mut reader: Reader, committed: &AtomicU32, done: &AtomicBool) -> Result<Times> {
    let mut times = Times::new();
    let mut until = None;
    loop {
        let found = reader.next()?;
        let now = Instant::now();
        if let Some(record) = found {
            let id = record.header("id").and_then(|id| id.parse().ok());
            times.push((id.context("a record without an event id")?, now));
        }
        if done.load(Ordering::Acquire) {
            let committed = committed.load(Ordering::Acquire) as usize;
            if times.len() >= committed {
                return Ok(times);
            }
            if now > *until.get_or_insert(now + ARRIVAL_BOUND) {
                let lost = committed - times.len();
                bail!("{lost} of {committed} events did not arrive within {ARRIVAL_BOUND:?}");
            }
        }
    }
}

/// Commits a second, between the first and the last.
fn rate(written: &Times) -> f64 {
    let times = || written.iter().map(|(_, committed)| *committed);
    let (Some(first), Some(last)) = (times().min(), times().max()) else { return 0.0 };
    (written.len() - 1) as f64 / last.duration_since(first).as_secs_f64()
}

/// Milliseconds from commit to arrival, sorted, of the events committed at `from` or later.
///
/// # Errors
/// When an event is missing or came twice.
fn latencies(written: &Times, received: &Times, from: Instant) -> Result<Vec<f64>> {
    let arrivals: HashMap<Uuid, Instant> = received.iter().copied().collect();
    if arrivals.len() != received.len() {
        bail!("{} events arrived more than once", received.len() - arrivals.len());
    }
    let mut latencies = Vec::new();
    for (id, committed) in written {
        let arrived = arrivals.get(id).with_context(|| format!("event {id} did not arrive"))?;
        if *committed >= from {
            // An event may overtake the answer to its COMMIT; that counts as no time at all.
            latencies.push(arrived.saturating_duration_since(*committed).as_secs_f64() * 1000.0);
        }
    }
    latencies.sort_by(f64::total_cmp);
    Ok(latencies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_timed_by_its_own_commit_and_the_warm_up_is_left_out() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let ids = [Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4()];
        let written = vec![(ids[0], at(0)), (ids[1], at(10)), (ids[2], at(20))];
        let received = vec![(ids[2], at(21)), (ids[1], at(14)), (ids[0], at(99))];
        assert_eq!(latencies(&written, &received, at(10)).unwrap(), [1.0, 4.0]);
    }

    #[test]
    fn a_missing_and_a_repeated_event_are_errors() {
        let now = Instant::now();
        let id = Uuid::new_v4();
        assert!(latencies(&vec![(id, now)], &Times::new(), now).is_err());
        assert!(latencies(&vec![(id, now)], &vec![(id, now), (id, now)], now).is_err());
    }
}
