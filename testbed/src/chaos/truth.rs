//! What really was committed, from PostgreSQL itself: a slot of our own, read with another plugin than the relay's, tells
//! the events in the order of their commits, whatever became of the outbox rows.

use anyhow::{Context as _, Result};
use sqlx::{Connection as _, PgConnection};

use crate::database::{PostgresDatabase, postgres_options, statement};

const SLOT: &str = "chaos_truth";

/// An event that was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) topic: String,
    pub(super) key: String,
}

/// Begins to remember: what is committed from now on is in it.
pub(super) async fn begin(database: &PostgresDatabase) -> Result<()> {
    let mut connection = PgConnection::connect_with(&postgres_options(database)).await?;
    sqlx::query("select pg_create_logical_replication_slot($1, 'test_decoding')")
        .bind(SLOT)
        .execute(&mut connection)
        .await
        .context("create the slot that remembers what was committed (contrib's test_decoding)")?;
    Ok(connection.close().await?)
}

/// Everything that was committed since, in the order of the commits.
pub(super) async fn events(database: &PostgresDatabase) -> Result<Vec<Event>> {
    let mut connection = PgConnection::connect_with(&postgres_options(database)).await?;
    let lines: Vec<String> = sqlx::query_scalar(
        "select data from pg_logical_slot_peek_changes($1, null, null, 'include-xids', '0') \
         where data like 'table inventory.outboxevent: INSERT:%'",
    )
    .bind(SLOT)
    .fetch_all(&mut connection)
    .await
    .context("read what was committed")?;
    connection.close().await?;
    lines.iter().map(|line| event(line).with_context(|| format!("no event: {line}"))).collect()
}

/// Where the WAL ends now.
pub(super) async fn wal_end(database: &PostgresDatabase) -> Result<String> {
    let mut connection = PgConnection::connect_with(&postgres_options(database)).await?;
    let query = "select pg_current_wal_lsn()::text";
    let end = sqlx::query_scalar(query).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(end)
}

/// Whether the relay has acknowledged everything up to this position.
pub(super) async fn is_acknowledged(database: &PostgresDatabase, lsn: &str) -> Result<bool> {
    let mut connection = PgConnection::connect_with(&postgres_options(database)).await?;
    let query = "select confirmed_flush_lsn >= $1::text::pg_lsn from pg_replication_slots \
                 where plugin = 'pgoutput' and slot_name = 'debezium'";
    let passed = sqlx::query_scalar(query).bind(lsn).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(passed)
}

/// How long the server waits for a sign of life of a relay, for streams that begin from now on.
pub(super) async fn set_wal_sender_timeout(database: &PostgresDatabase, to: &str) -> Result<()> {
    let mut connection = PgConnection::connect_with(&postgres_options(database)).await?;
    // A setting of its role, since a superuser alone may change the server's: it counts from the next connection on.
    let sql = format!("alter role \"{}\" set wal_sender_timeout = '{to}'", database.user);
    sqlx::raw_sql(statement(sql)).execute(&mut connection).await.context("set a timeout")?;
    Ok(connection.close().await?)
}

/// How many orders are there.
pub(super) async fn orders(database: &PostgresDatabase) -> Result<Vec<i64>> {
    let mut connection = PgConnection::connect_with(&postgres_options(database)).await?;
    let query = "select id from inventory.purchaseorder order by id";
    let orders = sqlx::query_scalar(query).fetch_all(&mut connection).await?;
    connection.close().await?;
    Ok(orders)
}

/// `table inventory.outboxevent: INSERT: id[uuid]:'…' aggregatetype[character varying]:'Order' …`
fn event(line: &str) -> Option<Event> {
    let column = |name: &str| {
        let (_, after) = line.split_once(&format!(" {name}["))?;
        let (_, value) = after.split_once("]:'")?;
        value.split_once('\'').map(|(value, _)| value.to_owned())
    };
    Some(Event {
        id: column("id")?,
        topic: format!("{}Events", column("aggregatetype")?),
        key: column("aggregateid")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_from_a_line_of_test_decoding() {
        let line = "table inventory.outboxevent: INSERT: id[uuid]:'0193-a' aggregatetype[character varying]:'Order' \
                    aggregateid[character varying]:'17' type[character varying]:'OrderCreated' \
                    timestamp[timestamp with time zone]:'2026-11-21 14:00:00+00' payload[jsonb]:'{\"id\": 17}' \
                    tracingspancontext[character varying]:null";
        let expected = Event { id: "0193-a".into(), topic: "OrderEvents".into(), key: "17".into() };
        assert_eq!(event(line), Some(expected));
        assert_eq!(event("table inventory.outboxevent: INSERT: (no-tuple-data)"), None);
    }
}
