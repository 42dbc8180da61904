//! The replication slot: found, created when missing, checked before it is used.

use std::str::FromStr;
use std::time::Duration;

use pgoutput::{Lsn, ParseLsnError};

use super::connection::{Connection, Row};
use super::error::SourceError;
use super::server;
use super::wal::{quote_identifier, quote_literal};
use crate::connector_config::ConnectorConfig;

/// The output plugin: built into PostgreSQL since version 10.
const PLUGIN: &str = "pgoutput";

/// How long the creation of a slot may take: PostgreSQL waits for every transaction that runs when it begins. A stop
/// ends the wait.
pub(super) const CREATE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Which history of WAL the server writes: positions of different ones cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SystemIdentity {
    /// `systemid` of `IDENTIFY_SYSTEM`: one number per database cluster.
    pub system_id: String,
    /// Timeline: changes at a promotion or a point-in-time recovery.
    pub timeline: String,
}

/// A slot as `pg_replication_slots` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Process id of the session that reads from it.
    pub active_pid: Option<i32>,
    /// What was acknowledged.
    pub confirmed_flush_lsn: Option<Lsn>,
    /// Oldest WAL that it holds back.
    pub restart_lsn: Option<Lsn>,
    /// PostgreSQL has removed WAL that it still needed.
    pub is_lost: bool,
}

/// Whether a slot is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It is there and free.
    Existing,
    /// It has to be created: changes before that moment will not be in it.
    Missing,
    /// It is there, but WAL that it needs is not: it can only be dropped.
    Lost,
}

/// Asks the server which WAL history it writes, and where its WAL ends now.
///
/// # Errors
/// When the connection breaks or is no replication connection.
pub async fn identify_system(
    connection: &mut Connection,
) -> Result<(SystemIdentity, Lsn), SourceError> {
    let rows = connection.query("identify the system", "IDENTIFY_SYSTEM").await?;
    let mut columns = rows.into_iter().next().unwrap_or_default().into_iter();
    let mut next = || columns.next().flatten().unwrap_or_default();
    let identity = SystemIdentity { system_id: next(), timeline: next() };
    let wal_end = next().parse().map_err(|error: ParseLsnError| {
        SourceError::Protocol(format!("the answer to IDENTIFY_SYSTEM cannot be read: {error}"))
    })?;
    Ok((identity, wal_end))
}

/// Finds the slot and checks that the relay can use it.
///
/// # Errors
/// When it belongs to another database or plugin, or is in use.
pub async fn find_free(
    connection: &mut Connection,
    slot: &str,
    database: &str,
) -> Result<Found, SourceError> {
    match find(connection, slot, database).await? {
        Some(Slot { active_pid: Some(pid), .. }) => {
            Err(SourceError::SlotInUse { slot: slot.to_owned(), pid })
        }
        Some(Slot { is_lost: true, .. }) => Ok(Found::Lost),
        Some(_) => Ok(Found::Existing),
        None => Ok(Found::Missing),
    }
}

/// Creates the slot: from now on PostgreSQL keeps WAL for it.
///
/// # Errors
/// When PostgreSQL refuses, for instance because max_replication_slots are there already.
pub async fn create(
    connection: &mut Connection,
    connector: &ConnectorConfig,
) -> Result<(), SourceError> {
    let slot = &connector.slot;
    // The form without parentheses is the only one before PostgreSQL 15.
    let failover = needs_failover(connection, connector).await?;
    let options = if failover { "(SNAPSHOT 'nothing', FAILOVER)" } else { "NOEXPORT_SNAPSHOT" };
    let command =
        format!("CREATE_REPLICATION_SLOT {} LOGICAL {PLUGIN} {options}", quote_identifier(slot));
    let doing = format!("create replication slot \"{slot}\"");
    connection.query_within(&doing, &command, CREATE_TIMEOUT).await.map(|_| ())
}

/// `slot.failover` for a slot that was copied: a copy does not take it over.
///
/// # Errors
/// When PostgreSQL refuses.
pub(super) async fn set_failover(
    connection: &mut Connection,
    connector: &ConnectorConfig,
) -> Result<(), SourceError> {
    if !needs_failover(connection, connector).await? {
        return Ok(());
    }
    let slot = &connector.slot;
    let command = format!("ALTER_REPLICATION_SLOT {} (FAILOVER true)", quote_identifier(slot));
    let doing = format!("let replication slot \"{slot}\" fail over");
    connection.query(&doing, &command).await.map(|_| ())
}

/// Whether `slot.failover` is asked for and the server can do it.
async fn needs_failover(
    connection: &mut Connection,
    connector: &ConnectorConfig,
) -> Result<bool, SourceError> {
    if !connector.slot_failover {
        return Ok(false);
    }
    let can_fail_over = server::settings(connection).await?.has_failover_slots();
    if !can_fail_over {
        // As Debezium, which goes on as well.
        tracing::warn!(
            slot.name = connector.slot,
            "slot.failover has no effect: slots that fail over came with PostgreSQL 17; after a failover the slot is \
             gone"
        );
    }
    Ok(can_fail_over)
}

/// Looks a slot up.
///
/// # Errors
/// When it cannot be used as it is, or the connection breaks.
pub async fn find(
    connection: &mut Connection,
    slot: &str,
    database: &str,
) -> Result<Option<Slot>, SourceError> {
    let sql = format!(
        "select plugin, database, active_pid, confirmed_flush_lsn, restart_lsn, wal_status \
         from pg_replication_slots where slot_name = {}",
        quote_literal(slot)
    );
    let rows = connection.query("look at the replication slots", &sql).await?;
    rows.into_iter().next().map(|row| read(slot, database, row)).transpose()
}

/// Drops the slot if it is there: its WAL is given up.
///
/// # Errors
/// When it is in use or the connection breaks.
pub async fn drop(connection: &mut Connection, slot: &str) -> Result<(), SourceError> {
    let sql = format!(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = {}",
        quote_literal(slot)
    );
    connection.query(&format!("drop replication slot \"{slot}\""), &sql).await.map(|_| ())
}

fn read(slot: &str, database: &str, row: Row) -> Result<Slot, SourceError> {
    let mut columns = row.into_iter();
    let mut next = || columns.next().flatten();
    let (plugin, slot_database) = (next().unwrap_or_default(), next().unwrap_or_default());
    let active_pid = next().and_then(|pid| pid.parse().ok());
    let mut lsn = || next().and_then(|lsn| Lsn::from_str(&lsn).ok());
    let (confirmed_flush_lsn, restart_lsn) = (lsn(), lsn());
    let wal_status = next();
    let unusable =
        |reason: String| Err(SourceError::SlotUnusable { slot: slot.to_owned(), reason });
    if plugin != PLUGIN {
        return unusable(format!(
            "it was made for the output plugin `{plugin}`, the relay needs `{PLUGIN}`; \
             choose another slot.name, or drop it with pg_drop_replication_slot"
        ));
    }
    if slot_database != database {
        return unusable(format!(
            "it belongs to database \"{slot_database}\", the connector reads \"{database}\"; \
             choose another slot.name"
        ));
    }
    let is_lost = wal_status.as_deref() == Some("lost");
    Ok(Slot { active_pid, confirmed_flush_lsn, restart_lsn, is_lost })
}

/// Why a slot that has lost its WAL is of no use.
///
/// # Errors
/// When the connection breaks.
pub(super) async fn lost(
    connection: &mut Connection,
    connector: &ConnectorConfig,
) -> Result<SourceError, SourceError> {
    let slot = connector.slot.clone();
    let found = find(connection, &slot, &connector.database.name).await?;
    let from = found.and_then(|found| found.confirmed_flush_lsn).unwrap_or(Lsn::ZERO);
    let reason = format!(
        "PostgreSQL has removed WAL that it still needed (wal_status is lost, see max_slot_wal_keep_size). What was \
         committed after {from} and is not published cannot be read from it any more. Where the outbox keeps its rows, \
         snapshot.mode=when_needed makes a new slot and publishes all rows that are there, those again that were \
         published before, with their event ids. Where rows are deleted, their events are lost: find out from the \
         orders which, then drop the slot with pg_drop_replication_slot and restart the connector"
    );
    Ok(SourceError::SlotUnusable { slot, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(plugin: &str, database: &str, wal_status: &str) -> Row {
        [plugin, database, "17", "0/20", "0/10", wal_status].map(|text| Some(text.into())).into()
    }

    #[test]
    fn a_slot_of_ours_is_read() {
        let slot = read("s", "orderdb", row("pgoutput", "orderdb", "reserved")).unwrap();
        let expected = Slot {
            active_pid: Some(17),
            confirmed_flush_lsn: Some(Lsn::new(0x20)),
            restart_lsn: Some(Lsn::new(0x10)),
            is_lost: false,
        };
        assert_eq!(slot, expected);
        assert!(read("s", "orderdb", row("pgoutput", "orderdb", "lost")).unwrap().is_lost);
    }

    #[test]
    fn a_slot_that_cannot_be_used_says_why() {
        for (row, reason) in [
            (row("wal2json", "orderdb", "reserved"), "output plugin `wal2json`"),
            (row("pgoutput", "other", "reserved"), "belongs to database \"other\""),
        ] {
            let error = read("s", "orderdb", row).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
