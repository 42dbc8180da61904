//! A running connector: starts the pipeline in the background, tells its state, stops it within a bound.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::WorkerConfig;
use crate::connector_config::ConnectorConfig;
use crate::failure::{self, Decision};
use crate::heartbeat::HeartbeatAction;
use crate::pipeline::{Drained, Pipeline, PipelineError};
use crate::sink::kafka::KafkaSink;
use crate::sink::{Sink, SinkError};
use crate::source::connection::{Connection, Purpose};
use crate::source::slot;
use crate::source::start::{self, Earlier, Started};
use crate::source::wal::{StreamOptions, WalStream};
use crate::source::{SourceError, publication, server};
use crate::source_offset::SourceOffset;
use crate::written::{Reporter, Written};

/// What a stop may take beyond the time for draining: a last acknowledgement and the closing of two connections.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// From this start of the sink on, the status says why it does not last.
const RESTARTS_TOLD: u32 = 3;

/// What a task is doing, as Connect's status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskState {
    /// It prepares slot and publication: what is written to the outbox before the slot exists is not in the stream.
    Starting,
    /// It could not start yet and tries again.
    Waiting {
        /// What it waits for.
        reason: String,
    },
    /// It streams; or it did, has lost PostgreSQL and tries again: nothing is missed meanwhile, the slot is there.
    Running,
    /// The pipeline stopped for good; the trace says what to do.
    Failed {
        /// For the operator: what happened, where, and what to do.
        trace: String,
    },
    /// Stopped on request.
    Stopped,
}

/// What a task begins with, besides its options.
#[derive(Default)]
pub struct Beginning {
    /// The source offset that was stored last: what it covers is not published again.
    pub stored: Option<SourceOffset>,
    /// Whether another worker says that it runs this task: then its slot may be in use for as long as it likes.
    pub another_runs_it: Option<Box<dyn Fn() -> bool + Send + Sync>>,
}

/// A started task.
#[derive(Debug)]
pub struct TaskHandle {
    state: watch::Receiver<TaskState>,
    written: Arc<Written>,
    stop: CancellationToken,
    running: JoinHandle<()>,
    stop_max: Duration,
}

/// Starts the pipeline of a connector, to Kafka.
#[must_use]
pub fn start(
    connector: Arc<ConnectorConfig>,
    worker: Arc<WorkerConfig>,
    beginning: Beginning,
) -> TaskHandle {
    let bootstrap_servers = worker.bootstrap_servers.clone();
    let overrides = connector.producer_overrides.clone();
    let make_sink = move || KafkaSink::start(&bootstrap_servers, &overrides);
    start_with(connector, worker, beginning, make_sink)
}

/// Starts the pipeline of a connector, to a sink that is there already.
#[must_use]
pub fn start_with_sink<S: Sink + Send + 'static>(
    connector: Arc<ConnectorConfig>,
    worker: Arc<WorkerConfig>,
    sink: S,
) -> TaskHandle {
    let mut sink = Some(sink);
    let once = move || {
        let reason = "the sink it was given is used up".to_owned();
        sink.take().ok_or(SinkError::Configuration { reason })
    };
    start_with(connector, worker, Beginning::default(), once)
}

/// `make_sink` is called again when a sink cannot go on.
fn start_with<S: Sink + Send + 'static>(
    connector: Arc<ConnectorConfig>,
    worker: Arc<WorkerConfig>,
    beginning: Beginning,
    make_sink: impl FnMut() -> Result<S, SinkError> + Send + 'static,
) -> TaskHandle {
    let (report, state) = watch::channel(TaskState::Starting);
    let stop = CancellationToken::new();
    let stop_max = worker.shutdown_timeout;
    let written = Arc::new(Written::default());
    let (token, told) = (stop.clone(), Arc::clone(&written));
    let running = tokio::spawn(async move {
        let run = Run {
            connector: &connector,
            worker: &worker,
            beginning: &beginning,
            stop: &token,
            report: &report,
        };
        let outcome = run.until_stopped(make_sink, &told).await;
        report.send_replace(outcome);
    });
    TaskHandle { state, written, stop, running, stop_max }
}

impl TaskHandle {
    /// The state now.
    #[must_use]
    pub fn state(&self) -> TaskState {
        self.state.borrow().clone()
    }

    /// Follows the state.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<TaskState> {
        self.state.clone()
    }

    /// What it tells of its work; still there when it has stopped.
    #[must_use]
    pub fn written(&self) -> Arc<Written> {
        Arc::clone(&self.written)
    }

    /// Stops intake, drains what is in flight, acknowledges it and closes the connections, within a bound. False: the
    /// bound was reached, and the task was ended where it stood.
    pub async fn stop(mut self) -> bool {
        self.stop.cancel();
        let bound = self.stop_max + STOP_GRACE;
        let in_time = tokio::time::timeout(bound, &mut self.running).await.is_ok();
        if !in_time {
            self.running.abort();
            tracing::warn!(
                bound_s = bound.as_secs(),
                "the task did not stop in time and was ended; what was not acknowledged is read again"
            );
        }
        in_time
    }
}

impl Drop for TaskHandle {
    fn drop(&mut self) {
        // A handle that is dropped without `stop` must not leave a pipeline behind that nobody can reach.
        self.stop.cancel();
    }
}

/// A task that runs.
struct Run<'t> {
    connector: &'t ConnectorConfig,
    worker: &'t WorkerConfig,
    beginning: &'t Beginning,
    stop: &'t CancellationToken,
    report: &'t watch::Sender<TaskState>,
}

impl Run<'_> {
    /// Runs a connector until it is stopped or fails for good.
    async fn until_stopped<S: Sink + Send + 'static>(
        &self,
        mut make_sink: impl FnMut() -> Result<S, SinkError>,
        written: &Arc<Written>,
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
                    let reporter = Reporter::new(&connector.name, stored, Arc::clone(written));
                    let mut pipeline = Pipeline::new(connector, sink, reporter);
                    let streamed = self.stream(&mut pipeline).await;
                    close(connector, pipeline.into_sink()).await;
                    match streamed {
                        Ok(drained) => {
                            stopped(connector, &drained);
                            return TaskState::Stopped;
                        }
                        Err(failure) => failure,
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
    ) -> Result<Drained, (PipelineError, Decision)> {
        let Self { connector, worker, stop, report, .. } = *self;
        let mut attempt = 0;
        let mut told = String::new();
        let mut in_use_since = None;
        loop {
            let confirmed_lsn = pipeline.confirmed_lsn();
            let error = tokio::select! {
                result = self.attempt_stream(pipeline) => match result {
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
                Decision::Retry { backoff_max } if !matches!(error, PipelineError::Sink(_)) => {
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
    ) -> Result<Drained, PipelineError> {
        let Self { connector, worker, stop, report, .. } = *self;
        let database = &connector.database;
        let prepare = async {
            let mut connection = Connection::open(database, Purpose::Replication).await?;
            let settings = server::settings(&mut connection).await?;
            let publication = &connector.publication;
            if connector.snapshot.mode.streams()
                && let Some(done) = publication::ensure(
                    &mut connection,
                    publication,
                    &connector.table_filter,
                    database,
                )
                .await?
            {
                tracing::info!(publication.name = publication.name, "publication prepared: {done}");
            }
            let (identity, wal_end) = slot::identify_system(&mut connection).await?;
            Ok::<_, SourceError>((connection, settings, identity, wal_end))
        };
        let (mut connection, settings, identity, wal_end) = tokio::select! {
            prepared = prepare => prepared?,
            () = stop.cancelled() => return Ok(pipeline.undrained()),
        };
        pipeline.begin(identity, wal_end, settings.status_interval());
        let earlier = Earlier {
            offset: self.beginning.stored.is_some(),
            streamed: pipeline.has_streamed(),
            snapshot: pipeline.has_snapshot(),
        };
        let started = tokio::select! {
            started = start::prepare(&mut connection, pipeline, connector, earlier) => started?,
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
        let found = slot::find(&mut connection, &connector.slot, &database.name).await?;
        pipeline.resume(found.and_then(|slot| slot.confirmed_flush_lsn), wal_end);
        let options = StreamOptions {
            slot: connector.slot.clone(),
            publication: connector.publication.name.clone(),
            messages: settings.has_logical_messages(),
            parameters: connector.stream_parameters.clone(),
        };
        let mut wal = WalStream::start(connection, &options).await?;
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

/// Closing a producer waits for its thread.
async fn close<S: Send + 'static>(connector: &ConnectorConfig, sink: S) {
    let closed = tokio::task::spawn_blocking(move || drop(sink)).await;
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
