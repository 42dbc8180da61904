//! The relay's process: logs, configuration, run, exit code.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use relay::config::WorkerConfig;
use relay::connect::{self, LogLevels};
use relay::failpoint;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What threads may take that wait for an answer of Kafka when everything else has ended.
const EXIT_GRACE: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let worker = Arc::new(WorkerConfig::from_environment()?);
    failpoint::arm(&worker.environment)?;
    let log_levels = LogLevels::install(&worker)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ran = runtime.block_on(async {
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone())?;
        Box::pin(connect::run(worker, log_levels, stop)).await?;
        tracing::info!("relay stopped");
        anyhow::Ok(())
    });
    runtime.shutdown_timeout(EXIT_GRACE);
    ran
}

/// SIGTERM and SIGINT drain; the bounds of the drain are the worker's.
fn stop_on_signals(stop: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
        stop.cancel();
    });
    Ok(())
}
