//! What the relay will see: changes of committed transactions, decoded by PostgreSQL from its WAL as text.

use anyhow::Result;
use sqlx::PgPool;
use testbed::unique_name;

use super::service::DEADLINE;

/// A logical slot that starts now. Its plugin `test_decoding` comes with PostgreSQL.
pub(crate) struct Slot {
    name: String,
    pool: PgPool,
}

impl Slot {
    pub(crate) async fn create(pool: &PgPool) -> Result<Slot> {
        let name = unique_name("order_service_test").replace('-', "_");
        sqlx::query("select pg_create_logical_replication_slot($1, 'test_decoding')")
            .bind(&name)
            .execute(pool)
            .await?;
        Ok(Slot { name, pool: pool.clone() })
    }

    /// Every change so far, a line each: `BEGIN ...`, `table inventory.orderline: INSERT: ...`, `COMMIT ...`.
    pub(crate) async fn changes(&self) -> Result<Vec<String>> {
        self.wait_for_flush().await?;
        Ok(sqlx::query_scalar("select data from pg_logical_slot_peek_changes($1, null, null)")
            .bind(&self.name)
            .fetch_all(&self.pool)
            .await?)
    }

    /// A slot shows what has reached the disk. A server that commits asynchronously, as one for tests may, is a little
    /// behind with that; without this wait "there is no change" would prove nothing.
    async fn wait_for_flush(&self) -> Result<()> {
        let written: String = sqlx::query_scalar("select pg_current_wal_insert_lsn()::text")
            .fetch_one(&self.pool)
            .await?;
        testbed::eventually("flush of the WAL", DEADLINE, || async {
            let flushed: bool =
                sqlx::query_scalar("select pg_current_wal_flush_lsn() >= $1::text::pg_lsn")
                    .bind(&written)
                    .fetch_one(&self.pool)
                    .await?;
            Ok(flushed.then_some(()))
        })
        .await
    }

    /// Those of the outbox table.
    pub(crate) async fn outbox_changes(&self) -> Result<Vec<String>> {
        let mut changes = self.changes().await?;
        changes.retain(|change| change.starts_with("table inventory.outboxevent:"));
        Ok(changes)
    }

    /// A slot keeps WAL until it is dropped, also on a server that other tests use.
    pub(crate) async fn drop(self) -> Result<()> {
        sqlx::query("select pg_drop_replication_slot($1)")
            .bind(&self.name)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
