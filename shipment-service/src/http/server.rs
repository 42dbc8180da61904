//! Takes connections, bounded in number and patience, and lets them end at the stop.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at a time; more wait in the listener's backlog. A few readers and a probe is what is expected.
const CONNECTIONS_MAX: usize = 256;
/// How long a client may take to send the headers of a request, and a quiet connection may stay.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may leave an answer unread. One that never reads would keep its place for ever.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// After a failed accept (no file descriptor left, say) the next one would fail as well.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Serves until the stop signal, then returns when the requests in work have ended. How long that may take is for the
/// caller to say; dropping this cuts them.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Some(place) = stop.run_until_cancelled(Arc::clone(&places).acquire_owned()).await {
        let Some(accepted) = stop.run_until_cancelled(listener.accept()).await else { break };
        match accepted {
            Ok((stream, _)) => {
                let connection =
                    serve_connection(stream, router.clone(), stop.clone(), STALL_TIMEOUT);
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(error = %error, "A connection can't be accepted");
                sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    stop: CancellationToken,
    stall_max: Duration,
) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(stall_max));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
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
        tracing::debug!(error = %error, "A connection ended early");
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
