//! The order service: takes orders over REST and writes each with its events in one PostgreSQL transaction.
#![doc = include_str!("../README.md")]
// The modules in the order in which an order passes them.

pub mod config;
pub mod telemetry;

mod http;
mod server;

mod change_order_line;
mod place_order;

mod event;
mod money;
mod order;
mod trace_context;

mod database;
mod failure;
mod outbox;
mod store;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use crate::outbox::Retention;

use crate::config::Config;
use crate::http::AppState;

/// How long closing the pool may take after the requests have ended.
const POOL_CLOSE_DURATION_MAX: Duration = Duration::from_secs(1);

/// The service, listening but not yet serving.
#[derive(Debug)]
pub struct OrderService {
    config: Config,
    listener: TcpListener,
}

impl OrderService {
    /// Takes the port. Everything else waits for [`run`](Self::run).
    pub async fn bind(config: Config) -> anyhow::Result<OrderService> {
        let listener = TcpListener::bind(config.http_address).await.with_context(|| {
            format!("cannot listen on {}; free the port or set HTTP_ADDRESS", config.http_address)
        })?;
        Ok(OrderService { config, listener })
    }

    /// Where it listens; tells the port if the configuration asked for any free one.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves until `stop` is cancelled, then drains.
    ///
    /// It serves from the first moment: while the database is away it says so, with a 503 to orders and to
    /// `/health/ready`, and nobody has to start the two in an order.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        info!(http.address = %self.address()?, config = ?self.config, "listening");
        let pool = database::pool(&self.config);
        // A token of our own: a failed migration stops us without stopping the caller.
        let stop = stop.child_token();
        let state = AppState::new(pool.clone(), self.config.retention, stop.clone());
        let router = http::router(state.clone());

        let preparing = async {
            let prepared = stop.run_until_cancelled(database::prepare(&self.config)).await;
            match prepared {
                Some(Ok(())) => state.set_prepared(),
                Some(Err(_)) => stop.cancel(),
                None => {}
            }
            prepared.unwrap_or(Ok(()))
        };
        let serving = server::serve(self.listener, router, stop.clone());
        let draining = async {
            stop.cancelled().await;
            let waiting = state.requests_in_flight();
            info!(requests.in_flight = waiting, "stopping: no new connections, finishing requests");
            waiting
        };
        let (prepared, drained, waiting) = tokio::join!(preparing, serving, draining);

        let left = state.requests_in_flight();
        let closed = tokio::time::timeout(POOL_CLOSE_DURATION_MAX, pool.close()).await.is_ok();
        if drained && closed {
            info!(requests.drained = waiting, "stopped: every request was answered");
        } else {
            warn!(
                requests.drained = waiting.saturating_sub(left),
                requests.cut = left,
                "stopped: out of time, unfinished transactions are rolled back"
            );
        }
        prepared
    }
}
