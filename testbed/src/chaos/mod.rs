//! `cargo chaos`: the whole flow under load while its parts are killed, and a count of what arrived at the end.

mod arrivals;
mod count;
mod load;
mod network;
mod part;
mod random;
mod report;
mod sabotage;
mod schedule;
mod stage;
mod steps;
mod takeover;
mod truth;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

pub use count::Counts;
pub use network::{Healed, NetworkRun, network};
pub use part::Part;
pub use report::Report;
pub use sabotage::Sabotage;
pub use steps::{die_at_each_step, steps};
pub use takeover::{TakeoverPlan, Takeovers, takeover};

use load::{Habit, Load};
use schedule::{Lull, Strike, schedule};
use stage::Stage;

/// For a lull to pass, or something that was killed to work again. On a machine with two cores and other work the
/// slowest took 20 s.
const STEP_BOUND: Duration = Duration::from_secs(120);

/// For everything to arrive after the last part is back.
const CATCH_UP_BOUND: Duration = Duration::from_secs(180);

/// Requests that run into what is down may take seconds each: then it comes back without them.
const DOWN_MAX: Duration = Duration::from_secs(1);

/// What to do to the flow.
#[derive(Debug, Clone, clap::Args)]
pub struct Plan {
    /// How many times something is killed with SIGKILL
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub kills: u32,
    /// Where the random numbers begin: the same seed makes the same schedule. Chosen and printed when not given
    #[arg(long)]
    pub seed: Option<u64>,
    /// Kill these alone, with commas between; all of them when not given
    #[arg(long, value_enum, value_name = "PARTS", value_delimiter = ',', conflicts_with = "sabotage",
          default_values_t = Part::ALL, hide_default_value = true)]
    pub only: Vec<Part>,
    /// Register the connector with exactly.once.support=required: then no event may come twice
    #[arg(long)]
    pub exactly_once: bool,
    /// Break the promise on purpose: the run must find it and fail (no-position: with --exactly-once)
    #[arg(long, value_enum)]
    pub sabotage: Option<Sabotage>,
    /// Keep the folder with data and logs
    #[arg(long)]
    pub keep: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            kills: 12,
            seed: None,
            only: Part::ALL.to_vec(),
            exactly_once: false,
            sabotage: None,
            keep: false,
        }
    }
}

/// Starts the flow on servers of its own, kills its parts under load, and counts. `progress` is told what happens, a
/// line at a time.
///
/// # Errors
/// When something does not start or does not come back. A broken promise is no error: it is in the report.
pub async fn run(plan: &Plan, progress: impl Fn(&str) + Send + Sync + 'static) -> Result<Report> {
    anyhow::ensure!(
        plan.exactly_once || plan.sabotage != Some(Sabotage::NoPosition),
        "--sabotage no-position breaks transactions: add --exactly-once"
    );
    anyhow::ensure!(!plan.only.is_empty(), "--only: name a part, such as kafka");
    let seed = plan.seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0 % 1_000_000);
    progress(&format!(
        "seed {seed}: `--seed {seed} --kills {}{}` repeats this schedule",
        plan.kills,
        only(&plan.only).map(|parts| format!(" --only {parts}")).unwrap_or_default()
    ));
    let mut stage = Box::pin(Stage::set(plan, progress)).await?;
    let counted = Box::pin(strike_and_count(plan, seed, &mut stage)).await;
    stage.strike_the_set(counted).await.with_context(|| format!("seed {seed}"))
}

/// These parts as `--only` takes them; `None` where it is all of them.
fn only(parts: &[Part]) -> Option<String> {
    if Part::ALL.iter().all(|part| parts.contains(part)) {
        return None;
    }
    let values = parts.iter().filter_map(clap::ValueEnum::to_possible_value);
    let names: Vec<String> = values.map(|value| value.get_name().to_owned()).collect();
    Some(names.join(","))
}

async fn strike_and_count(plan: &Plan, seed: u64, stage: &mut Stage) -> Result<Report> {
    let began = Instant::now();
    let habit = if plan.sabotage.is_some() { Habit::OrderOnly } else { Habit::OrderAndChange };
    let load = Load::begin(stage.flow.order_service.url(), seed, habit)?;
    let mut killed: Vec<Part> = Vec::new();
    if let Some(sabotage) = plan.sabotage {
        killed.extend(sabotage.strike(stage, &load).await?);
    } else {
        for strike in schedule(plan.kills, seed, &plan.only) {
            let number = killed.len() + 1;
            carry_out(&strike, stage, &load, number, plan.kills)
                .await
                .with_context(|| format!("kill {number} ({strike})"))?;
            killed.extend(&strike.parts);
        }
    }
    stage.until_all_ready().await?;
    let requests = load.stop().await;
    stage.say(&format!(
        "{} orders and {} changes were answered, {} requests were not; waiting for the rest to arrive",
        requests.placed, requests.changed, requests.refused
    ));
    let counts = stage.count(CATCH_UP_BOUND).await?;
    let repeats = |part: &&Part| **part == Part::Relay;
    Ok(Report {
        counts,
        kills: killed.len(),
        kills_with_repeats: killed.iter().filter(repeats).count(),
        seed,
        only: only(&plan.only),
        exactly_once: plan.exactly_once,
        seconds: began.elapsed().as_secs_f64(),
    })
}

async fn carry_out(
    strike: &Strike,
    stage: &mut Stage,
    load: &Load,
    number: usize,
    kills: u32,
) -> Result<()> {
    let waited = wait_out(strike.lull, stage, load).await;
    stage.unless_ended_by_itself(waited)?;
    stage.say(&format!("kill {number} of {kills}: {strike}"));
    for part in &strike.parts {
        part.kill(&mut stage.flow).await;
    }
    let attempts = load.requests().attempts() + strike.down;
    let down = load.until("request", DOWN_MAX, |requests| requests.attempts() >= attempts);
    let _ = down.await;
    for part in &strike.parts {
        part.start(&mut stage.flow).await?;
    }
    Ok(())
}

async fn wait_out(lull: Lull, stage: &Stage, load: &Load) -> Result<()> {
    let before = load.requests();
    match lull {
        Lull::Attempts(more) => {
            let wanted = before.attempts() + more;
            load.until("request", STEP_BOUND, |requests| requests.attempts() >= wanted).await
        }
        Lull::Placed(more) => {
            let wanted = before.placed + more;
            load.until("order that is taken", STEP_BOUND, |requests| requests.placed >= wanted)
                .await
        }
        Lull::Handled(more) => stage.until_more_are_handled(more).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_repeats_a_run_names_the_parts_where_it_is_not_all() {
        assert_eq!(only(&Part::ALL), None);
        assert_eq!(only(&[Part::MySql, Part::Postgres]).as_deref(), Some("mysql,postgresql"));
    }
}
