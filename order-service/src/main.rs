//! Entry point: configuration, logs, signals, service.

use std::process::ExitCode;

use anyhow::Context;
use order_service::OrderService;
use order_service::config::Config;
use order_service::telemetry;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error, because logging may be what could not be started.
            eprintln!("order-service: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let config = Config::from_environment()?;
    telemetry::start(&config)?;
    let stop = stop_at_signal()?;
    OrderService::bind(config).await?.run(stop).await
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
