//! A connector with numbered events, and its relay as a process.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::{PostgresDatabase, eventually, unique_name};

use crate::connect_worker::{DEADLINE, Worker, example_config, outbox_database};
use crate::numbered_events::NumberedEvents;

/// The connector.
pub(crate) const NAME: &str = "stops";

/// `SHUTDOWN_TIMEOUT` of the relay, and the same as a time.
const DRAIN: (&str, &str) = ("SHUTDOWN_TIMEOUT", "2000");
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(2);

/// A connector and its relay, which comes and goes.
pub(crate) struct Flow {
    pub(crate) topics: String,
    pub(crate) bootstrap_servers: String,
    pub(crate) database: PostgresDatabase,
    pub(crate) config: serde_json::Value,
    pub(crate) events: NumberedEvents,
}

impl Flow {
    pub(crate) async fn new(bootstrap_servers: &str, options: &[(&str, &str)]) -> Result<Self> {
        let (database, _sql) = outbox_database().await?;
        let mut config = example_config(&database)?;
        for (option, value) in options {
            config[*option] = json!(value);
        }
        let slot = config["slot.name"].as_str().unwrap_or_default();
        let events = NumberedEvents::new(&database, slot, bootstrap_servers);
        let bootstrap_servers = bootstrap_servers.to_owned();
        Ok(Self { topics: unique_name("stops"), bootstrap_servers, database, config, events })
    }

    pub(crate) fn start(&self, env: &[(&str, &str)]) -> Result<Worker> {
        let env: Vec<(&str, &str)> = env.iter().copied().chain([DRAIN]).collect();
        Worker::start_only(&self.bootstrap_servers, &self.topics, &env)
    }

    pub(crate) async fn register(&self, worker: &Worker) -> Result<()> {
        worker.program.line("REST API listens", DEADLINE).await?;
        let body = json!({"name": NAME, "config": self.config});
        let (status, answer) = worker.call("POST", "/connectors", Some(&body)).await?;
        ensure!(status == 201, "{answer}");
        Ok(())
    }

    pub(crate) async fn streaming(&self) -> Result<Worker> {
        let worker = self.start(&[])?;
        self.register(&worker).await?;
        worker.states(NAME, "RUNNING", Some("RUNNING")).await?;
        Ok(worker)
    }

    pub(crate) async fn arrived(&self, count: usize) -> Result<()> {
        eventually("first events", DEADLINE, || async {
            Ok((self.events.arrived().await?.len() >= count).then_some(()))
        })
        .await
    }
}
