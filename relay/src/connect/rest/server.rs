//! The HTTP server: accepts connections within limits, and lets calls end when the process stops.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::catch_panic::CatchPanicLayer;

use super::Api;

/// Open connections; keep-alive clients and probes hold one each.
const CONNECTIONS_MAX: usize = 256;
/// Request line and headers together; the largest that a client of this API sends is far below.
const HEADERS_MAX_BYTES: usize = 64 * 1024;
/// Headers of one request.
const HEADERS_MAX: usize = 100;
/// How long a client may take to send its headers, against slow ones that hold connections.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(15);
/// How long calls may go on when the process stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// After an error of accept, such as too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Serves until `stop`, then lets the calls that have begun end.
pub(in crate::connect) async fn serve(listener: TcpListener, api: Api, stop: CancellationToken) {
    let router = Router::new()
        .fallback(|State(api): State<Api>, request: Request| api.handle(request))
        .layer(CatchPanicLayer::new())
        .with_state(api);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match (accepted, Arc::clone(&slots).try_acquire_owned()) {
            (Ok((stream, _)), Ok(slot)) => {
                let (router, stop) = (router.clone(), stop.clone());
                connections.spawn(async move {
                    serve_connection(stream, router, stop).await;
                    drop(slot);
                });
            }
            (Ok(_), Err(_)) => {
                tracing::warn!(
                    http.connections = CONNECTIONS_MAX,
                    "REST: too many connections, one is closed"
                );
            }
            (Err(error), _) => {
                tracing::warn!(%error, "REST: a connection was not accepted");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
    drop(listener);
    connections.close();
    let ended = tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await.is_ok();
    tracing::info!(in_time = ended, "REST stopped");
}

async fn serve_connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .max_buf_size(HEADERS_MAX_BYTES)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients that go away in mid-call are everyday life.
        tracing::debug!(%error, "REST: a connection ended with an error");
    }
}
