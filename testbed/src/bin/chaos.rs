//! `cargo chaos`: kills the parts of the whole flow under load and counts what arrived.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use serde::Serialize;
use testbed::Settings;
use testbed::chaos::{self, Plan, Report, TakeoverPlan};
use tokio::signal::unix::{SignalKind, signal};

/// Starts servers of its own and our programs, places orders, kills everything in turn, and counts at the end from the
/// databases and the topics what was committed and what arrived.
///
/// The last line has the figures. The exit code is not 0 when an event was lost, overtaken by a later one of its key,
/// or took effect twice.
#[derive(Parser)]
#[command(name = "chaos", bin_name = "cargo chaos", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    plan: Plan,
    #[command(subcommand)]
    form: Option<Form>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Form {
    /// The relay dies at each step of its pipeline
    Steps {
        /// Register the connector with exactly.once.support=required
        #[arg(long)]
        exactly_once: bool,
    },
    /// A second relay takes over from one that is killed or stands still: how long it takes
    Takeover(TakeoverPlan),
    /// Each connection is cut, slowed down, and made to swallow everything
    Network {
        /// Register the connector with exactly.once.support=required
        #[arg(long)]
        exactly_once: bool,
    },
    /// Everything in its long form, at least once and exactly once: 500 kills, the steps, 20 takeovers, the network; then
    /// `cargo memory`. Some two hours
    All {
        /// Where the random numbers of the kills begin
        #[arg(long)]
        seed: Option<u64>,
    },
}

/// Kills of the long form.
const KILLS_LONG: u32 = 500;

fn main() -> Result<ExitCode> {
    testbed::guard::run_if_asked()?;
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(until_done_or_stopped(arguments));
    // A wait that was cut short may still have a thread; nobody needs it.
    runtime.shutdown_background();
    code
}

async fn until_done_or_stopped(arguments: Arguments) -> Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let kept = tokio::select! {
        kept = Box::pin(run(arguments)) => kept?,
        // What was started is ended where it is dropped.
        _ = terminate.recv() => bail!("stopped by SIGTERM"),
        _ = interrupt.recv() => bail!("stopped by SIGINT"),
    };
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether the promise was kept.
async fn run(Arguments { plan, form, json }: Arguments) -> Result<bool> {
    let told = match form {
        None => kills(&plan, json).await?,
        Some(Form::Steps { exactly_once }) => steps(exactly_once, json).await?,
        Some(Form::Takeover(plan)) => takeover(&plan, json).await?,
        Some(Form::Network { exactly_once }) => network(exactly_once, json).await?,
        Some(Form::All { seed }) => return all(seed, json).await,
    };
    Ok(told.kept)
}

/// What a run came to.
struct Told {
    kept: bool,
    report: Report,
}

/// One that ends with an error is told, counts as broken, and keeps none of the others from running.
async fn all(seed: Option<u64>, json: bool) -> Result<bool> {
    let mut told = Vec::new();
    let mut kept = true;
    for exactly_once in [false, true] {
        let long = Plan { kills: KILLS_LONG, seed, exactly_once, ..Plan::default() };
        let plan = TakeoverPlan { exactly_once, ..TakeoverPlan::default() };
        for ended in [
            Box::pin(kills(&long, json)).await,
            Box::pin(steps(exactly_once, json)).await,
            Box::pin(takeover(&plan, json)).await,
            Box::pin(network(exactly_once, json)).await,
        ] {
            match ended {
                Ok(one) => told.push(one),
                Err(error) => {
                    kept = false;
                    say(&format!("BROKEN: a run did not come to its end: {error:#}"));
                }
            }
        }
    }
    kept &= told.iter().all(|one| one.kept);
    kept &= memory().await.unwrap_or_else(|error| {
        say(&format!("BROKEN: `cargo memory`: {error:#}"));
        false
    });
    if !json {
        let reports: Vec<Report> = told.into_iter().map(|one| one.report).collect();
        writeln!(std::io::stdout(), "{}", Report::line_of_all(&reports))?;
    }
    Ok(kept)
}

/// The long form of the test of memory, which is the relay's: a million rows, a broker that is away for ten minutes.
async fn memory() -> Result<bool> {
    say("memory: `cargo memory`, some fifteen minutes");
    let cargo = Settings::read().cargo;
    let mut command = tokio::process::Command::new(cargo);
    // Its output is no result of this command.
    let output = std::io::stderr().as_fd().try_clone_to_owned().context("standard error")?;
    command.arg("memory").stdout(output).kill_on_drop(true);
    let status = command.status().await.context("run cargo memory")?;
    if !status.success() {
        say(&format!("BROKEN: `cargo memory`: {status}"));
    }
    Ok(status.success())
}

async fn kills(plan: &Plan, json: bool) -> Result<Told> {
    let report = Box::pin(chaos::run(plan, say)).await?;
    tell(&report.clone(), report.violations(), report, Vec::new(), json)
}

async fn steps(exactly_once: bool, json: bool) -> Result<Told> {
    let plan = Plan { exactly_once, ..Plan::default() };
    let report = Box::pin(chaos::die_at_each_step(&plan, say)).await?;
    tell(&report.clone(), report.violations(), report, Vec::new(), json)
}

async fn takeover(plan: &TakeoverPlan, json: bool) -> Result<Told> {
    let takeovers = Box::pin(chaos::takeover(plan, say)).await?;
    let report = takeovers.report.clone();
    tell(&takeovers, takeovers.violations(), report, takeovers.lines(), json)
}

async fn network(exactly_once: bool, json: bool) -> Result<Told> {
    let run = Box::pin(chaos::network(exactly_once, say)).await?;
    tell(&run, run.report.violations(), run.report.clone(), run.lines(), json)
}

fn tell(
    all: &impl Serialize,
    violations: Vec<String>,
    report: Report,
    lines: Vec<String>,
    json: bool,
) -> Result<Told> {
    for violation in &violations {
        say(&format!("BROKEN: {violation}"));
    }
    let mut output = std::io::stdout();
    if json {
        writeln!(output, "{}", serde_json::to_string_pretty(all)?)?;
    } else {
        for line in lines {
            writeln!(output, "{line}")?;
        }
        writeln!(output, "{}", report.line())?;
    }
    Ok(Told { kept: violations.is_empty(), report })
}

/// Progress goes to standard error, so that standard output holds the result alone.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "chaos: {text}");
}
