//! The relay dies at each step of its pipeline, by its own failpoints, and comes back.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::load::{Habit, Load};
use super::part::Part;
use super::report::Report;
use super::stage::Stage;
use super::{CATCH_UP_BOUND, Plan, STEP_BOUND};
use crate::wait::eventually;

/// The relay's names for the steps of its pipeline.
const STEPS: [&str; 6] = [
    "after receive",
    "before publish",
    "after publish",
    "after confirm",
    "before acknowledge",
    "after acknowledge",
];

/// Those that only a pipeline without Kafka transactions has: its offsets are stored from time to time.
const STEPS_AT_LEAST_ONCE: [&str; 2] = ["before offset store", "after offset store"];

/// Those that only a pipeline with Kafka transactions has.
const STEPS_EXACTLY_ONCE: [&str; 2] = ["before commit", "after commit"];

/// In the middle of the load, not at the first event after a start.
const PASSES: [u32; 2] = [1, 7];

/// So often a source offset is stored that the steps around it are passed soon.
const OFFSET_FLUSH_INTERVAL_MS: &str = "200";

/// Events handled between two deaths.
const LULL: u64 = 10;

/// The names of all steps at which a run ends the relay, in one mode of delivery or the other.
pub fn steps() -> impl Iterator<Item = &'static str> {
    STEPS.into_iter().chain(STEPS_AT_LEAST_ONCE).chain(STEPS_EXACTLY_ONCE)
}

/// Runs the flow under load; the relay ends itself at each step, twice.
///
/// # Errors
/// When something does not start, or the relay does not end at a step.
pub async fn die_at_each_step(
    plan: &Plan,
    progress: impl Fn(&str) + Send + Sync + 'static,
) -> Result<Report> {
    let seed = plan.seed.unwrap_or_default();
    let mut stage = Box::pin(Stage::set(plan, progress)).await?;
    let counted = Box::pin(die_and_count(plan, seed, &mut stage)).await;
    stage.strike_the_set(counted).await
}

async fn die_and_count(plan: &Plan, seed: u64, stage: &mut Stage) -> Result<Report> {
    let began = Instant::now();
    let load = Load::begin(stage.flow.order_service.url(), seed, Habit::OrderAndChange)?;
    stage.flow.relay.set_variable("OFFSET_FLUSH_INTERVAL_MS", OFFSET_FLUSH_INTERVAL_MS);
    let more = if plan.exactly_once { STEPS_EXACTLY_ONCE } else { STEPS_AT_LEAST_ONCE };
    let mut deaths = 0;
    for step in STEPS.into_iter().chain(more) {
        for passes in PASSES {
            let failpoint = format!("{step}:{passes}");
            die_at(&failpoint, stage).await.with_context(|| format!("die {failpoint}"))?;
            deaths += 1;
            stage.say(&format!("the relay died {failpoint}"));
        }
    }
    stage.until_all_ready().await?;
    load.stop().await;
    let counts = stage.count(CATCH_UP_BOUND).await?;
    Ok(Report {
        counts,
        kills: deaths,
        kills_with_repeats: deaths,
        seed,
        exactly_once: plan.exactly_once,
        seconds: began.elapsed().as_secs_f64(),
        ..Report::default()
    })
}

/// Ends the relay at the failpoint, starts it without, and waits until events flow again.
async fn die_at(failpoint: &str, stage: &mut Stage) -> Result<()> {
    stage.flow.relay.terminate().await?;
    stage.flow.relay.set_variable("RELAY_FAILPOINT", failpoint);
    stage.flow.relay.start()?;
    let program = stage.flow.relay.program().context("the relay is not running")?;
    let ended = eventually("end of the relay", STEP_BOUND, async || Ok(program.exit_status()));
    let status = ended.await.context(program.tail())?;
    let aborted = status.signal() == Some(Signal::ABORT.as_raw());
    ensure!(aborted, "the relay ended otherwise: {status}\n{}", program.tail());
    stage.flow.relay.set_variable("RELAY_FAILPOINT", "");
    Part::Relay.start(&mut stage.flow).await?;
    // What the shipment side still had to handle says nothing of this relay, which is asked to stop next.
    stage.until_streaming().await?;
    stage.until_more_are_handled(LULL).await
}
