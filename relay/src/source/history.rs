//! The timelines before the server's present one: whether a position of one of them is in this history of WAL.

use pgoutput::Lsn;

use super::connection::Connection;
use super::error::SourceError;
use super::slot::SystemIdentity;
use crate::slot_identity::parse_history;

/// The first timeline has none before it, and no file that tells of them.
const FIRST: &str = "1";

/// Asks where the timelines before the present one ended.
///
/// # Errors
/// When the connection breaks.
pub async fn of_timelines(
    connection: &mut Connection,
    system: &SystemIdentity,
) -> Result<Vec<(u32, Lsn)>, SourceError> {
    if system.timeline == FIRST {
        return Ok(Vec::new());
    }
    let command = format!("TIMELINE_HISTORY {}", system.timeline);
    let rows = match connection.query("look at the timelines", &command).await {
        Ok(rows) => rows,
        // The file may have been removed: then nothing is known of the timelines before.
        Err(SourceError::Server { .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    // The answer has the file's name and its content.
    let text = rows.into_iter().next().and_then(|row| row.into_iter().nth(1)).flatten();
    Ok(text.map(|text| parse_history(&text)).unwrap_or_default())
}
