//! The REST side: shipments to read, and health.

mod health;
mod problem;
mod shipments;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use sqlx::MySqlPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;

use crate::health::Vitals;
use problem::Problem;

/// A request that takes longer waits for a database that is away.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Nothing here reads a body. Bytes.
const BODY_BYTES_MAX: usize = 1024;

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    pool: MySqlPool,
    vitals: Arc<Vitals>,
}

/// A server that has its port.
pub(crate) struct Server {
    listener: TcpListener,
    router: Router,
}

impl Server {
    /// Binds the address. Requests wait in the backlog until [`Server::run`].
    ///
    /// # Errors
    /// The address can't be bound.
    pub(crate) async fn bind(
        address: SocketAddr,
        pool: MySqlPool,
        vitals: Arc<Vitals>,
    ) -> anyhow::Result<Server> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| anyhow::anyhow!("HTTP_ADDRESS {address} can't be bound: {error}"))?;
        tracing::info!(http.address = %listener.local_addr()?, "Listening");
        Ok(Server { listener, router: router(Shared { pool, vitals }) })
    }

    /// Serves until the stop signal, then lets the requests in work end.
    pub(crate) async fn run(self, stop: CancellationToken) -> std::io::Result<()> {
        axum::serve(self.listener, self.router).with_graceful_shutdown(stop.cancelled_owned()).await
    }
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/shipments", get(shipments::list))
        .route("/shipments/{order_id}", get(shipments::of_order))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "There is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "Shipments are made by events; here they are only read",
            )
        })
        .with_state(shared)
        .layer(RequestBodyLimitLayer::new(BODY_BYTES_MAX))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, REQUEST_TIMEOUT))
        .layer(CatchPanicLayer::new())
}
