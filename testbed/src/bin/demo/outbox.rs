//! The outbox rows as the WAL has them, seen through a second, temporary slot.
//!
//! The rows are deleted in the transaction that inserts them, so no query finds them: the WAL is where they live.

use anyhow::{Context as _, Result};
use sqlx::{Connection as _, PgConnection, Row as _};
use testbed::PostgresDatabase;

/// Dropped at the end: a slot that nobody reads would hold back the WAL for ever.
const SLOT: &str = "demo_onlooker";

/// The name that Debezium gives its slot where the configuration names none.
pub(crate) const RELAY_SLOT: &str = "debezium";

/// Up to where the relay has confirmed the WAL; `None` while nobody reads its slot.
pub(crate) async fn relay_slot(database: &PostgresDatabase) -> Result<Option<String>> {
    let mut connection = PgConnection::connect(&database.url()).await?;
    let query = "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1 and active";
    let lsn = sqlx::query_scalar(query).bind(RELAY_SLOT).fetch_optional(&mut connection).await?;
    connection.close().await?;
    Ok(lsn)
}

/// An outbox row in the WAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutboxRow {
    /// Where its insert lies in the WAL.
    pub(crate) lsn: String,
    pub(crate) transaction: String,
    pub(crate) event_id: String,
    pub(crate) aggregate_type: String,
    pub(crate) aggregate_id: String,
    pub(crate) event_type: String,
    /// Whether the same transaction deleted it.
    pub(crate) is_deleted: bool,
}

/// Looks into the WAL beside the relay.
pub(crate) struct Onlooker {
    connection: PgConnection,
}

impl Onlooker {
    pub(crate) async fn start(database_url: &str) -> Result<Self> {
        let mut connection = PgConnection::connect(database_url).await?;
        sqlx::query("select pg_create_logical_replication_slot($1, 'test_decoding')")
            .bind(SLOT)
            .execute(&mut connection)
            .await
            .context("create a slot to look into the WAL (needs contrib's test_decoding)")?;
        Ok(Self { connection })
    }

    /// The outbox rows of the transactions since the last call.
    pub(crate) async fn new_rows(&mut self) -> Result<Vec<OutboxRow>> {
        let query =
            "select lsn::text, xid::text, data from pg_logical_slot_get_changes($1, null, null)";
        let changes = sqlx::query(query).bind(SLOT).fetch_all(&mut self.connection).await?;
        let mut rows: Vec<OutboxRow> = Vec::new();
        for change in changes {
            let (lsn, transaction, text): (String, String, String) =
                (change.try_get(0)?, change.try_get(1)?, change.try_get(2)?);
            let Some(change) = text.strip_prefix("table inventory.outboxevent: ") else { continue };
            if change.starts_with("INSERT") {
                rows.push(OutboxRow {
                    lsn,
                    transaction,
                    event_id: column(change, "id"),
                    aggregate_type: column(change, "aggregatetype"),
                    aggregate_id: column(change, "aggregateid"),
                    event_type: column(change, "type"),
                    is_deleted: false,
                });
            } else if change.starts_with("DELETE") {
                let id = column(change, "id");
                let deleted = rows
                    .iter_mut()
                    .filter(|row| row.event_id == id && row.transaction == transaction);
                deleted.for_each(|row| row.is_deleted = true);
            }
        }
        Ok(rows)
    }

    pub(crate) async fn stop(mut self) -> Result<()> {
        let drop = sqlx::query("select pg_drop_replication_slot($1)").bind(SLOT);
        drop.execute(&mut self.connection).await?;
        self.connection.close().await?;
        Ok(())
    }
}

/// A column in test_decoding's text: `id[uuid]:'0193…' aggregatetype[character varying]:'Order'`. Empty if absent.
fn column(change: &str, name: &str) -> String {
    let start = format!(" {name}[");
    let Some((_, rest)) = change.split_once(&start) else { return String::new() };
    let Some((_, value)) = rest.split_once("]:") else { return String::new() };
    match value.strip_prefix('\'') {
        Some(quoted) => quoted.split('\'').next().unwrap_or_default().to_owned(),
        None => value.split(' ').next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_read_from_the_text_of_test_decoding() {
        let change = "INSERT: id[uuid]:'0193' aggregatetype[character varying]:'Order' \
                      aggregateid[character varying]:'1' type[character varying]:'OrderCreated' payload[jsonb]:null";
        assert_eq!(column(change, "id"), "0193");
        assert_eq!(column(change, "aggregatetype"), "Order");
        assert_eq!(column(change, "aggregateid"), "1");
        assert_eq!(column(change, "type"), "OrderCreated");
        assert_eq!(column(change, "payload"), "null");
        assert_eq!(column(change, "absent"), "");
    }
}
