//! The snapshot: rows that are in the outbox already are published, then the slot takes over without a gap.
//!
//! At a first start the rows are read in the snapshot with which a *temporary* slot begins; when all of them are confirmed, the
//! temporary slot is copied to the lasting one, which therefore begins at that very snapshot. A relay that dies
//! before leaves no slot behind, so that the next start reads the rows again: none is lost, whatever dies.

use pgoutput::{Column, Lsn, Relation, ReplicaIdentity};

use super::connection::{Connection, Purpose, Row};
use super::error::SourceError;
use super::slot::CREATE_TIMEOUT;
use super::wal::{quote_identifier, quote_literal};
use crate::connector_config::ConnectorConfig;
use crate::failpoint::{self, Step};
use crate::pipeline::{Pipeline, PipelineError};
use crate::sink::Sink;

/// Rows that are fetched at once, at the most, unless `snapshot.fetch.size` says otherwise.
const FETCH_ROWS_MAX: usize = 500;

/// Rows that are fetched first, before anything is known of their size.
const FETCH_ROWS_FIRST: usize = 10;

/// Bytes that one fetch should stay below, by the average size of the rows so far: bounds the memory.
const FETCH_BYTES_MAX: usize = 4 << 20;

/// Longest name of a slot: PostgreSQL's NAMEDATALEN less the terminating byte.
const SLOT_NAME_MAX: usize = 63;

/// Ends the name of the temporary slot.
const SUFFIX: &str = "_snapshot";

/// What comes after the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// The stream from a slot that begins where the snapshot ends.
    NewSlot,
    /// The stream from the slot that is there already. What was committed between its position and the snapshot comes
    /// twice: leaving it out would lose the events whose rows are deleted by now.
    Slot,
    /// Nothing.
    Nothing,
}

/// Publishes the rows of all captured tables, waits until they are confirmed, and creates the slot where one is to
/// follow.
///
/// # Errors
/// When PostgreSQL refuses, a row cannot be published, or the sink fails. No slot is left behind then.
pub async fn run<S: Sink>(
    pipeline: &mut Pipeline<'_, S>,
    connector: &ConnectorConfig,
    follow: Follow,
) -> Result<(), PipelineError> {
    let options = &connector.snapshot;
    pipeline.open().await?;
    tokio::time::sleep(options.delay).await;
    let mut connection = Connection::open(&connector.database, Purpose::Snapshot).await?;
    let connection = &mut connection;
    connection
        .query("begin a snapshot", "begin transaction isolation level repeatable read read only")
        .await?;
    let temporary = temporary_name(&connector.slot);
    let begins_at = if follow == Follow::NewSlot {
        let create = format!(
            "CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput USE_SNAPSHOT",
            quote_identifier(&temporary)
        );
        let doing = "create the replication slot of a snapshot";
        tracing::debug!(slot.name = temporary, "waiting for the transactions that run now");
        // The answer has name, consistent point, snapshot and plugin.
        let created = connection.query_within(doing, &create, CREATE_TIMEOUT).await?;
        created.into_iter().next().unwrap_or_default().into_iter().nth(1).flatten()
    } else {
        let rows = connection.query("look at the WAL", "select pg_current_wal_lsn()").await?;
        rows.into_iter().next().unwrap_or_default().into_iter().next().flatten()
    };
    let position = position(connection, begins_at).await?;
    let tables = tables(connection, connector).await?;
    lock(connection, connector, &tables).await?;
    let mut rows = 0;
    for table in &tables {
        rows += read_table(connection, pipeline, connector, table).await?;
    }
    pipeline.settle().await?;
    connection.query("end a snapshot", "commit").await?;
    failpoint::reached(Step::AfterSnapshot);
    if follow == Follow::NewSlot {
        keep_slot(connection, connector, &temporary).await?;
        failpoint::reached(Step::AfterSlot);
    }
    // Beside a slot the offset stays where the slot stands: changes behind it are still to come.
    if let (1.., Some((lsn, transaction_id)), Follow::NewSlot | Follow::Nothing) =
        (rows, position, follow)
    {
        pipeline.snapshot_completed(lsn, transaction_id);
    }
    pipeline.note_snapshot();
    tracing::info!(
        connector.name = connector.name,
        rows,
        "snapshot of the existing rows published"
    );
    tokio::time::sleep(options.streaming_delay).await;
    Ok(())
}

/// Makes a lasting slot of the temporary one.
async fn keep_slot(
    connection: &mut Connection,
    connector: &ConnectorConfig,
    temporary: &str,
) -> Result<(), SourceError> {
    let copy = format!(
        "select pg_copy_logical_replication_slot({}, {}, false)",
        quote_literal(temporary),
        quote_literal(&connector.slot)
    );
    connection.query(&format!("create replication slot \"{}\"", connector.slot), &copy).await?;
    super::slot::set_failover(connection, connector).await?;
    let drop = format!("select pg_drop_replication_slot({})", quote_literal(temporary));
    connection.query("drop the replication slot of a snapshot", &drop).await.map(|_| ())
}

/// `snapshot.locking.mode=shared`: while the rows are read, nobody changes a table's shape.
async fn lock(
    connection: &mut Connection,
    connector: &ConnectorConfig,
    tables: &[Table],
) -> Result<(), SourceError> {
    let Some(timeout) = connector.snapshot.lock_timeout else { return Ok(()) };
    let limit = format!("set local lock_timeout = {}", timeout.as_millis());
    connection.query("bound the wait for a lock", &limit).await?;
    for table in tables {
        let command = format!("lock table {} in access share mode", table.quoted());
        connection.query(&format!("lock table {}", table.quoted()), &command).await?;
    }
    Ok(())
}

/// Where the stream goes on after the snapshot, for the source offset; and the transaction that comes next.
async fn position(
    connection: &mut Connection,
    begins_at: Option<String>,
) -> Result<Option<(Lsn, Option<u64>)>, SourceError> {
    let Some(lsn) = begins_at.and_then(|lsn| lsn.parse().ok()) else { return Ok(None) };
    let sql = "select txid_snapshot_xmax(txid_current_snapshot()) & 4294967295";
    let rows = connection.query("look at the transactions", sql).await?;
    let next = rows.into_iter().next().unwrap_or_default().into_iter().next().flatten();
    Ok(Some((lsn, next.and_then(|xid| xid.parse().ok()))))
}

/// A table to be read.
#[derive(Debug)]
struct Table {
    id: u32,
    schema: String,
    name: String,
    is_partitioned: bool,
}

impl Table {
    fn quoted(&self) -> String {
        format!("{}.{}", quote_identifier(&self.schema), quote_identifier(&self.name))
    }
}

async fn tables(
    connection: &mut Connection,
    connector: &ConnectorConfig,
) -> Result<Vec<Table>, SourceError> {
    // What the publication delivers: of a partitioned table its partitions or itself, as in the stream.
    let published = format!(
        "select c.oid, n.nspname, c.relname, c.relkind = 'p' from pg_publication_tables p \
         join pg_namespace n on n.nspname = p.schemaname \
         join pg_class c on c.relnamespace = n.oid and c.relname = p.tablename \
         where p.pubname = {} order by 2, 3",
        quote_literal(&connector.publication.name)
    );
    // Without a stream there need be no publication.
    let all = format!(
        "select c.oid, n.nspname, c.relname, c.relkind = 'p' from pg_class c \
         join pg_namespace n on n.oid = c.relnamespace \
         where c.relpersistence = 'p' and {} order by 2, 3",
        if connector.publication.via_partition_root {
            "c.relkind in ('r', 'p') and not c.relispartition"
        } else {
            "c.relkind = 'r'"
        }
    );
    let sql = if connector.snapshot.mode.streams() { published } else { all };
    let rows = connection.query("look at the tables", &sql).await?;
    let table = |row: Row| match <[Option<String>; 4]>::try_from(row) {
        Ok([Some(id), Some(schema), Some(name), Some(partitioned)]) => {
            Some(Table { id: id.parse().ok()?, schema, name, is_partitioned: partitioned == "t" })
        }
        _ => None,
    };
    let captured = |table: &Table| {
        connector.table_filter.captures(&table.schema, &table.name)
            && connector.snapshot.reads(&table.schema, &table.name)
    };
    Ok(rows.into_iter().filter_map(table).filter(captured).collect())
}

async fn read_table<S: Sink>(
    connection: &mut Connection,
    pipeline: &mut Pipeline<'_, S>,
    connector: &ConnectorConfig,
    table: &Table,
) -> Result<usize, PipelineError> {
    let facts = columns(connection, table).await?;
    let relation = Relation {
        id: table.id,
        namespace: &table.schema,
        name: &table.name,
        replica_identity: ReplicaIdentity::Default,
        columns: facts.iter().map(ColumnFacts::as_column).collect(),
    };
    pipeline.learn(&relation, connection).await?;
    let names: Vec<String> = facts.iter().map(|column| quote_identifier(&column.name)).collect();
    let doing = format!("read table {}", table.quoted());
    let names = names.join(", ");
    let select = match connector.snapshot.statement(&table.schema, &table.name) {
        Some(statement) => format!("select {names} from ({statement}) as selected"),
        // A partitioned table has its rows in its partitions, an inherited one sends only its own.
        None if table.is_partitioned => format!("select {names} from {}", table.quoted()),
        None => format!("select {names} from only {}", table.quoted()),
    };
    let declare = format!("declare outbox_snapshot no scroll cursor for {select}");
    connection.query(&doing, &declare).await?;
    let fetch_rows_max = connector.snapshot.fetch_rows_max.unwrap_or(FETCH_ROWS_MAX);
    let (mut count, mut bytes, mut fetch_rows) = (0, 0, FETCH_ROWS_FIRST.min(fetch_rows_max));
    loop {
        let fetch = format!("fetch {fetch_rows} from outbox_snapshot");
        let rows = connection.query(&doing, &fetch).await?;
        let is_last = rows.len() < fetch_rows;
        for row in rows {
            count += 1;
            bytes += row.iter().flatten().map(String::len).sum::<usize>();
            pipeline.read(table.id, &row).await?;
        }
        if is_last {
            break;
        }
        fetch_rows = (FETCH_BYTES_MAX / (bytes / count).max(1)).clamp(1, fetch_rows_max);
        tracing::debug!(connector.name = connector.name, rows = count, "reading the existing rows");
    }
    connection.query(&doing, "close outbox_snapshot").await?;
    Ok(count)
}

/// What a pgoutput relation says of a column.
#[derive(Debug)]
struct ColumnFacts {
    name: String,
    type_id: u32,
    type_modifier: i32,
    key: bool,
}

impl ColumnFacts {
    fn as_column(&self) -> Column<'_> {
        Column {
            key: self.key,
            name: &self.name,
            type_id: self.type_id,
            type_modifier: self.type_modifier,
        }
    }
}

/// The columns as pgoutput would send them: in order, without dropped and generated ones.
async fn columns(
    connection: &mut Connection,
    table: &Table,
) -> Result<Vec<ColumnFacts>, SourceError> {
    let sql = format!(
        "select a.attname, a.atttypid, a.atttypmod, coalesce(a.attnum = any(i.indkey), false) \
         from pg_attribute a left join pg_index i on i.indrelid = a.attrelid and i.indisprimary \
         where a.attrelid = {} and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' \
         order by a.attnum",
        table.id
    );
    let rows = connection.query("look at the columns", &sql).await?;
    let facts = |row: Row| match <[Option<String>; 4]>::try_from(row) {
        Ok([Some(name), Some(type_id), Some(modifier), Some(key)]) => Some(ColumnFacts {
            name,
            type_id: type_id.parse().ok()?,
            type_modifier: modifier.parse().ok()?,
            key: key == "t",
        }),
        _ => None,
    };
    Ok(rows.into_iter().filter_map(facts).collect())
}

fn temporary_name(slot: &str) -> String {
    // Slot names are ASCII, so that they can be cut anywhere.
    let kept = slot.len().min(SLOT_NAME_MAX - SUFFIX.len());
    format!("{}{SUFFIX}", slot.get(..kept).unwrap_or(slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_temporary_slot_has_a_legal_name() {
        assert_eq!(temporary_name("debezium"), "debezium_snapshot");
        assert_eq!(temporary_name(&"s".repeat(63)).len(), 63);
    }
}
