//! The control plane: the Kafka Connect REST API over connectors whose configurations live in Kafka.
//!
//! `rest` matches calls, `herder` owns the connectors, a `supervisor` runs each of them, and `storage` is what they know:
//! three Kafka topics in Connect's own format, so that Kafka Connect can take over, and back again.

mod dead_letters;
mod definitions;
mod entities;
mod error;
mod herder;
mod java_text;
mod log_levels;
mod metrics;
mod offsets;
mod plugins;
mod readiness;
mod references;
mod registered;
mod rest;
mod secrets;
mod storage;
mod supervisor;
mod task_records;
mod validation;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::herder::Herder;
use crate::config::WorkerConfig;

pub use self::log_levels::LogLevels;

/// What a stop may take beyond the time for draining (`SHUTDOWN_TIMEOUT`), all parts together: calls that end, source
/// offsets and statuses that are written.
const STOP_GRACE: Duration = Duration::from_secs(4);

/// Runs the worker until `stop`, then drains it within its bounds.
///
/// # Errors
/// When a connector file is wrong, the REST address cannot be bound, or the storage topics cannot be used.
pub async fn run(
    worker: Arc<WorkerConfig>,
    log_levels: LogLevels,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    references::check(&worker)?;
    let requests = registered::load(&worker)?;
    let access = rest::access::Access::load(&worker.rest)?;
    let tls = worker.rest.tls.as_ref().map(rest::tls::acceptor).transpose()?;
    let address = &worker.listen;
    let listener = TcpListener::bind((address.host.as_str(), address.port))
        .await
        .with_context(|| format!("the REST API cannot listen on {address}"))?;
    tracing::info!(http.address = %address, worker.id = %worker.advertised, "REST API listens");
    let (ready, herder) = watch::channel(None);
    let api = rest::Api::new(herder, Arc::clone(&worker), access);
    let rest_stop = CancellationToken::new();
    let rest = tokio::spawn(rest::serve(listener, tls, api, rest_stop.clone()));
    let started = tokio::select! {
        () = stop.cancelled() => None,
        started = Herder::start(Arc::clone(&worker), log_levels) => Some(started?),
    };
    if let Some(herder) = started {
        ready.send_replace(Some(Arc::clone(&herder)));
        tokio::select! {
            () = stop.cancelled() => {}
            () = async {
                registered::register(&herder, requests).await;
                std::future::pending::<()>().await;
            } => {}
        }
        rest_stop.cancel();
        tracing::info!("stopping: REST first, then the tasks");
        let bound = worker.shutdown_timeout + STOP_GRACE;
        let stopping = async {
            let _ = rest.await;
            herder.stop().await;
        };
        if tokio::time::timeout(bound, stopping).await.is_err() {
            tracing::warn!(
                bound_s = bound.as_secs(),
                "not everything was stopped in time; what was not acknowledged is read again"
            );
        }
    } else {
        rest_stop.cancel();
        let _ = rest.await;
    }
    Ok(())
}
