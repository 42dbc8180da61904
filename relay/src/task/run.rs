//! The loop around the pipeline: connect, stream, and when something fails go on, or say why not.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::past::Past;
use super::take_up::{self, Prepared};
use super::{Beginning, STOP_GRACE, TaskState};
use crate::config::WorkerConfig;
use crate::connector_config::ConnectorConfig;
use crate::failure::{self, Decision};
use crate::health::Role;
use crate::heartbeat::HeartbeatAction;
use crate::pipeline::{Drained, Pipeline, PipelineError};
use crate::sink::{Sink, SinkError};
use crate::slot_guard::{self, SlotGuard};
use crate::source::SourceError;
use crate::source::connection::{Connection, Purpose};
use crate::source::slot;
use crate::source::start::{self, Earlier, Started};
use crate::source::wal::{StreamOptions, WalStream};
use crate::source_offset::SourceOffset;
use crate::written::Written;

/// What closing a sink may take: giving up a transaction has three seconds of its own.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// From this start of the sink on, the status says why it does not last.
const RESTARTS_TOLD: u32 = 3;

/// A task that runs.
pub(super) struct Run<'t> {
    pub(super) connector: &'t ConnectorConfig,
    pub(super) worker: &'t WorkerConfig,
    pub(super) beginning: &'t Beginning,
    pub(super) stop: &'t CancellationToken,
    pub(super) report: &'t watch::Sender<TaskState>,
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
        loop {
            let (error, decision) = match make_sink() {
                Ok(sink) => {
                    let (sink, streamed) = self.stream_to(sink, written, past).await;
                    if let Ok(drained) = &streamed {
                        // Before the closing, which waits for a broker that does not answer: whoever stops the task may
                        // not wait that long.
                        stopped(connector, drained);
                    }
                    close(connector, sink).await;
                    match streamed {
                        Ok(_) => return TaskState::Stopped,
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
                let failed = failed(connector, &error);
                self.beginning.health.begin(Role::Failed { reason: error.to_string() });
                return failed;
            };
            let attempt = past.restart();
            tracing::warn!(connector.name = connector.name, attempt, "starting anew: {error}");
            self.beginning.health.begin(Role::Waiting { reason: error.to_string() });
            if attempt >= RESTARTS_TOLD {
                report.send_replace(TaskState::Waiting { reason: error.to_string() });
            }
            tokio::select! {
                () = tokio::time::sleep(failure::backoff(attempt, backoff_max, jitter())) => {}
                () = stop.cancelled() => return TaskState::Stopped,
            }
        }
    }

    /// Stands by while another relay streams, the sink ready; then streams. The sink comes back, to be closed.
    async fn stream_to<S: Sink>(
        &self,
        sink: S,
        written: &Arc<Written>,
        past: &mut Past,
    ) -> (S, Result<Drained, (PipelineError, Decision)>) {
        // A first look of its own only where there is somebody to wait for.
        if self.another_runs_it()
            && let Err(failure) = self.stand_by().await
        {
            return (sink, Err(failure));
        }
        let connector = self.connector;
        let mut sink = sink;
        loop {
            let stored = written.offset().or_else(|| self.stored());
            let mut pipeline = Pipeline::new(connector, sink, stored, Arc::clone(written))
                .with_health(Arc::clone(&self.beginning.health));
            pipeline.keep_dead_letters(self.beginning.dead_letters.clone());
            let streamed = self.stream(&mut pipeline, past).await;
            past.take_in(&pipeline);
            // One that is open has ended the work of others; the next one must not before it has the slot.
            let is_unused = pipeline.reached().is_none() && !pipeline.is_open();
            sink = pipeline.into_sink();
            match streamed {
                // Another one streamed meanwhile: where this one begins has to be read anew.
                Err((error, Decision::Retry { .. }))
                    if failure::is_slot_in_use(&error) && is_unused => {}
                streamed => return (sink, streamed),
            }
        }
    }

    /// The source offset that was stored last, by whichever worker.
    fn stored(&self) -> Option<SourceOffset> {
        let now = self.beginning.stored_now.as_ref().and_then(|read| read());
        now.or_else(|| self.beginning.stored.clone())
    }

    /// Streams with one sink, over as many connections to PostgreSQL as it takes. An error comes with what to do.
    async fn stream<S: Sink>(
        &self,
        pipeline: &mut Pipeline<'_, S>,
        past: &Past,
    ) -> Result<Drained, (PipelineError, Decision)> {
        let Self { worker, stop, .. } = *self;
        let mut attempt = 0;
        let mut told = String::new();
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
            let decision = self.decide(&error, None);
            let backoff_max = match decision {
                // What an open sink has not committed goes with its slot: another relay may have it by now.
                Decision::Retry { backoff_max }
                    if !matches!(error, PipelineError::Sink(_)) && !pipeline.is_open() =>
                {
                    backoff_max
                }
                _ => return Err((error, decision)),
            };
            if failure::is_slot_in_use(&error) {
                // What this pipeline has published it still knows when the slot is free again.
                self.stand_by().await?;
                attempt = 0;
            }
            if pipeline.confirmed_lsn() > confirmed_lsn {
                attempt = 0;
                told.clear();
            }
            attempt += 1;
            let stood_by = failure::is_slot_in_use(&error);
            if !stood_by {
                self.tell_waiting(error.to_string(), &mut told);
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
            if stood_by && pipeline.reached().is_none() {
                return Err((error, decision));
            }
        }
    }

    /// In the log once per reason: a server that is away for an hour is one line, not thousands.
    fn tell_waiting(&self, reason: String, told: &mut String) {
        let Self { connector, report, .. } = *self;
        self.beginning.health.begin(Role::Waiting { reason: reason.clone() });
        if reason == *told {
            return;
        }
        tracing::warn!(
            connector.name = connector.name,
            slot.name = connector.slot,
            "waiting: {reason}"
        );
        if *report.borrow() != TaskState::Running {
            report.send_replace(TaskState::Waiting { reason: reason.clone() });
        }
        *told = reason;
    }

    /// What to do about a failure. A slot that somebody else holds is waited for as long as the options say; for
    /// another worker that runs the same task, without limit: this one stands by to take over.
    pub(super) fn decide(&self, error: &PipelineError, in_use_since: Option<Instant>) -> Decision {
        let decision = failure::decide(error);
        let (Some(since), Some(patience)) = (in_use_since, self.connector.slot_patience) else {
            return decision;
        };
        match since.elapsed() >= patience && !self.another_runs_it() {
            true => Decision::Stop,
            false => decision,
        }
    }

    fn another_runs_it(&self) -> bool {
        self.beginning.another_runs_it.as_ref().is_some_and(|ask| ask())
    }

    /// One connection to PostgreSQL: prepares what is missing, then streams.
    async fn attempt_stream<S: Sink>(
        &self,
        pipeline: &mut Pipeline<'_, S>,
        past: &Past,
    ) -> Result<Drained, PipelineError> {
        let Self { connector, stop, .. } = *self;
        let prepared = tokio::select! {
            prepared = async {
                let prepared = take_up::prepare(connector).await?;
                pipeline.prepare_dead_letters().await?;
                Ok::<_, PipelineError>(prepared)
            } => prepared?,
            () = stop.cancelled() => return Ok(pipeline.undrained()),
        };
        let Prepared { mut connection, settings, mut place, has_slot } = prepared;
        pipeline.begin(place.system.clone(), place.wal_end, settings.status_interval());
        let earlier = Earlier {
            offset: self.stored().is_some() || pipeline.stored().is_some(),
            streamed: pipeline.reached().is_some()
                || past.has_streamed(&place.system, place.wal_end),
            snapshot: pipeline.has_snapshot() || past.has_snapshot(),
        };
        let started = tokio::select! {
            started = async {
                if !has_slot {
                    take_up::expect_no_slot(pipeline, connector, &place, earlier).await?;
                }
                start::prepare(&mut connection, pipeline, connector, earlier).await
            } => started?,
            // A snapshot that is cut short leaves no slot behind: the next start takes it again.
            () = stop.cancelled() => return Ok(pipeline.undrained()),
        };
        if started == Started::Nothing {
            return Ok(self.idle(pipeline, connection).await);
        }
        let found = slot::find(&mut connection, &connector.slot, &connector.database.name).await?;
        place.confirmed_flush_lsn = take_up::confirmed(found);
        let options = StreamOptions {
            slot: connector.slot.clone(),
            publication: connector.publication.name.clone(),
            messages: settings.has_logical_messages(),
            parameters: connector.stream_parameters.clone(),
            silence_max: settings.silence_max(),
        };
        let mut wal = WalStream::start(connection, &options).await?;
        let taken = async {
            take_up::take_up(pipeline, connector, place, started == Started::NewSlot).await?;
            pipeline.find_parked().await
        };
        let taken = take_up::answering(&mut wal, settings.status_interval(), taken).await;
        if let Err(error) = taken {
            wal.close().await;
            return Err(error);
        }
        self.stream_watched(pipeline, wal, settings.has_logical_messages()).await
    }

    /// `initial_only`: nothing follows the snapshot.
    async fn idle<S: Sink>(
        &self,
        pipeline: &mut Pipeline<'_, S>,
        connection: Connection,
    ) -> Drained {
        let name = &self.connector.name;
        tracing::info!(connector.name = name, "nothing is streamed: snapshot.mode is initial_only");
        self.begin(Role::Idle);
        self.stop.cancelled().await;
        // Until now its lock kept other relays from doing the same.
        drop(connection);
        pipeline.undrained()
    }

    /// Streams until a stop, and watches the slot meanwhile.
    async fn stream_watched<S: Sink>(
        &self,
        pipeline: &mut Pipeline<'_, S>,
        mut wal: WalStream,
        messages: bool,
    ) -> Result<Drained, PipelineError> {
        let Self { connector, worker, stop, .. } = *self;
        tracing::info!(
            connector.name = connector.name,
            slot.name = connector.slot,
            publication.name = connector.publication.name,
            "streaming changes"
        );
        self.begin(Role::Streaming);
        let _action = HeartbeatAction::start(connector);
        let health = &self.beginning.health;
        let mut guard = SlotGuard::start(connector, health, messages);
        let result = tokio::select! {
            result = pipeline.run(&mut wal, stop, worker.shutdown_timeout) => result,
            report = guard.exceeded() => {
                wal.close().await;
                let lost = slot_guard::give_up(connector, &report).await;
                return Err(lost.unwrap_or_else(|error| error).into());
            }
        };
        drop(guard);
        wal.close().await;
        let drained = result?;
        give_up_slot(connector, &drained).await?;
        Ok(drained)
    }

    /// It runs, in this role.
    fn begin(&self, role: Role) {
        self.beginning.health.begin(role);
        self.report.send_replace(TaskState::Running);
    }
}

/// Closing a producer waits for its thread, and for what it gives up; its thread is left to it when it takes too long.
async fn close<S: Sink + Send + 'static>(connector: &ConnectorConfig, sink: S) {
    let closed = tokio::task::spawn_blocking(move || sink.close());
    if !matches!(tokio::time::timeout(CLOSE_MAX, closed).await, Ok(Ok(()))) {
        tracing::warn!(
            connector.name = connector.name,
            "the sink was not closed in good order; what Kafka had not confirmed is published again"
        );
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
pub(super) fn jitter() -> u64 {
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
