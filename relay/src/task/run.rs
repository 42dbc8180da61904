//! The loop around the pipeline: connect, stream, and when something fails go on, or say why not.

use std::sync::Arc;
use std::time::Duration;

use pgoutput::Lsn;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Beginning, STOP_GRACE, TaskState};
use crate::config::WorkerConfig;
use crate::connector_config::{ConnectorConfig, SnapshotMode};
use crate::failure::{self, Decision};
use crate::heartbeat::HeartbeatAction;
use crate::pipeline::{Drained, Pipeline, PipelineError};
use crate::sink::{Sink, SinkError};
use crate::slot_identity::{self, Found};
use crate::source::connection::{Connection, Purpose};
use crate::source::slot::{self, Slot, SystemIdentity};
use crate::source::start::{self, Earlier, Started};
use crate::source::wal::{StreamOptions, WalStream};
use crate::source::{SourceError, history, publication, server};
use crate::written::Written;

/// From this start of the sink on, the status says why it does not last.
const RESTARTS_TOLD: u32 = 3;

/// Starts of the sink that end the same way without a commit between them: then it is no accident.
const FUTILE_MAX: u32 = 3;

/// Times that another producer takes over within [`FENCED_WITHIN`]: more often than relays take each other's place.
const FENCED_MAX: usize = 5;
const FENCED_WITHIN: Duration = Duration::from_secs(300);

/// A task that runs.
pub(super) struct Run<'t> {
    pub(super) connector: &'t ConnectorConfig,
    pub(super) worker: &'t WorkerConfig,
    pub(super) beginning: &'t Beginning,
    pub(super) stop: &'t CancellationToken,
    pub(super) report: &'t watch::Sender<TaskState>,
}

/// What a task knows of its earlier pipelines: each has a producer of its own.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Its snapshot was taken.
    snapshot: bool,
    /// How far which history of WAL was streamed.
    reached: Option<(SystemIdentity, Lsn)>,
    /// When other producers took over.
    fenced: Vec<Instant>,
    /// Transactions that timed out since anything was committed.
    timeouts: u32,
}

impl Past {
    fn take_in<S: Sink>(&mut self, pipeline: &Pipeline<'_, S>) {
        self.snapshot |= pipeline.has_snapshot();
        self.reached = pipeline.reached().or(self.reached.take());
    }

    /// Whether this history of WAL was streamed: then its slot must still be there.
    fn has_streamed(&self, system: &SystemIdentity, wal_end: Lsn) -> bool {
        self.reached.as_ref().is_some_and(|(known, lsn)| known == system && *lsn <= wal_end)
    }

    /// What cannot be told at the first time.
    fn decide(&mut self, error: &PipelineError, decision: Decision) -> Decision {
        match error {
            PipelineError::Sink(SinkError::Fenced { .. }) => {
                self.fenced.retain(|at| at.elapsed() < FENCED_WITHIN);
                self.fenced.push(Instant::now());
                if self.fenced.len() < FENCED_MAX { decision } else { Decision::Stop }
            }
            PipelineError::Sink(SinkError::TransactionTimeout { .. }) => {
                self.timeouts += 1;
                if self.timeouts < FUTILE_MAX { decision } else { Decision::Stop }
            }
            _ => decision,
        }
    }
}

impl Run<'_> {
    /// Runs a connector until it is stopped or fails for good.
    pub(super) async fn until_stopped<S: Sink + Send + 'static>(
        &self,
        mut make_sink: impl FnMut() -> Result<S, SinkError>,
        written: &Arc<Written>,
        past: &mut Past,
    ) -> TaskState {
        let Self { connector, report, stop, .. } = *self;
        for remark in &connector.remarks {
            tracing::info!(connector.name = connector.name, "{remark}");
        }
        let mut attempt = 0;
        loop {
            let (error, decision) = match make_sink() {
                Ok(sink) => {
                    let stored = written.offset().or_else(|| self.beginning.stored.clone());
                    let mut pipeline = Pipeline::new(connector, sink, stored, Arc::clone(written));
                    let streamed = self.stream(&mut pipeline, past).await;
                    past.take_in(&pipeline);
                    if pipeline.confirmed_lsn() > Lsn::ZERO {
                        (attempt, past.timeouts) = (0, 0);
                    }
                    close(connector, pipeline.into_sink()).await;
                    match streamed {
                        Ok(drained) => {
                            stopped(connector, &drained);
                            return TaskState::Stopped;
                        }
                        Err((error, decision)) => {
                            let decision = past.decide(&error, decision);
                            (error, decision)
                        }
                    }
                }
                Err(error) => {
                    let error = error.into();
                    let decision = failure::decide(&error);
                    (error, decision)
                }
            };
            let Decision::Retry { backoff_max } = decision else {
                return failed(connector, &error);
            };
            attempt += 1;
            tracing::warn!(connector.name = connector.name, attempt, "starting anew: {error}");
            if attempt >= RESTARTS_TOLD {
                report.send_replace(TaskState::Waiting { reason: error.to_string() });
            }
            tokio::select! {
                () = tokio::time::sleep(failure::backoff(attempt, backoff_max, jitter())) => {}
                () = stop.cancelled() => return TaskState::Stopped,
            }
        }
    }

    /// Streams with one sink, over as many connections to PostgreSQL as it takes. An error comes with what to do.
    async fn stream<S: Sink>(
        &self,
        pipeline: &mut Pipeline<'_, S>,
        past: &Past,
    ) -> Result<Drained, (PipelineError, Decision)> {
        let Self { connector, worker, stop, report, .. } = *self;
        let mut attempt = 0;
        let mut told = String::new();
        let mut in_use_since = None;
        loop {
            let confirmed_lsn = pipeline.confirmed_lsn();
            let error = tokio::select! {
                result = self.attempt_stream(pipeline, past) => match result {
                    Ok(drained) => return Ok(drained),
                    Err(error) => error,
                },
                // While it streams, the pipeline itself ends in good order; this is for the time before that.
                () = stopped_before_streaming(stop, worker) => return Ok(pipeline.undrained()),
            };
            if failure::is_slot_in_use(&error) {
                in_use_since.get_or_insert_with(Instant::now);
            } else {
                in_use_since = None;
            }
            let decision = self.decide(&error, in_use_since);
            let backoff_max = match decision {
                // What an open sink has not committed goes with its slot: another relay may have it by now.
                Decision::Retry { backoff_max }
                    if !matches!(error, PipelineError::Sink(_)) && !pipeline.is_open() =>
                {
                    backoff_max
                }
                _ => return Err((error, decision)),
            };
            if pipeline.confirmed_lsn() > confirmed_lsn {
                attempt = 0;
                told.clear();
            }
            attempt += 1;
            // Once per reason: a server that is away for an hour is one line, not thousands.
            let reason = error.to_string();
            if reason != told {
                tracing::warn!(
                    connector.name = connector.name,
                    slot.name = connector.slot,
                    "waiting: {reason}"
                );
                if *report.borrow() != TaskState::Running {
                    report.send_replace(TaskState::Waiting { reason: reason.clone() });
                }
                told = reason;
            }
            let settled = async {
                tokio::time::sleep(failure::backoff(attempt, backoff_max, jitter())).await;
                pipeline.settle().await
            };
            tokio::select! {
                settled = settled => {
                    if let Err(error) = settled {
                        let decision = failure::decide(&error);
                        return Err((error, decision));
                    }
                }
                () = stop.cancelled() => return Ok(pipeline.undrained()),
            }
        }
    }

    /// What to do about a failure. A slot that somebody else holds is waited for as long as the options say; for
    /// another worker that runs the same task, without limit: this one stands by to take over.
    fn decide(&self, error: &PipelineError, in_use_since: Option<Instant>) -> Decision {
        let decision = failure::decide(error);
        let (Some(since), Some(patience)) = (in_use_since, self.connector.slot_patience) else {
            return decision;
        };
        let another_runs_it = self.beginning.another_runs_it.as_ref().is_some_and(|ask| ask());
        match since.elapsed() >= patience && !another_runs_it {
            true => Decision::Stop,
            false => decision,
        }
    }

    /// One connection to PostgreSQL: prepares what is missing, then streams.
    async fn attempt_stream<S: Sink>(
        &self,
        pipeline: &mut Pipeline<'_, S>,
        past: &Past,
    ) -> Result<Drained, PipelineError> {
        let Self { connector, worker, stop, report, .. } = *self;
        let prepared = tokio::select! {
            prepared = prepare(connector) => prepared?,
            () = stop.cancelled() => return Ok(pipeline.undrained()),
        };
        let Prepared { mut connection, settings, mut place, has_slot } = prepared;
        pipeline.begin(place.system.clone(), place.wal_end, settings.status_interval());
        let earlier = Earlier {
            offset: self.beginning.stored.is_some() || pipeline.stored().is_some(),
            streamed: pipeline.reached().is_some()
                || past.has_streamed(&place.system, place.wal_end),
            snapshot: pipeline.has_snapshot() || past.snapshot,
        };
        let started = tokio::select! {
            started = async {
                if !has_slot {
                    expect_no_slot(pipeline, connector, &place, earlier).await?;
                }
                start::prepare(&mut connection, pipeline, connector, earlier).await
            } => started?,
            // A snapshot that is cut short leaves no slot behind: the next start takes it again.
            () = stop.cancelled() => return Ok(pipeline.undrained()),
        };
        if started == Started::Nothing {
            drop(connection);
            let name = &connector.name;
            tracing::info!(
                connector.name = name,
                "nothing is streamed: snapshot.mode is initial_only"
            );
            report.send_replace(TaskState::Running);
            stop.cancelled().await;
            return Ok(pipeline.undrained());
        }
        let found = slot::find(&mut connection, &connector.slot, &connector.database.name).await?;
        place.confirmed_flush_lsn = confirmed(found);
        let options = StreamOptions {
            slot: connector.slot.clone(),
            publication: connector.publication.name.clone(),
            messages: settings.has_logical_messages(),
            parameters: connector.stream_parameters.clone(),
            silence_max: settings.silence_max(),
        };
        let mut wal = WalStream::start(connection, &options).await?;
        let is_new = started == Started::NewSlot;
        if let Err(error) = take_up(pipeline, connector, place, is_new).await {
            wal.close().await;
            return Err(error);
        }
        tracing::info!(
            connector.name = connector.name,
            slot.name = connector.slot,
            publication.name = connector.publication.name,
            "streaming changes"
        );
        report.send_replace(TaskState::Running);
        let _action = HeartbeatAction::start(connector);
        let result = pipeline.run(&mut wal, stop, worker.shutdown_timeout).await;
        wal.close().await;
        let drained = result?;
        give_up_slot(connector, &drained).await?;
        Ok(drained)
    }
}

/// A connection on which a stream may begin.
struct Prepared {
    connection: Connection,
    settings: server::ServerSettings,
    place: Found,
    /// One that is being made is there, and has no position yet.
    has_slot: bool,
}

/// Connects, sees to the publication, and looks where the server and the slot stand.
async fn prepare(connector: &ConnectorConfig) -> Result<Prepared, SourceError> {
    let ConnectorConfig { database, publication, .. } = connector;
    let mut connection = Connection::open(database, Purpose::Replication).await?;
    let settings = server::settings(&mut connection).await?;
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
    let found = match streams {
        true => slot::find(&mut connection, &connector.slot, &database.name).await?,
        false => None,
    };
    let (has_slot, confirmed_flush_lsn) = (found.is_some(), confirmed(found));
    let slot = connector.slot.clone();
    let place = Found { system, history, wal_end, slot, confirmed_flush_lsn };
    Ok(Prepared { connection, settings, place, has_slot })
}

fn confirmed(slot: Option<Slot>) -> Option<Lsn> {
    slot.and_then(|slot| slot.confirmed_flush_lsn)
}

/// A slot that is not there is made anew only where no position says that there was one.
async fn expect_no_slot<S: Sink>(
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
    // Nobody streams from a slot that is not there.
    pipeline.open().await?;
    check(pipeline, place)
}

/// The slot is ours: from here on nobody else writes for this connector, and the stored position is the last one.
async fn take_up<S: Sink>(
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
    pipeline.resume(place.confirmed_flush_lsn, place.wal_end);
    Ok(())
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

/// Closing a producer waits for its thread, and for what it gives up.
async fn close<S: Sink + Send + 'static>(connector: &ConnectorConfig, sink: S) {
    let closed = tokio::task::spawn_blocking(move || sink.close()).await;
    if closed.is_err() {
        tracing::warn!(connector.name = connector.name, "the sink was not closed in good order");
    }
}

/// Resolves when a stop was asked for and the pipeline had all the time it may take to drain.
async fn stopped_before_streaming(stop: &CancellationToken, worker: &WorkerConfig) {
    stop.cancelled().await;
    tokio::time::sleep(worker.shutdown_timeout + STOP_GRACE / 2).await;
}

/// `slot.drop.on.stop`: the stream must have ended before its slot can go.
async fn give_up_slot(connector: &ConnectorConfig, drained: &Drained) -> Result<(), SourceError> {
    if !connector.slot_drop_on_stop {
        return Ok(());
    }
    if drained.left > 0 {
        tracing::warn!(
            slot.name = connector.slot,
            left_records = drained.left,
            "the slot is kept although slot.drop.on.stop is set: Kafka has not confirmed everything yet"
        );
        return Ok(());
    }
    let mut connection = Connection::open(&connector.database, Purpose::Query).await?;
    slot::drop(&mut connection, &connector.slot).await?;
    tracing::info!(
        slot.name = connector.slot,
        "replication slot dropped, as slot.drop.on.stop asks"
    );
    Ok(())
}

/// Any number: what spreads the attempts of several relays needs no better source.
fn jitter() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

fn stopped(connector: &ConnectorConfig, drained: &Drained) {
    tracing::info!(
        connector.name = connector.name,
        slot.confirmed_lsn = %drained.confirmed_lsn,
        drained_records = drained.drained,
        left_records = drained.left,
        "stopped: what was drained is confirmed and acknowledged, what is left is read again at the next start"
    );
}

fn failed(connector: &ConnectorConfig, error: &PipelineError) -> TaskState {
    let trace = format!("{error}\n{}", failure::advice(error));
    tracing::error!(
        connector.name = connector.name,
        slot.name = connector.slot,
        "the task failed: {trace}"
    );
    TaskState::Failed { trace }
}
