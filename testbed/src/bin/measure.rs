//! `cargo measure`: measures our programs on real servers and prints the figures beside their targets.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use testbed::measure::{self, Plan};
use tokio::signal::unix::{SignalKind, signal};

/// Starts servers of its own and our programs, measures them, and prints the figures beside their targets.
///
/// The exit code is 0 unless something is wrong: an event lost, repeated or out of order, a program that failed.
#[derive(Parser)]
#[command(name = "measure", bin_name = "cargo measure")]
struct Arguments {
    #[command(flatten)]
    plan: Plan,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// End with exit code 1 when a target is missed
    #[arg(long)]
    check: bool,
}

fn main() -> Result<ExitCode> {
    testbed::guard::run_if_asked()?;
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(run(arguments));
    // A wait that was cut short may still have a thread; nobody needs it.
    runtime.shutdown_background();
    code
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let report = tokio::select! {
        measured = measure::run(&arguments.plan, |text| eprintln!("measure: {text}")) => measured?,
        // What was started is ended where it is dropped.
        _ = terminate.recv() => bail!("stopped by SIGTERM"),
        _ = interrupt.recv() => bail!("stopped by SIGINT"),
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.table());
    }
    let is_missed = arguments.check && !report.is_on_target();
    Ok(if is_missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
