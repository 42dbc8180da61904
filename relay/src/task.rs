//! A running connector: starts the pipeline in the background, tells its state, stops it within a bound.

mod past;
mod run;
mod standby;
mod take_up;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::past::Past;
use self::run::Run;
use crate::config::WorkerConfig;
use crate::connector_config::ConnectorConfig;
use crate::dead_letter::desk::Desk;
use crate::dead_letter::topic::DeadLetterTopic;
use crate::failpoint;
use crate::health::Health;
use crate::sink::hasty::HastySink;
use crate::sink::kafka::KafkaSink;
use crate::sink::transactional::TransactionalSink;
use crate::sink::{Sink, SinkError, clients};
use crate::source_offset::SourceOffset;
use crate::written::Written;

/// What a stop may take beyond the time for draining: a last acknowledgement and the closing of two connections.
const STOP_GRACE: Duration = Duration::from_secs(2);

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
    /// Somebody else streams; this task takes over when the slot is free.
    StandingBy {
        /// Who holds the slot.
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
    /// Reads it anew: after standing by, the last one is another worker's.
    pub stored_now: Option<Box<dyn Fn() -> Option<SourceOffset> + Send + Sync>>,
    /// What the task tells of its health.
    pub health: Arc<Health>,
    /// Whether another worker says that it runs this task: then its slot may be in use for as long as it likes.
    pub another_runs_it: Option<Box<dyn Fn() -> bool + Send + Sync>>,
    /// Where dead letters go, and who asks for their replay.
    pub dead_letters: Option<Arc<Desk>>,
}

/// A started task.
#[derive(Debug)]
pub struct TaskHandle {
    state: watch::Receiver<TaskState>,
    written: Arc<Written>,
    health: Arc<Health>,
    stop: CancellationToken,
    running: JoinHandle<()>,
    stop_max: Duration,
    dead_letters: Option<Arc<Desk>>,
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
    let desk = dead_letter_topic(&connector, &worker).map(|topic| Arc::new(Desk::new(topic)));
    let beginning = Beginning { dead_letters: desk, ..beginning };
    if let Some(transactions) = connector.transactions.clone() {
        let make = move || TransactionalSink::start(&bootstrap_servers, &overrides, &transactions);
        return start_with(connector, worker, beginning, make);
    }
    let make_sink = move || KafkaSink::start(&bootstrap_servers, &overrides);
    if failpoint::acknowledges_early() {
        let make_sink = move || make_sink().map(HastySink::new);
        return start_with(connector, worker, beginning, make_sink);
    }
    start_with(connector, worker, beginning, make_sink)
}

/// A connector's dead letter topic, if it has one.
#[must_use]
pub fn dead_letter_topic(
    connector: &ConnectorConfig,
    worker: &WorkerConfig,
) -> Option<DeadLetterTopic> {
    let config = connector.errors.dead_letters.as_ref()?;
    // Options that cannot be taken keep the sink from starting, too, which says so.
    let client =
        clients::client_config(&worker.bootstrap_servers, &connector.producer_overrides).ok()?;
    Some(DeadLetterTopic::new(client, &connector.name, config))
}

/// Starts the pipeline of a connector, to a sink that is there already.
#[must_use]
pub fn start_with_sink<S: Sink + Send + 'static>(
    connector: Arc<ConnectorConfig>,
    worker: Arc<WorkerConfig>,
    sink: S,
) -> TaskHandle {
    resume_with_sink(connector, worker, sink, Beginning::default())
}

/// The same, of a connector that has run before.
#[must_use]
pub fn resume_with_sink<S: Sink + Send + 'static>(
    connector: Arc<ConnectorConfig>,
    worker: Arc<WorkerConfig>,
    sink: S,
    beginning: Beginning,
) -> TaskHandle {
    let mut sink = Some(sink);
    let once = move || {
        let reason = "the sink it was given is used up".to_owned();
        sink.take().ok_or(SinkError::Configuration { reason })
    };
    start_with(connector, worker, beginning, once)
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
    let health = Arc::clone(&beginning.health);
    let dead_letters = beginning.dead_letters.clone();
    let running = tokio::spawn(async move {
        let run = Run {
            connector: &connector,
            worker: &worker,
            beginning: &beginning,
            stop: &token,
            report: &report,
        };
        let outcome = run.until_stopped(make_sink, &told, &mut Past::default()).await;
        report.send_replace(outcome);
    });
    TaskHandle { state, written, health, stop, running, stop_max, dead_letters }
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

    /// What it tells of its health.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Its dead letters, where it has a topic for them.
    #[must_use]
    pub fn dead_letters(&self) -> Option<Arc<Desk>> {
        self.dead_letters.clone()
    }

    /// Stops intake, drains what is in flight, acknowledges it and closes the connections, within a bound. False: the
    /// bound was reached, and the task was ended where it stood.
    pub async fn stop(mut self) -> bool {
        self.stop.cancel();
        let bound = self.stop_max + STOP_GRACE;
        let in_time = tokio::time::timeout(bound, &mut self.running).await.is_ok();
        if !in_time {
            self.abandon();
            tracing::warn!(
                bound_s = bound.as_secs(),
                "the task did not stop in time and was ended; what was not acknowledged is read again"
            );
        }
        in_time
    }

    /// Ends the task where it stands, as a crash would: nothing is drained, given up or acknowledged.
    pub fn abandon(&self) {
        self.running.abort();
    }
}

impl Drop for TaskHandle {
    fn drop(&mut self) {
        // A handle that is dropped without `stop` must not leave a pipeline behind that nobody can reach.
        self.stop.cancel();
    }
}
