//! The measurements of `cargo measure`: our three programs, on real servers of their own with durable settings.

mod arrival;
mod drain;
mod latency;
mod load;
mod machine;
mod process_figures;
mod program_figures;
mod report;
mod stage;
mod start;
mod stopwatch;
mod topic_end;
mod wal_read;

use std::time::Duration;

use anyhow::Result;

pub use report::Report;
pub(crate) use stopwatch::median;

use stage::Stage;

/// What to measure, and how much of it.
#[derive(Debug, Clone, clap::Args)]
pub struct Plan {
    /// Transactions that wait for the relay in each round of the drain; one event each
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub events: u32,
    /// Rounds of the drain: in each the WAL is read once raw and once by the relay. One more comes first and does not
    /// count: the broker's JVM compiles its code in it
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Starts of each program
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub starts: u32,
    /// How long the programs are left alone before their idle memory is read, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(..=3600))]
    pub idle_seconds: u64,
    /// How long the latency is measured, in seconds, after a warm-up
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub latency_seconds: u64,
}

/// Measures everything. `progress` is told what happens, a line at a time.
///
/// # Errors
/// When something is wrong, other than slow: an event was lost, came twice or out of order, a program or a server
/// failed.
pub async fn run(plan: &Plan, progress: impl Fn(&str) + Send + Sync + 'static) -> Result<Report> {
    let mut stage = Stage::set(progress).await?;
    let measured = Box::pin(measure(plan, &mut stage)).await;
    stage.strike().await;
    measured
}

async fn measure(plan: &Plan, stage: &mut Stage) -> Result<Report> {
    let machine = machine::describe(stage);
    let (starts, running) = start::measure(plan.starts, stage).await?;
    let quiet = Duration::from_secs(plan.idle_seconds);
    let programs = program_figures::measure(quiet, stage, &running).await?;
    // What follows concerns the relay alone; the services would only take its processor time.
    running.order_service.terminate().await?;
    running.shipment_service.terminate().await?;
    let seconds = Duration::from_secs(plan.latency_seconds);
    let latency = latency::measure(seconds, stage, &running.relay).await?;
    running.relay.terminate().await?;
    stage.say("drain: warm-up");
    let warm_up = Box::pin(drain::round(0, plan.events, stage)).await?;
    let mut rounds = Vec::new();
    for round in 1..=plan.rounds {
        stage.say(&format!("drain: round {round} of {}", plan.rounds));
        rounds.push(Box::pin(drain::round(round, plan.events, stage)).await?);
    }
    Ok(Report::new(machine, starts, programs, latency, warm_up, rounds))
}
