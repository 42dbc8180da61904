//! Runs one case through the relay itself: its options, a slot on a real PostgreSQL, a task, and a sink in memory.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use relay::config::WorkerConfig;
use relay::connector_config::ConnectorConfig;
use relay::record::Record;
use relay::sink::memory::{MemorySink, MemorySinkControl};
use relay::source::wal::now_us;
use relay::task::{self, TaskHandle, TaskState};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, PgConnection};
use testbed::{PostgresDatabase, Servers, eventually, unique_name};

use crate::case::Case;
use crate::log::lines_of;

/// Within this time a case must have been worked off; it takes a fraction of a second.
const DEADLINE: Duration = Duration::from_secs(60);

/// Within this time a record that comes every 100 ms must have come.
const REPEAT_DEADLINE: Duration = Duration::from_secs(10);

/// Records that a case may make.
const RECORDS_MAX: usize = 100_000;

/// What became of a case.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) records: Vec<Record>,
    pub(crate) failure: Option<Failure>,
    /// Levels of what the transforms logged.
    pub(crate) logs: Vec<&'static str>,
    /// Milliseconds since 1970 before the first and after the last change was handled.
    pub(crate) time: (i64, i64),
    /// Name of the database, which raw events tell.
    pub(crate) database: String,
}

/// The task failed, or its options were refused.
#[derive(Debug)]
pub(crate) struct Failure {
    /// In the words of the vectors.
    pub(crate) stage: &'static str,
    pub(crate) reason: String,
}

/// Runs a case in a database of its own.
pub(crate) async fn run(case: &Case, servers: &Servers) -> Result<Outcome> {
    let database = servers.postgres_database().await?;
    let slot = unique_name("conformance").replace('-', "_");
    let mut sql = connect(&database).await?;
    execute(&mut sql, &case.setup).await?;
    sqlx::query("select pg_create_logical_replication_slot($1, 'pgoutput')")
        .bind(&slot)
        .execute(&mut sql)
        .await?;
    let outcome = with_slot(case, &database, &slot, &mut sql).await;
    sqlx::query("select pg_drop_replication_slot($1)").bind(&slot).execute(&mut sql).await?;
    outcome
}

async fn with_slot(
    case: &Case,
    database: &PostgresDatabase,
    slot: &str,
    sql: &mut PgConnection,
) -> Result<Outcome> {
    execute(sql, &case.sql).await?;
    let started_at = now_us() / 1000;
    let outcome = |records, failure| Outcome {
        records,
        failure,
        logs: lines_of(slot),
        time: (started_at, now_us() / 1000),
        database: database.name.clone(),
    };
    let worker = worker(case)?;
    let connector = match ConnectorConfig::parse(&properties(case, database, slot), &worker) {
        Ok(connector) => connector,
        Err(refused) => {
            let options = refused.iter().map(|refused| refused.option.as_str());
            let reason = options.collect::<Vec<_>>().join(", ");
            return Ok(outcome(Vec::new(), Some(Failure { stage: "configure", reason })));
        }
    };
    let (sink, control) = MemorySink::new(RECORDS_MAX, true);
    let task = task::start_with_sink(Arc::new(connector), Arc::new(worker), sink);
    let failure = streamed(case, &task, &control, sql, slot).await;
    if !task.stop().await {
        bail!("the task did not stop in time");
    }
    Ok(outcome(control.records(), failure?))
}

/// Follows the task until it has failed or nothing more is to come.
async fn streamed(
    case: &Case,
    task: &TaskHandle,
    control: &MemorySinkControl,
    sql: &mut PgConnection,
    slot: &str,
) -> Result<Option<Failure>> {
    let mut failure = worked_off(task, sql, slot).await?;
    if failure.is_none() && !case.live_sql.is_empty() {
        execute(sql, &case.live_sql).await?;
        failure = worked_off(task, sql, slot).await?;
    }
    if failure.is_none() {
        repeated(case, control).await?;
    }
    Ok(failure)
}

/// The worker that a case needs.
fn worker(case: &Case) -> Result<WorkerConfig> {
    let mut variables = vec![("BOOTSTRAP_SERVERS", "localhost:9092")];
    match case.requires.as_deref() {
        None => {}
        Some("OpenTelemetry SDK") => variables.push(("ENABLE_OTEL", "true")),
        Some(other) => bail!("it requires {other}, which the runner does not know"),
    }
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let worker = WorkerConfig::from_variables(variables.into_iter().map(owned))?;
    Ok(WorkerConfig { shutdown_timeout: DEADLINE, ..worker })
}

/// The options of a case, with those that it leaves to the runner.
fn properties(
    case: &Case,
    database: &PostgresDatabase,
    slot: &str,
) -> std::collections::BTreeMap<String, String> {
    let mut properties = case.connector_config.clone();
    let port = database.port.to_string();
    let own = [
        ("name", slot),
        ("slot.name", slot),
        ("database.hostname", &database.host),
        ("database.port", &port),
        ("database.user", &database.user),
        ("database.password", &database.password),
        ("database.dbname", &database.name),
    ];
    properties.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    properties
}

async fn connect(database: &PostgresDatabase) -> Result<PgConnection> {
    let options = PgConnectOptions::from_str(&database.url())?.extra_float_digits(None);
    let mut connection = options.disable_statement_logging().connect().await?;
    // The slot shows what is flushed; the test servers do not flush at each commit.
    connection.execute("set synchronous_commit = on").await?;
    Ok(connection)
}

async fn execute(connection: &mut PgConnection, statements: &[String]) -> Result<()> {
    for statement in statements {
        let statement = match statement.strip_suffix(FOR_ALL_TABLES) {
            Some(publication) => format!("{publication}{}", all_tables(connection).await?),
            None => statement.clone(),
        };
        let result = connection.execute(AssertSqlSafe(statement.clone())).await;
        result.with_context(|| format!("{statement:.200}"))?;
    }
    Ok(())
}

/// A publication of all tables takes a superuser, which the tests are not: the tables are named instead.
const FOR_ALL_TABLES: &str = " for all tables";

async fn all_tables(connection: &mut PgConnection) -> Result<String> {
    let tables = "select string_agg(format('%I.%I', n.nspname, c.relname), ', ') from pg_class c \
                  join pg_namespace n on n.oid = c.relnamespace \
                  where c.relkind in ('r', 'p') and not c.relispartition \
                  and n.nspname not in ('pg_catalog', 'information_schema')";
    let tables: String = sqlx::query_scalar(tables).fetch_one(connection).await?;
    Ok(format!(" for table {tables}"))
}

/// Waits until everything that is written now has been acknowledged, or the task has failed.
async fn worked_off(
    task: &TaskHandle,
    sql: &mut PgConnection,
    slot: &str,
) -> Result<Option<Failure>> {
    let end: String =
        sqlx::query_scalar("select pg_current_wal_lsn()::text").fetch_one(&mut *sql).await?;
    let sql = tokio::sync::Mutex::new(sql);
    let (sql, end) = (&sql, &end);
    let settled = eventually("everything is worked off", DEADLINE, || async move {
        if let TaskState::Failed { trace } = task.state() {
            return Ok(Some(Some(Failure { stage: stage_of(&trace), reason: trace })));
        }
        // Before that the slot is as it was made, however far that is.
        if task.state() != TaskState::Running {
            return Ok(None);
        }
        let query = "select confirmed_flush_lsn >= $2::pg_lsn from pg_replication_slots \
                     where slot_name = $1";
        let acknowledged: Option<bool> = sqlx::query_scalar(query)
            .bind(slot)
            .bind(end)
            .fetch_one(&mut **sql.lock().await)
            .await?;
        Ok(acknowledged.unwrap_or(false).then_some(None))
    });
    settled.await.with_context(|| format!("the task is {:?}", task.state()))
}

/// Waits for records that come from time to time, such as heartbeats.
async fn repeated(case: &Case, control: &MemorySinkControl) -> Result<()> {
    for expected in case.expected.records.iter().filter(|expected| expected.repeats) {
        eventually("a record that repeats", REPEAT_DEADLINE, || async {
            let records = control.records();
            Ok(records.iter().any(|record| record.topic == expected.topic).then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// Stages by the names that the relay's trace has from Kafka Connect.
const STAGES: [(&str, &str); 5] = [
    ("TRANSFORMATION", "transform"),
    ("HEADER_CONVERTER", "header.converter"),
    ("KEY_CONVERTER", "key.converter"),
    ("VALUE_CONVERTER", "value.converter"),
    ("KAFKA_PRODUCE", "producer"),
];

/// Everything that names no stage of its own failed where the connector reads.
fn stage_of(trace: &str) -> &'static str {
    let named = STAGES.iter().find(|(name, _)| trace.contains(&format!("stage '{name}'")));
    named.map_or("poll", |(_, stage)| stage)
}
