//! Takes connections, bounded in number and patience, and drains them at the end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::bounded_writes::BoundedWrites;

/// Connections at a time. More wait in the listener's backlog; each costs a few kB and, in a request, up to a body.
const CONNECTIONS_MAX: usize = 1024;

/// How long a client may take to send a request's headers, and a quiet connection may stay.
const HEADER_READ_DURATION_MAX: Duration = Duration::from_secs(30);

/// How long a client may leave an answer unread. One that never reads would keep its place, and a page of orders in
/// memory, for ever.
const STALL_DURATION_MAX: Duration = Duration::from_secs(30);

/// How long requests may go on after the signal to stop. Compose and Kubernetes kill after 10 and 30 seconds unless told
/// otherwise, and closing the pool takes up to another second; a request that was taken is worth waiting for, one that
/// hangs is not.
const DRAIN_DURATION_MAX: Duration = Duration::from_secs(8);

/// After a failed accept (no file descriptor left, say) the next one would fail as well.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Serves until `stop`, then lets running requests end within a bound. Answers whether all of them did.
pub(crate) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> bool {
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let cut = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, place)) = accepted else { continue };
        let connection = serve_connection(stream, router.clone(), stop.clone());
        let cut = cut.clone();
        connections.spawn(async move {
            let _place = place;
            cut.run_until_cancelled(connection).await;
        });
    }
    // From here on nobody can connect; another instance may take the port.
    drop(listener);
    connections.close();
    let drained = tokio::time::timeout(DRAIN_DURATION_MAX, connections.wait()).await.is_ok();
    cut.cancel();
    drained
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    // The semaphore is never closed.
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            warn!(%error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            None
        }
    }
}

async fn serve_connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    // Answers are small and complete: waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_DURATION_MAX)
        .serve_connection(
            TokioIo::new(BoundedWrites::new(stream, STALL_DURATION_MAX)),
            TowerToHyperService::new(router),
        );
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            // Ends a quiet connection at once and a busy one after its answer.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended early");
    }
}
