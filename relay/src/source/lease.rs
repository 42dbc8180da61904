//! Who may work: PostgreSQL lets one session read from a slot, and the others wait for it. No election of our own.
//!
//! Before there is a slot, making it and the snapshot are guarded by an advisory lock of the session that is going to
//! stream, so that all end with that session.

use super::connection::Connection;
use super::error::SourceError;
use super::wal::quote_literal;
use crate::connector_config::ConnectorConfig;

/// First key of the advisory lock; any number that nobody else uses ("relay" on a telephone).
const LOCK_CLASS: i32 = 73_529;

/// Who holds the slot, or takes the snapshot that comes before it: the process id of the session.
///
/// # Errors
/// When the connection breaks.
pub(crate) async fn holder(
    connection: &mut Connection,
    connector: &ConnectorConfig,
) -> Result<Option<i32>, SourceError> {
    let sql = format!(
        "select active_pid from pg_replication_slots \
         where slot_name = {name} and active_pid is not null \
         union all select pid from pg_locks where locktype = 'advisory' and objsubid = 2 \
         and database = (select oid from pg_database where datname = current_database()) \
         and classid = {LOCK_CLASS} and objid = {key}::oid and granted and pid <> pg_backend_pid()",
        name = quote_literal(&connector.slot),
        key = key(connector)
    );
    let rows = connection.query("look at the replication slots", &sql).await?;
    let pid = rows.into_iter().next().unwrap_or_default().into_iter().next().flatten();
    Ok(pid.and_then(|pid| pid.parse().ok()))
}

/// Takes the right to make the slot and to take the snapshot, for as long as the session lasts; again if it has it.
///
/// # Errors
/// When another session has it, or the connection breaks.
pub(crate) async fn lock(
    connection: &mut Connection,
    connector: &ConnectorConfig,
) -> Result<(), SourceError> {
    let sql = format!("select pg_try_advisory_lock({LOCK_CLASS}, {})", key(connector));
    let rows = connection.query("lock the slot's place", &sql).await?;
    let taken = rows.into_iter().next().unwrap_or_default().into_iter().next().flatten();
    if taken.as_deref() == Some("t") {
        return Ok(());
    }
    let pid = holder(connection, connector).await?.unwrap_or_default();
    Err(SourceError::SlotInUse { slot: connector.slot.clone(), pid })
}

/// Second key: PostgreSQL's own hash, without the sign, which object ids do not have. The slot alone would not do: a
/// snapshot without a slot (`initial_only`) leaves its name at the default.
fn key(connector: &ConnectorConfig) -> String {
    let names = format!("{} {}", connector.slot, connector.name);
    format!("(hashtext({}) & 2147483647)", quote_literal(&names))
}
