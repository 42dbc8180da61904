//! Takes connections, bounded in number and patience, and drains them at the end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

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
        let connection = serve_connection(stream, router.clone(), stop.clone(), STALL_DURATION_MAX);
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

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    stop: CancellationToken,
    stall_max: Duration,
) {
    // Answers are small and complete: waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(stall_max));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_DURATION_MAX)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router));
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// More than the buffers between a server and its client hold.
    const ANSWER_BYTES: usize = 64 << 20;
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: service\r\nConnection: close\r\n\r\n";
    const STALL: Duration = Duration::from_millis(200);
    const DEADLINE: Duration = Duration::from_secs(60);

    /// A client that has asked, and the connection that serves it.
    async fn pair() -> (TcpStream, impl Future<Output = ()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(REQUEST).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let router = Router::new().fallback(|| std::future::ready(vec![b'x'; ANSWER_BYTES]));
        (client, serve_connection(stream, router, CancellationToken::new(), STALL))
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_ends_its_connection() {
        let (client, connection) = pair().await;
        tokio::time::timeout(DEADLINE, connection).await.unwrap();
        drop(client);
    }

    #[tokio::test]
    async fn an_answer_that_is_read_comes_whole() {
        let (mut client, connection) = pair().await;
        let mut answer = Vec::new();
        let read = client.read_to_end(&mut answer);
        let ((), read) =
            tokio::time::timeout(DEADLINE, async { tokio::join!(connection, read) }).await.unwrap();
        assert!(read.unwrap() > ANSWER_BYTES && answer.starts_with(b"HTTP/1.1 200"));
    }
}
