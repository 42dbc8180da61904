//! Somebody else who reads from a slot: a connector of ours in this process, with a sink in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, bail};
use relay::config::WorkerConfig;
use relay::connector_config::ConnectorConfig;
use relay::sink::memory::MemorySink;
use relay::task::{self, TaskHandle};
use sqlx::PgConnection;
use testbed::{PostgresDatabase, eventually};

use crate::connect_worker::{DEADLINE, example_config};

/// Reads from a slot until it is released.
pub(crate) struct SlotHolder {
    task: TaskHandle,
    slot: String,
}

impl SlotHolder {
    /// Returns once PostgreSQL shows the slot as active.
    pub(crate) async fn hold(
        database: &PostgresDatabase,
        slot: &str,
        sql: &mut PgConnection,
    ) -> Result<Self> {
        Self::start(database, slot, sql, true).await
    }

    /// The same with a Kafka that confirms nothing: from the first event on the slot stays where it is.
    pub(crate) async fn hold_still(
        database: &PostgresDatabase,
        slot: &str,
        sql: &mut PgConnection,
    ) -> Result<Self> {
        Self::start(database, slot, sql, false).await
    }

    async fn start(
        database: &PostgresDatabase,
        slot: &str,
        sql: &mut PgConnection,
        confirms: bool,
    ) -> Result<Self> {
        let mut properties: BTreeMap<String, String> =
            serde_json::from_value(example_config(database)?)?;
        properties.insert("name".to_owned(), "holder".to_owned());
        properties.insert("slot.name".to_owned(), slot.to_owned());
        let worker = WorkerConfig { shutdown_timeout: DEADLINE, ..WorkerConfig::default() };
        let Ok(connector) = ConnectorConfig::parse(&properties, &worker) else {
            bail!("the holder's options are refused");
        };
        let (sink, _control) = MemorySink::new(1, confirms);
        let task = task::start_with_sink(Arc::new(connector), Arc::new(worker), sink);
        wait_for(sql, slot, true).await?;
        Ok(Self { task, slot: slot.to_owned() })
    }

    /// Returns once PostgreSQL shows the slot as free.
    pub(crate) async fn release(self, sql: &mut PgConnection) -> Result<()> {
        self.task.stop().await;
        wait_for(sql, &self.slot, false).await
    }
}

impl SlotHolder {
    /// As if it were killed: nothing is drained.
    pub(crate) async fn die(self, sql: &mut PgConnection) -> Result<()> {
        self.task.abandon();
        wait_for(sql, &self.slot, false).await
    }
}

async fn wait_for(sql: &mut PgConnection, slot: &str, wanted: bool) -> Result<()> {
    let sql = tokio::sync::Mutex::new(sql);
    eventually("the slot is held or free", DEADLINE, || async {
        let mut sql = sql.lock().await;
        let query = "select active from pg_replication_slots where slot_name = $1";
        let active: Option<bool> =
            sqlx::query_scalar(query).bind(slot).fetch_optional(&mut **sql).await?;
        Ok((active.unwrap_or(false) == wanted).then_some(()))
    })
    .await
}
