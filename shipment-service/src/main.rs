//! Entry point: configuration, log, run, exit code.

use std::process::ExitCode;
use std::time::Duration;

use shipment_service::{Config, run, start_telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// For threads that still block in librdkafka when everything else has ended.
const RUNTIME_SHUTDOWN: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("shipment-service: {error}");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = start_telemetry(config.log()) {
        eprintln!("shipment-service: {error}");
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("shipment-service: no threads can be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        let stop = CancellationToken::new();
        tokio::try_join!(cancel_on_signal(stop.clone()), run(config, stop))
    });
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
    match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("The shipment service ends: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Cancels on the first SIGTERM or SIGINT, and ends when that or something else has cancelled.
async fn cancel_on_signal(stop: CancellationToken) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        () = stop.cancelled() => {}
    }
    stop.cancel();
    Ok(())
}
