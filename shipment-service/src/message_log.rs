//! The message log: remembers which events were handled. Insert decides; nothing is looked up first.

use chrono::Utc;
use sqlx::MySqlConnection;
use uuid::Uuid;

/// Whether an event comes for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Recorded now; it counts when the transaction commits, and is forgotten when it rolls back.
    First,
    /// Recorded by a transaction that has committed.
    Before,
}

/// Records an event inside the transaction that handles it.
///
/// There is no gap between asking and writing: when two consumers hold the same event, the second insert waits for
/// the first transaction, and learns `Before` from its commit or `First` from its rollback.
///
/// # Errors
/// What the database says, the duplicate aside.
pub(crate) async fn record(
    transaction: &mut MySqlConnection,
    event_id: Uuid,
) -> sqlx::Result<Seen> {
    let inserted =
        sqlx::query("insert into ConsumedMessage (eventId, timeOfReceiving) values (?, ?)")
            .bind(event_id)
            .bind(Utc::now().naive_utc())
            .execute(transaction)
            .await;
    match inserted {
        Ok(_) => Ok(Seen::First),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(Seen::Before),
        Err(error) => Err(error),
    }
}
