//! The REST side: shipments to read, and health.

mod health;
mod problem;
mod server;
mod shipments;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use sqlx::MySqlPool;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use crate::health::Vitals;
use problem::Problem;

/// A request that takes longer waits for a database that is away.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

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
    pub(crate) async fn run(self, stop: CancellationToken) {
        server::serve(self.listener, self.router, stop).await;
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
        // No limit on bodies: nothing here reads one, and the connection ends behind a request that sends one.
        .layer(middleware::from_fn(limit_duration))
        .layer(CatchPanicLayer::custom(problem::after_panic))
}

async fn limit_duration(request: Request, next: Next) -> Response {
    timeout(REQUEST_TIMEOUT, next.run(request)).await.unwrap_or_else(|_| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "This took too long; try again later")
            .into_response()
    })
}
