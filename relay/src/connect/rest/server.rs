//! The HTTP server: accepts connections within limits, and lets calls end when the process stops.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::catch_panic::CatchPanicLayer;

use super::{Api, answer};

/// Open connections; keep-alive clients and probes hold one each.
const CONNECTIONS_MAX: usize = 256;
/// Connections beyond them that are told to come back later.
const REFUSALS_MAX: usize = 16;
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
pub(in crate::connect) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    api: Api,
    stop: CancellationToken,
) {
    let router = Router::new()
        .fallback(|State(api): State<Api>, request: Request| api.handle(request))
        .layer(CatchPanicLayer::new())
        .with_state(api);
    let busy = Router::new().fallback(|| std::future::ready(answer::busy()));
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "REST: a connection was not accepted");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            }
        };
        let (slot, router) = match Arc::clone(&slots).try_acquire_owned() {
            Ok(slot) => (slot, router.clone()),
            Err(_) => {
                tracing::warn!(http.connections = CONNECTIONS_MAX, "REST: too many connections");
                // Told so, as far as that costs little; else the connection is closed.
                let Ok(slot) = Arc::clone(&refusals).try_acquire_owned() else { continue };
                (slot, busy.clone())
            }
        };
        let (tls, stop) = (tls.clone(), stop.clone());
        connections.spawn(async move {
            match tls {
                None => serve_connection(stream, router, stop).await,
                Some(tls) => {
                    match tokio::time::timeout(HEADERS_TIMEOUT, tls.accept(stream)).await {
                        Ok(Ok(stream)) => serve_connection(stream, router, stop).await,
                        Ok(Err(error)) => tracing::debug!(%error, "REST: no TLS session"),
                        Err(_) => tracing::debug!("REST: a TLS session took too long to begin"),
                    }
                }
            }
            drop(slot);
        });
    }
    drop(listener);
    connections.close();
    let ended = tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await.is_ok();
    tracing::info!(in_time = ended, "REST stopped");
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    stop: CancellationToken,
) {
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
