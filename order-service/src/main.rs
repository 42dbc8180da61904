//! Entry point: configuration, logs, signals, service.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use order_service::OrderService;
use order_service::config::Config;
use order_service::telemetry;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// For threads that still wait for a name server when everything else has ended: without a bound they would hold up the end.
const RUNTIME_SHUTDOWN_DURATION_MAX: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error, because logging may be what could not be started.
            eprintln!("order-service: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<()> {
    let config = Config::from_environment()?;
    telemetry::start(&config)?;
    let runtime = Runtime::new().context("cannot start threads")?;
    let ended = runtime.block_on(async {
        let stop = stop_at_signal()?;
        OrderService::bind(config).await?.run(stop).await
    });
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_DURATION_MAX);
    ended
}

/// A token that SIGTERM and SIGINT cancel.
fn stop_at_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!(signal = name, "asked to stop");
        token.cancel();
    });
    Ok(stop)
}
