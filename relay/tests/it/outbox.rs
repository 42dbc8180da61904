//! A database with an outbox and a connector on it, whose sink keeps records in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use relay::config::WorkerConfig;
use relay::connector_config::ConnectorConfig;
use relay::record::Record;
use relay::sink::memory::{MemorySink, MemorySinkControl};
use relay::source_offset::SourceOffset;
use relay::task::{self, Beginning, TaskHandle, TaskState};
use sqlx::{Connection, PgConnection};
use testbed::{PostgresDatabase, eventually, servers, unique_name};

/// Within this time each fact must have become true; none takes a tenth of it on an idle machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A database with an outbox, and a connector on it.
pub(crate) struct Outbox {
    pub(crate) database: PostgresDatabase,
    sql: PgConnection,
    properties: BTreeMap<String, String>,
    pub(crate) slot: String,
}

impl Outbox {
    pub(crate) async fn new() -> Result<Self> {
        Self::on(servers().await?.postgres_database().await?).await
    }

    /// The same in a database that is there.
    pub(crate) async fn on(database: PostgresDatabase) -> Result<Self> {
        let mut sql = PgConnection::connect(&database.url()).await?;
        sqlx::raw_sql(
            "create schema inventory; \
             create table inventory.outboxevent (id uuid primary key default gen_random_uuid(), \
             aggregatetype varchar(255) not null, aggregateid varchar(255) not null, \
             type varchar(255) not null, timestamp timestamptz not null default now(), payload jsonb, \
             tracingspancontext varchar(256)); \
             create table inventory.other (id int primary key, text text)",
        )
        .execute(&mut sql)
        .await?;
        drop(sql);
        Self::with_tables(database).await
    }

    /// The same where the tables are there, too.
    pub(crate) async fn with_tables(database: PostgresDatabase) -> Result<Self> {
        let mut sql = PgConnection::connect(&database.url()).await?;
        // The servers of the tests commit asynchronously; here an LSN must lie behind the commits before it.
        sqlx::raw_sql("set synchronous_commit = on").execute(&mut sql).await?;
        let slot = unique_name("slot").replace('-', "_");
        let properties = properties(&database, &slot);
        Ok(Self { database, sql, properties, slot })
    }

    pub(crate) fn with(mut self, option: &str, value: &str) -> Self {
        self.properties.insert(option.to_owned(), value.to_owned());
        self
    }

    /// Connects anew, to whatever server has the database's address now.
    pub(crate) async fn reconnect(&mut self) -> Result<()> {
        self.sql = PgConnection::connect(&self.database.url()).await?;
        self.execute("set synchronous_commit = on").await
    }

    fn config(&self) -> Result<(Arc<ConnectorConfig>, Arc<WorkerConfig>)> {
        self.config_of(WorkerConfig::default())
    }

    fn config_of(&self, worker: WorkerConfig) -> Result<(Arc<ConnectorConfig>, Arc<WorkerConfig>)> {
        let worker = WorkerConfig { shutdown_timeout: Duration::from_secs(10), ..worker };
        let Ok(connector) = ConnectorConfig::parse(&self.properties, &worker) else {
            bail!("the options are refused");
        };
        Ok((Arc::new(connector), Arc::new(worker)))
    }

    /// Starts the connector with the worker's Kafka.
    pub(crate) fn start_to_kafka(
        &self,
        worker: &WorkerConfig,
        stored: Option<SourceOffset>,
    ) -> Result<TaskHandle> {
        let (connector, worker) = self.config_of(worker.clone())?;
        Ok(task::start(connector, worker, Beginning { stored, ..Beginning::default() }))
    }

    /// Starts the connector with a sink in memory.
    pub(crate) fn start(
        &self,
        room: usize,
        confirm_at_once: bool,
    ) -> Result<(TaskHandle, MemorySinkControl)> {
        let (sink, control) = MemorySink::new(room, confirm_at_once);
        let (connector, worker) = self.config()?;
        Ok((task::start_with_sink(connector, worker, sink), control))
    }

    /// Starts the connector with a sink in memory, from a stored position.
    pub(crate) fn start_with_stored(
        &self,
        stored: SourceOffset,
    ) -> Result<(TaskHandle, MemorySinkControl)> {
        let (sink, control) = MemorySink::new(100, true);
        let (connector, worker) = self.config()?;
        let beginning = Beginning { stored: Some(stored), ..Beginning::default() };
        Ok((task::resume_with_sink(connector, worker, sink, beginning), control))
    }

    /// Starts the connector to the Kafka of the tests.
    pub(crate) async fn start_to_test_kafka(&self) -> Result<TaskHandle> {
        let (connector, worker) = self.config()?;
        let bootstrap_servers = servers().await?.bootstrap_servers().to_owned();
        let worker = Arc::new(WorkerConfig { bootstrap_servers, ..(*worker).clone() });
        Ok(task::start(connector, worker, Beginning::default()))
    }

    pub(crate) async fn execute(&mut self, sql: &str) -> Result<()> {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut self.sql).await?;
        Ok(())
    }

    /// Makes the connector's role a superuser, as it must be for some options.
    pub(crate) async fn with_superuser(self) -> Result<Self> {
        let mut admin =
            PgConnection::connect(&servers().await?.postgres_administrator(&self.database).url())
                .await?;
        let alter = format!("alter role \"{}\" superuser", self.database.user);
        sqlx::raw_sql(sqlx::AssertSqlSafe(alter)).execute(&mut admin).await?;
        Ok(self)
    }

    /// The first column of the first row, as text.
    pub(crate) async fn value(&mut self, sql: &str) -> Result<Option<String>> {
        let sql = sqlx::AssertSqlSafe(format!("select ({sql})::text"));
        let (value,) = sqlx::query_as(sql).fetch_one(&mut self.sql).await?;
        Ok(value)
    }

    /// Waits until [`Self::value`] is this.
    pub(crate) async fn until_value(&self, sql: &str, expected: &str) -> Result<()> {
        let (url, sql) = (self.database.url(), format!("select ({sql})::text"));
        eventually(&format!("{sql} is {expected}"), DEADLINE, || async {
            let mut connection = PgConnection::connect(&url).await?;
            let (value,): (Option<String>,) =
                sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).fetch_one(&mut connection).await?;
            Ok((value.as_deref() == Some(expected)).then_some(()))
        })
        .await
    }

    /// Inserts rows with these aggregate ids into a table of the outbox's form, and leaves them there.
    pub(crate) async fn keep(&mut self, table: &str, aggregate_ids: &[&str]) -> Result<()> {
        for id in aggregate_ids {
            self.execute(&format!(
                "insert into {table} (aggregatetype, aggregateid, type, payload) \
                 values ('Order', '{id}', 'OrderCreated', '{{}}')"
            ))
            .await?;
        }
        Ok(())
    }

    /// The slots of this database.
    pub(crate) async fn slots(&mut self) -> Result<String> {
        let slots = "select string_agg(slot_name, ',') from pg_replication_slots \
                     where database = current_database()";
        Ok(self.value(slots).await?.unwrap_or_default())
    }

    /// Inserts and deletes an outbox row in one transaction, as order-service does.
    pub(crate) async fn emit(&mut self, aggregate_id: &str) -> Result<()> {
        self.execute(&format!(
            "begin; insert into inventory.outboxevent (aggregatetype, aggregateid, type, payload) \
             values ('Order', '{aggregate_id}', 'OrderCreated', '{{\"id\": {aggregate_id}}}'); \
             delete from inventory.outboxevent; commit"
        ))
        .await
    }

    /// The same; returns a position of WAL within the transaction. What is acknowledged up to its end covers it, while
    /// a position read after the commit may lie behind what other databases of the server wrote meanwhile.
    pub(crate) async fn emit_and_locate(&mut self, aggregate_id: &str) -> Result<String> {
        self.execute(&format!(
            "begin; insert into inventory.outboxevent (aggregatetype, aggregateid, type, payload) \
             values ('Order', '{aggregate_id}', 'OrderCreated', '{{\"id\": {aggregate_id}}}')"
        ))
        .await?;
        let (lsn,) = sqlx::query_as("select pg_current_wal_insert_lsn()::text")
            .fetch_one(&mut self.sql)
            .await?;
        self.execute("delete from inventory.outboxevent; commit").await?;
        Ok(lsn)
    }

    /// Waits until the slot is being read from; one that is being made is active, too, but has no position yet.
    pub(crate) async fn streaming(&self) -> Result<()> {
        let (url, slot) = (self.database.url(), &self.slot);
        eventually("the slot is active", DEADLINE, || async {
            let mut sql = PgConnection::connect(&url).await?;
            let active: Option<(bool,)> = sqlx::query_as(
                "select active and confirmed_flush_lsn is not null from pg_replication_slots \
                     where slot_name = $1",
            )
            .bind(slot)
            .fetch_optional(&mut sql)
            .await?;
            Ok(active.filter(|(active,)| *active).map(|_| ()))
        })
        .await
    }

    /// Whether everything up to the end of the WAL, as it is now, was acknowledged.
    pub(crate) async fn acknowledged(&mut self, lsn: &str) -> Result<bool> {
        let (acknowledged,) = sqlx::query_as(
            "select confirmed_flush_lsn >= $2::pg_lsn from pg_replication_slots where slot_name = $1",
        )
        .bind(&self.slot)
        .bind(lsn)
        .fetch_one(&mut self.sql)
        .await?;
        Ok(acknowledged)
    }

    pub(crate) async fn wal_end(&mut self) -> Result<String> {
        let (lsn,) =
            sqlx::query_as("select pg_current_wal_lsn()::text").fetch_one(&mut self.sql).await?;
        Ok(lsn)
    }

    pub(crate) async fn until_acknowledged(&mut self, lsn: &str) -> Result<()> {
        let (url, slot, lsn) = (self.database.url(), self.slot.clone(), lsn.to_owned());
        eventually("the slot is acknowledged", DEADLINE, || async {
            let mut sql = PgConnection::connect(&url).await?;
            let (done,): (bool,) = sqlx::query_as(
                "select confirmed_flush_lsn >= $2::pg_lsn from pg_replication_slots where slot_name = $1",
            )
            .bind(&slot)
            .bind(&lsn)
            .fetch_one(&mut sql)
            .await?;
            Ok(done.then_some(()))
        })
        .await
    }
}

fn properties(database: &PostgresDatabase, slot: &str) -> BTreeMap<String, String> {
    let port = database.port.to_string();
    [
        ("name", "outbox-connector"),
        ("connector.class", "io.debezium.connector.postgresql.PostgresConnector"),
        ("plugin.name", "pgoutput"),
        ("database.hostname", &database.host),
        ("database.port", &port),
        ("database.user", &database.user),
        ("database.password", &database.password),
        ("database.dbname", &database.name),
        ("topic.prefix", "dbserver1"),
        ("slot.name", slot),
        ("publication.autocreate.mode", "filtered"),
        ("table.include.list", "inventory.outboxevent"),
        ("extended.headers.enabled", "false"),
        ("transforms", "outbox"),
        ("transforms.outbox.type", "io.debezium.transforms.outbox.EventRouter"),
        ("transforms.outbox.route.topic.replacement", "${routedByValue}Events"),
        ("transforms.outbox.table.fields.additional.placement", "type:header:eventType"),
        ("transforms.outbox.table.expand.json.payload", "true"),
        ("key.converter", "org.apache.kafka.connect.storage.StringConverter"),
        ("value.converter", "org.apache.kafka.connect.json.JsonConverter"),
        ("value.converter.schemas.enable", "false"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

pub(crate) async fn records(control: &MemorySinkControl, count: usize) -> Result<Vec<Record>> {
    eventually(&format!("{count} records"), DEADLINE, || async {
        let records = control.records();
        Ok((records.len() >= count).then_some(records))
    })
    .await
}

pub(crate) fn keys(records: &[Record]) -> Vec<String> {
    let key = |record: &Record| {
        String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned()
    };
    records.iter().map(key).collect()
}

/// Waits until the task runs.
pub(crate) async fn running(task: &TaskHandle) -> Result<()> {
    let mut state = task.subscribe();
    tokio::time::timeout(DEADLINE, state.wait_for(|state| *state == TaskState::Running)).await??;
    Ok(())
}

/// Waits until the task has failed, and returns its trace.
pub(crate) async fn trace_of_failure(task: &TaskHandle) -> Result<String> {
    let mut state = task.subscribe();
    let failed = state.wait_for(|state| matches!(state, TaskState::Failed { .. }));
    match tokio::time::timeout(DEADLINE, failed).await {
        Ok(failed) => match failed?.clone() {
            TaskState::Failed { trace } => Ok(trace),
            other => bail!("not failed: {other:?}"),
        },
        Err(_) => bail!("not failed in time: {:?}, {:?}", task.state(), task.health().look()),
    }
}
