//! The shipment service: order events from Kafka become shipments in MySQL, each once in effect.
#![doc = include_str!("../README.md")]

// In the order of the data: a message is read, decides what is to be shipped, is handled in one transaction,
// and its offset is committed.
mod message;

mod event;
mod shipment;

mod failure;
mod handler;
mod message_log;
mod store;

mod dead_letter;

mod assignment;
mod consumer;
mod kafka;

// What everything stands on.
mod backoff;
mod config;
mod database;
mod health;
mod http;
mod telemetry;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use config::{Config, ConfigError};
pub use telemetry::start as start_telemetry;

use crate::consumer::Consumer;
use crate::dead_letter::DeadLetters;
use crate::handler::Handler;
use crate::health::Vitals;
use crate::http::Server;

/// How long requests in work, and then open connections to MySQL, may take after the consumer has stopped.
const HTTP_DRAIN: Duration = Duration::from_secs(1);
const POOL_CLOSE: Duration = Duration::from_millis(500);

/// Runs the service until the stop signal; then drains within ten seconds and says what was done.
///
/// # Errors
/// The HTTP port is taken, the tables belong to another version, or librdkafka can't go on.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let vitals = Arc::new(Vitals::new());
    let pool = database::pool(&config.database);
    // First, so that health can be asked while we wait for the rest.
    let server = Server::bind(config.http_address, pool.clone(), Arc::clone(&vitals)).await?;
    let server = tokio::spawn(server.run(stop.clone()));

    let consumed = tokio::select! {
        biased;
        () = stop.cancelled() => {
            tracing::info!("Stopped while starting; nothing was consumed");
            Ok(())
        }
        started = start(&config, &pool, &vitals) => match started {
            Ok(consumer) => consumer.run(stop.clone()).await.map(|_| ()),
            Err(error) => Err(error),
        },
    };

    stop.cancel();
    if timeout(HTTP_DRAIN, server).await.is_err() {
        tracing::info!("REST requests were still in work at the end");
    }
    let _ = timeout(POOL_CLOSE, pool.close()).await;
    consumed
}

/// Waits for MySQL and Kafka, whichever comes first, and joins the group.
async fn start(
    config: &Config,
    pool: &sqlx::MySqlPool,
    vitals: &Arc<Vitals>,
) -> anyhow::Result<Consumer> {
    tokio::try_join!(database::prepare(pool, &config.database), kafka::wait(config))?;
    let dead_letters = DeadLetters::new(config)?;
    dead_letters.create_topic().await;
    Consumer::subscribe(config, Handler::new(pool.clone(), dead_letters), Arc::clone(vitals))
}
