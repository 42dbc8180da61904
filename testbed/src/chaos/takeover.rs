//! How long a standby takes to go on where a relay was killed, or stands still.

use std::time::Instant;

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use serde::Serialize;

use super::load::{Habit, Load};
use super::report::Report;
use super::stage::Stage;
use super::{CATCH_UP_BOUND, Plan, STEP_BOUND};
use crate::measure::median;
use crate::topic::Reader;

/// PostgreSQL's patience with a relay that stands still; the documented bound is made of it.
const WAL_SENDER_TIMEOUT: &str = "5s";

/// A standby says so in its log.
const STANDING_BY: &str = "standing by";

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct TakeoverPlan {
    /// Relays killed with SIGKILL, one after the other
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Relays stopped with SIGSTOP after that: PostgreSQL gives their slot away when wal_sender_timeout (here 5 s) is
    /// over
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub frozen: u32,
    /// Register the connector with exactly.once.support=required
    #[arg(long)]
    pub exactly_once: bool,
}

impl Default for TakeoverPlan {
    fn default() -> Self {
        Self { rounds: 20, frozen: 2, exactly_once: false }
    }
}

/// From the blow to the first event that was committed after it, in seconds.
#[derive(Debug, Clone, Serialize)]
pub struct Takeovers {
    /// After SIGKILL.
    pub killed: Vec<f64>,
    /// After SIGSTOP.
    pub frozen: Vec<f64>,
    /// What was committed and what arrived.
    pub report: Report,
}

/// After a kill, half of the takeovers take less: the promise of `docs/guarantees.md`.
const KILLED_MEDIAN_MAX_S: f64 = 2.0;

impl Takeovers {
    /// What was broken of the promise, the time that a takeover takes among it.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut found = self.report.violations();
        let median = median(&self.killed);
        if median >= KILLED_MEDIAN_MAX_S {
            found.push(format!(
                "half of the takeovers after a kill took {median:.2} s and more, {KILLED_MEDIAN_MAX_S} s are promised"
            ));
        }
        found
    }

    /// `killed: min 0.21 s, median 0.40 s, max 0.73 s of 20`
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line = |name: &str, seconds: &[f64]| {
            let min = seconds.iter().copied().fold(f64::INFINITY, f64::min);
            let max = seconds.iter().copied().fold(0.0, f64::max);
            format!(
                "takeover, {name}: min {min:.2} s, median {:.2} s, max {max:.2} s of {}",
                median(seconds),
                seconds.len()
            )
        };
        let each = [("killed", &self.killed), ("frozen", &self.frozen)];
        each.iter().filter(|(_, s)| !s.is_empty()).map(|(name, s)| line(name, s)).collect()
    }
}

/// Starts the flow with two relays and hurts the one that streams, again and again.
///
/// # Errors
/// When something does not start, or the standby does not take over within a bound.
pub async fn takeover(
    plan: &TakeoverPlan,
    progress: impl Fn(&str) + Send + Sync + 'static,
) -> Result<Takeovers> {
    let options = Plan { exactly_once: plan.exactly_once, ..Plan::default() };
    let mut stage = Box::pin(Stage::set(&options, progress)).await?;
    let measured = Box::pin(measure(plan, &mut stage)).await;
    stage.strike_the_set(measured).await
}

async fn measure(plan: &TakeoverPlan, stage: &mut Stage) -> Result<Takeovers> {
    let began = Instant::now();
    let mut standby = stage.flow.another_relay("relay-2");
    stage.shorten_wal_sender_timeout(WAL_SENDER_TIMEOUT).await?;
    stage.flow.relay.wait_until_ready().await?;
    let arrivals = Reader::open(stage.flow.servers.kafka.bootstrap_servers(), "OrderEvents")?;
    let mut arrivals = Some(arrivals);
    let load = Load::begin(stage.flow.order_service.url(), 0, Habit::OrderAndChange)?;
    let (mut killed, mut frozen) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds + plan.frozen {
        standby.start()?;
        let program = standby.program().context("the standby is not running")?;
        program.line(STANDING_BY, STEP_BOUND).await?;
        let is_kill = round < plan.rounds;
        let active = &mut stage.flow.relay;
        let blow = Instant::now();
        if is_kill {
            active.kill().await;
        } else {
            active.program().context("the relay is not running")?.signal(Signal::STOP);
        }
        let order = stage.place_order().await?;
        let arrived = until_arrived(&mut arrivals, order).await?;
        let seconds = arrived.duration_since(blow).as_secs_f64();
        let blow = if is_kill { "killed" } else { "frozen" };
        stage.say(&format!("{blow}: the next event after {seconds:.2} s"));
        if is_kill {
            killed.push(seconds)
        } else {
            frozen.push(seconds)
        }
        // The one that was frozen finds its connection closed, and its slot in use.
        if !is_kill && let Some(program) = stage.flow.relay.program() {
            program.signal(Signal::CONT);
            program.line(STANDING_BY, STEP_BOUND).await?;
            stage.flow.relay.terminate().await?;
        }
        std::mem::swap(&mut stage.flow.relay, &mut standby);
    }
    load.stop().await;
    let counts = stage.count(CATCH_UP_BOUND).await?;
    let report = Report {
        counts,
        kills: killed.len(),
        kills_with_repeats: killed.len() + frozen.len(),
        exactly_once: plan.exactly_once,
        seconds: began.elapsed().as_secs_f64(),
        ..Report::default()
    };
    Ok(Takeovers { killed, frozen, report })
}

/// Reads the topic until it has an event of this order.
async fn until_arrived(reader: &mut Option<Reader>, order: i64) -> Result<Instant> {
    let mut open = reader.take().context("the reader is gone")?;
    let (open, arrived) = tokio::task::spawn_blocking(move || {
        let until = Instant::now() + STEP_BOUND;
        while Instant::now() < until {
            if let Some(record) = open.next()?
                && record.key_text() == order.to_string()
            {
                return anyhow::Ok((open, Instant::now()));
            }
        }
        anyhow::bail!("no event of order {order} within {STEP_BOUND:?}")
    })
    .await??;
    *reader = Some(open);
    Ok(arrived)
}
