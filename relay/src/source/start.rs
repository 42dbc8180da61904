//! The start of a connector: which of snapshot and slot are needed, from `snapshot.mode` and what is there already.

use super::connection::Connection;
use super::error::SourceError;
use super::lease;
use super::slot::{self, Found};
use super::snapshot::{self, Follow};
use crate::connector_config::{ConnectorConfig, SnapshotMode};
use crate::pipeline::{Pipeline, PipelineError};
use crate::sink::Sink;

/// What follows a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// The slot is there and free: the stream begins.
    Stream,
    /// The same, with a slot that was just made.
    NewSlot,
    /// Nothing is streamed (`snapshot.mode=initial_only`).
    Nothing,
}

/// What is known of this connector's earlier work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Earlier {
    /// A source offset is stored: an earlier task has taken a snapshot or streamed.
    pub offset: bool,
    /// This task has streamed from this history of WAL.
    pub streamed: bool,
    /// This task has taken its snapshot.
    pub snapshot: bool,
}

/// What to do about snapshot and slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// Neither snapshot nor slot.
    Nothing,
    /// The slot is right as it is.
    Stream,
    /// A new slot, and only what comes after it.
    CreateSlot,
    /// The rows that are there, and a slot that begins where they end.
    SnapshotAndCreateSlot,
    /// The same, after the slot that has lost its WAL is dropped.
    SnapshotAndReplaceSlot,
    /// The rows that are there, beside a slot that stays where it is.
    SnapshotBesideSlot,
    /// The rows that are there, and no slot.
    SnapshotAlone,
    /// The slot was there and is gone.
    Gone,
    /// The slot has lost its WAL.
    Lost,
}

/// Takes the snapshot and makes the slot where they are needed.
///
/// # Errors
/// When the slot cannot be used, PostgreSQL refuses, or a row cannot be published. A snapshot that fails is taken
/// again at the next start.
pub async fn prepare<S: Sink>(
    connection: &mut Connection,
    pipeline: &mut Pipeline<'_, S>,
    connector: &ConnectorConfig,
    earlier: Earlier,
) -> Result<Started, PipelineError> {
    let mode = connector.snapshot.mode;
    let mut found = find(connection, connector).await?;
    if plan(mode, found, earlier).reads_rows() || !mode.streams() {
        // Of several relays one takes the snapshot. It may just have ended, and left the slot behind.
        lease::lock(connection, connector).await?;
        found = find(connection, connector).await?;
    }
    if found == Found::Missing && mode.streams() && earlier.offset && !earlier.streamed {
        tracing::warn!(
            connector.name = connector.name,
            slot.name = connector.slot,
            "a source offset is stored, but its slot is gone: changes that were made before the new slot exists, and \
             were not published, are not in the stream"
        );
    }
    match plan(mode, found, earlier) {
        Plan::Nothing => {}
        Plan::Stream => return Ok(Started::Stream),
        Plan::CreateSlot => slot::create(connection, connector).await?,
        Plan::SnapshotAndCreateSlot => snapshot::run(pipeline, connector, Follow::NewSlot).await?,
        Plan::SnapshotAndReplaceSlot => {
            tracing::warn!(
                slot.name = connector.slot,
                "the slot has lost its WAL and is made anew, as snapshot.mode=when_needed asks; events whose rows \
                 were deleted meanwhile are not in the snapshot"
            );
            slot::drop(connection, &connector.slot).await?;
            snapshot::run(pipeline, connector, Follow::NewSlot).await?;
        }
        Plan::SnapshotBesideSlot => snapshot::run(pipeline, connector, Follow::Slot).await?,
        Plan::SnapshotAlone => snapshot::run(pipeline, connector, Follow::Nothing).await?,
        Plan::Gone => return Err(gone(connector).into()),
        Plan::Lost => return Err(slot::lost(connection, connector).await?.into()),
    }
    if !mode.streams() {
        return Ok(Started::Nothing);
    }
    if found == Found::Existing {
        return Ok(Started::Stream);
    }
    tracing::info!(slot.name = connector.slot, "replication slot created");
    Ok(Started::NewSlot)
}

async fn find(
    connection: &mut Connection,
    connector: &ConnectorConfig,
) -> Result<Found, SourceError> {
    if !connector.snapshot.mode.streams() {
        return Ok(Found::Missing);
    }
    slot::find_free(connection, &connector.slot, &connector.database.name).await
}

impl Plan {
    /// Whether rows are read, which must happen once however many relays there are.
    const fn reads_rows(self) -> bool {
        matches!(
            self,
            Self::SnapshotAndCreateSlot
                | Self::SnapshotAndReplaceSlot
                | Self::SnapshotBesideSlot
                | Self::SnapshotAlone
        )
    }
}

fn plan(mode: SnapshotMode, slot: Found, earlier: Earlier) -> Plan {
    match (slot, mode) {
        (_, SnapshotMode::InitialOnly) if earlier.offset || earlier.snapshot => Plan::Nothing,
        (_, SnapshotMode::InitialOnly) => Plan::SnapshotAlone,
        (Found::Existing, SnapshotMode::Always) if !earlier.snapshot => Plan::SnapshotBesideSlot,
        (Found::Existing, _) => Plan::Stream,
        (Found::Lost, SnapshotMode::WhenNeeded) => Plan::SnapshotAndReplaceSlot,
        (Found::Lost, _) => Plan::Lost,
        (Found::Missing, SnapshotMode::WhenNeeded) => Plan::SnapshotAndCreateSlot,
        (Found::Missing, _) if earlier.streamed => Plan::Gone,
        (Found::Missing, SnapshotMode::NoData) => Plan::CreateSlot,
        (Found::Missing, _) => Plan::SnapshotAndCreateSlot,
    }
}

fn gone(connector: &ConnectorConfig) -> SourceError {
    let reason = "it was there and is gone; what was written to the outbox since cannot be read any more. \
                  Find out who dropped it (a failover keeps it with slot.failover only), publish what is \
                  missing, and restart the task: it creates a new slot"
        .to_owned();
    SourceError::SlotUnusable { slot: connector.slot.clone(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Earlier = Earlier { offset: false, streamed: false, snapshot: false };
    const STREAMED: Earlier = Earlier { streamed: true, snapshot: true, ..FIRST };

    #[test]
    fn a_first_start_reads_what_is_there_unless_told_otherwise() {
        for (mode, expected) in [
            (SnapshotMode::Initial, Plan::SnapshotAndCreateSlot),
            (SnapshotMode::Always, Plan::SnapshotAndCreateSlot),
            (SnapshotMode::WhenNeeded, Plan::SnapshotAndCreateSlot),
            (SnapshotMode::InitialOnly, Plan::SnapshotAlone),
            (SnapshotMode::NoData, Plan::CreateSlot),
        ] {
            assert_eq!(plan(mode, Found::Missing, FIRST), expected, "{mode:?}");
        }
    }

    #[test]
    fn a_later_start_reads_again_only_where_that_is_asked_for() {
        for (mode, expected) in [
            (SnapshotMode::Initial, Plan::Stream),
            (SnapshotMode::Always, Plan::SnapshotBesideSlot),
            (SnapshotMode::WhenNeeded, Plan::Stream),
            (SnapshotMode::NoData, Plan::Stream),
        ] {
            assert_eq!(plan(mode, Found::Existing, FIRST), expected, "{mode:?}");
        }
        let stored = Earlier { offset: true, ..FIRST };
        assert_eq!(plan(SnapshotMode::InitialOnly, Found::Missing, stored), Plan::Nothing);
    }

    #[test]
    fn a_lost_connection_is_no_start() {
        assert_eq!(plan(SnapshotMode::Always, Found::Existing, STREAMED), Plan::Stream);
        assert_eq!(plan(SnapshotMode::InitialOnly, Found::Missing, STREAMED), Plan::Nothing);
    }

    #[test]
    fn a_slot_that_cannot_be_used_is_made_anew_only_when_needed() {
        for mode in [SnapshotMode::Initial, SnapshotMode::Always, SnapshotMode::NoData] {
            assert_eq!(plan(mode, Found::Missing, STREAMED), Plan::Gone, "{mode:?}");
            assert_eq!(plan(mode, Found::Lost, FIRST), Plan::Lost, "{mode:?}");
        }
        let needed = SnapshotMode::WhenNeeded;
        assert_eq!(plan(needed, Found::Missing, STREAMED), Plan::SnapshotAndCreateSlot);
        assert_eq!(plan(needed, Found::Lost, FIRST), Plan::SnapshotAndReplaceSlot);
    }
}
