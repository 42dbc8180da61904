//! `cargo chaos`: kills the parts of the whole flow under load and counts what arrived.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use serde::Serialize;
use testbed::chaos::{self, Plan, Report, TakeoverPlan};
use tokio::signal::unix::{SignalKind, signal};

/// Starts servers of its own and our programs, places orders, kills everything in turn, and counts at the end from the
/// databases and the topics what was committed and what arrived.
///
/// The last line has the figures. The exit code is not 0 when an event was lost, overtaken by a later one of its key, or
/// took effect twice.
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
    Network,
    /// Everything in its long form: 500 kills, the steps, 20 takeovers, the network
    All,
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
    match form {
        None => kills(&plan, json).await,
        Some(Form::Steps { exactly_once }) => steps(exactly_once, json).await,
        Some(Form::Takeover(plan)) => takeover(&plan, json).await,
        Some(Form::Network) => network(json).await,
        Some(Form::All) => {
            let long = Plan { kills: KILLS_LONG, ..plan };
            let mut kept = Box::pin(kills(&long, json)).await?;
            kept &= Box::pin(steps(false, json)).await?;
            kept &= Box::pin(takeover(&TakeoverPlan::default(), json)).await?;
            kept &= Box::pin(network(json)).await?;
            Ok(kept)
        }
    }
}

async fn kills(plan: &Plan, json: bool) -> Result<bool> {
    let report = Box::pin(chaos::run(plan, say)).await?;
    tell(&report, &report, Vec::new(), json)
}

async fn steps(exactly_once: bool, json: bool) -> Result<bool> {
    let plan = Plan { exactly_once, ..Plan::default() };
    let report = Box::pin(chaos::die_at_each_step(&plan, say)).await?;
    tell(&report, &report, Vec::new(), json)
}

async fn takeover(plan: &TakeoverPlan, json: bool) -> Result<bool> {
    let takeovers = Box::pin(chaos::takeover(plan, say)).await?;
    tell(&takeovers, &takeovers.report, takeovers.lines(), json)
}

async fn network(json: bool) -> Result<bool> {
    let run = Box::pin(chaos::network(say)).await?;
    tell(&run, &run.report, run.lines(), json)
}

fn tell(all: &impl Serialize, report: &Report, lines: Vec<String>, json: bool) -> Result<bool> {
    let violations = report.violations();
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
    Ok(violations.is_empty())
}

/// Progress goes to standard error, so that standard output holds the result alone.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "chaos: {text}");
}
