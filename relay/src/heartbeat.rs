//! `heartbeat.action.query`: SQL that is run from time to time beside the stream, to make WAL where there is little.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::connector_config::ConnectorConfig;
use crate::source::SourceError;
use crate::source::connection::{Connection, Purpose};

/// Runs the query as long as it is kept.
#[derive(Debug)]
pub struct HeartbeatAction(JoinHandle<()>);

impl HeartbeatAction {
    /// Starts it, if the connector asks for it.
    #[must_use]
    pub fn start(connector: &ConnectorConfig) -> Option<Self> {
        let interval = connector.metadata.heartbeat_interval?;
        let query = connector.metadata.heartbeat_query.clone()?;
        let connector = Arc::new(connector.clone());
        Some(Self(tokio::spawn(async move { repeat(&connector, &query, interval).await })))
    }
}

impl Drop for HeartbeatAction {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn repeat(connector: &ConnectorConfig, query: &str, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection = None;
    let mut told = String::new();
    loop {
        ticks.tick().await;
        match run(connector, query, connection.take()).await {
            Ok(open) => {
                connection = Some(open);
                told.clear();
            }
            Err(error) => {
                let reason = error.to_string();
                // Once per reason. The stream goes on, as with Debezium; the next heartbeat tries again.
                if reason != told {
                    tracing::error!(
                        connector.name = connector.name,
                        "heartbeat.action.query failed: {reason}"
                    );
                    told = reason;
                }
            }
        }
    }
}

async fn run(
    connector: &ConnectorConfig,
    query: &str,
    open: Option<Connection>,
) -> Result<Connection, SourceError> {
    let mut connection = match open {
        Some(connection) => connection,
        None => Connection::open(&connector.database, Purpose::Query).await?,
    };
    connection.query("run heartbeat.action.query", query).await?;
    Ok(connection)
}
