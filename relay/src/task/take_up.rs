//! The way to a stream: connect, look where server and slot stand, and take the slot up once it is ours.
//!
//! The order matters for exactly once: opening the sink ends the work of whoever wrote for this connector before. So it
//! is opened only by the one who has the slot, or the lock that stands for it while there is none.

use std::time::Duration;

use pgoutput::Lsn;

use crate::connector_config::{ConnectorConfig, SnapshotMode};
use crate::pipeline::{Pipeline, PipelineError};
use crate::sink::Sink;
use crate::slot_identity::{self, Found};
use crate::source::connection::{Connection, Purpose};
use crate::source::slot::{self, Slot};
use crate::source::start::Earlier;
use crate::source::wal::WalStream;
use crate::source::{SourceError, history, lease, publication, server};

/// A connection on which a stream may begin.
pub(super) struct Prepared {
    pub(super) connection: Connection,
    pub(super) settings: server::ServerSettings,
    pub(super) place: Found,
    /// One that is being made is there, and has no position yet.
    pub(super) has_slot: bool,
}

/// Connects, sees to the publication, and looks where the server and the slot stand.
pub(super) async fn prepare(connector: &ConnectorConfig) -> Result<Prepared, SourceError> {
    let ConnectorConfig { database, publication, .. } = connector;
    let mut connection = Connection::open(database, Purpose::Replication).await?;
    let mut settings = server::settings(&mut connection).await?;
    let silence_max = connector.guard.wal_sender_timeout;
    server::bound_silence(&mut connection, &mut settings, silence_max).await?;
    let streams = connector.snapshot.mode.streams();
    if streams
        && let Some(done) =
            publication::ensure(&mut connection, publication, &connector.table_filter, database)
                .await?
    {
        tracing::info!(publication.name = publication.name, "publication prepared: {done}");
    }
    let (system, wal_end) = slot::identify_system(&mut connection).await?;
    let history = history::of_timelines(&mut connection, &system).await?;
    let found = if streams { find_or_lock(&mut connection, connector).await? } else { None };
    let (has_slot, confirmed_flush_lsn) = (found.is_some(), confirmed(found));
    let slot = connector.slot.clone();
    let place = Found { system, history, wal_end, slot, confirmed_flush_lsn };
    Ok(Prepared { connection, settings, place, has_slot })
}

/// The slot; where there is none, the lock is the lease, and whoever has it makes the slot. It may have been made while
/// somebody else had the lock.
async fn find_or_lock(
    connection: &mut Connection,
    connector: &ConnectorConfig,
) -> Result<Option<Slot>, SourceError> {
    let (slot, database) = (&connector.slot, &connector.database.name);
    if let Some(found) = slot::find(connection, slot, database).await? {
        return Ok(Some(found));
    }
    lease::lock(connection, connector).await?;
    slot::find(connection, slot, database).await
}

pub(super) fn confirmed(slot: Option<Slot>) -> Option<Lsn> {
    slot.and_then(|slot| slot.confirmed_flush_lsn)
}

/// A slot that is not there is made anew only where no position says that there was one.
pub(super) async fn expect_no_slot<S: Sink>(
    pipeline: &mut Pipeline<'_, S>,
    connector: &ConnectorConfig,
    place: &Found,
    earlier: Earlier,
) -> Result<(), PipelineError> {
    let mode = connector.snapshot.mode;
    let is_made_anew = mode == SnapshotMode::WhenNeeded || connector.slot_drop_on_stop;
    // One that this task has streamed from is told as gone, with what that means.
    if !mode.streams() || earlier.streamed || (earlier.offset && is_made_anew) {
        return Ok(());
    }
    // Nobody streams from a slot that is not there, and the lock keeps everybody else from making it.
    pipeline.open().await?;
    check(pipeline, place)
}

/// The slot is ours: from here on nobody else writes for this connector, and the stored position is the last one.
pub(super) async fn take_up<S: Sink>(
    pipeline: &mut Pipeline<'_, S>,
    connector: &ConnectorConfig,
    mut place: Found,
    is_new: bool,
) -> Result<(), PipelineError> {
    pipeline.open().await?;
    if is_new {
        pipeline.begin_anew();
    }
    if let Err(mismatch) = slot_mismatch(pipeline, &place) {
        if !mismatch.may_be_stale() {
            return Err(SourceError::from(mismatch).into());
        }
        // The relay that had the slot before may have gone on since the end of the WAL was looked at.
        let mut connection = Connection::open(&connector.database, Purpose::Replication).await?;
        (_, place.wal_end) = slot::identify_system(&mut connection).await?;
        check(pipeline, &place)?;
    }
    if pipeline.comes_again(place.confirmed_flush_lsn) {
        // Whoever had the slot before may have acknowledged more since it was looked at. From here on nobody does: what
        // comes again is waited for, and must come.
        let mut connection = Connection::open(&connector.database, Purpose::Query).await?;
        let (slot, database) = (&connector.slot, &connector.database.name);
        place.confirmed_flush_lsn = confirmed(slot::find(&mut connection, slot, database).await?);
    }
    pipeline.resume(place.confirmed_flush_lsn, place.wal_end);
    Ok(())
}

/// Tells the server of a stream that nothing is read from yet, while `work` lasts: a position is read back for as long as
/// other transactions hide it, which may be longer than the server waits for a sign of life. When the stream is lost
/// all the same, so is the right to go on.
pub(super) async fn answering<T>(
    wal: &mut WalStream,
    interval: Duration,
    work: impl Future<Output = Result<T, PipelineError>>,
) -> Result<T, PipelineError> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(interval) => wal.acknowledge(Lsn::ZERO).await?,
        }
    }
}

fn check<S: Sink>(pipeline: &Pipeline<'_, S>, place: &Found) -> Result<(), PipelineError> {
    slot_mismatch(pipeline, place).map_err(|mismatch| SourceError::from(mismatch).into())
}

fn slot_mismatch<S: Sink>(
    pipeline: &Pipeline<'_, S>,
    place: &Found,
) -> Result<(), Box<slot_identity::Mismatch>> {
    let Some(stored) = pipeline.stored() else { return Ok(()) };
    slot_identity::check(&stored, place, pipeline.commits()).map_err(Box::new)
}
