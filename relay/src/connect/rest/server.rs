//! The HTTP server: accepts connections within limits, and lets calls end when the process stops.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
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
/// How long a client may leave an answer unread. One that never reads would keep its connection for ever.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
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
            serve_connection(stream, tls, router, stop, STALL_TIMEOUT).await;
            drop(slot);
        });
    }
    drop(listener);
    connections.close();
    let ended = tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await.is_ok();
    tracing::info!(in_time = ended, "REST stopped");
}

async fn serve_connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    stop: CancellationToken,
    stall_max: Duration,
) {
    // Below TLS, which has a buffer of its own, and whose goodbye waits for the client as well.
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(stall_max));
    let stream = Box::pin(stream);
    let Some(tls) = tls else { return serve_stream(stream, router, stop).await };
    match tokio::time::timeout(HEADERS_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => serve_stream(stream, router, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, "REST: no TLS session"),
        Err(_) => tracing::debug!("REST: a TLS session took too long to begin"),
    }
}

async fn serve_stream(
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

#[cfg(test)]
mod tests {
    use testbed::server::Authority;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, crypto};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    /// More than the buffers between a server and its client hold.
    const ANSWER_BYTES: usize = 64 << 20;
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n";
    const STALL: Duration = Duration::from_millis(200);
    const DEADLINE: Duration = Duration::from_secs(60);

    /// A client, and the connection that serves it.
    async fn pair(tls: Option<TlsAcceptor>) -> (TcpStream, impl Future<Output = ()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let router = Router::new().fallback(|| std::future::ready(vec![b'x'; ANSWER_BYTES]));
        (client, serve_connection(stream, tls, router, CancellationToken::new(), STALL))
    }

    /// Asks, and reads nothing before the connection has ended.
    async fn leaves_unread(
        mut client: impl AsyncRead + AsyncWrite + Unpin,
        connection: impl Future<Output = ()>,
    ) {
        client.write_all(REQUEST).await.unwrap();
        client.flush().await.unwrap();
        tokio::time::timeout(DEADLINE, connection).await.unwrap();
        drop(client);
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_ends_its_connection() {
        let (client, connection) = pair(None).await;
        leaves_unread(client, connection).await;
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_ends_its_connection_with_tls_as_well() {
        let authority = Authority::new().unwrap();
        let identity = authority.issue("relay", &["localhost"]).unwrap();
        let provider = Arc::new(crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap(),
            )
            .unwrap();
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap();
        roots.add(root).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (stream, connection) = pair(Some(TlsAcceptor::from(Arc::new(server)))).await;
        let connection = tokio::spawn(connection);
        let name = ServerName::try_from("localhost").unwrap();
        let client = TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
        leaves_unread(client, async { connection.await.unwrap() }).await;
    }

    #[tokio::test]
    async fn an_answer_that_is_read_comes_whole() {
        let (mut client, connection) = pair(None).await;
        client.write_all(REQUEST).await.unwrap();
        let mut answer = Vec::new();
        let read = client.read_to_end(&mut answer);
        let ((), read) =
            tokio::time::timeout(DEADLINE, async { tokio::join!(connection, read) }).await.unwrap();
        assert!(read.unwrap() > ANSWER_BYTES && answer.starts_with(b"HTTP/1.1 200"));
    }
}
