//! The life of one connector: brings what runs in line with what is wanted, one step at a time, and tells its state.
//!
//! Wishes are levels, not commands: a supervisor that was busy sees the latest and skips what was overtaken.

mod resting_slot;
mod statuses;
mod stored;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::resting_slot::{RestingSlot, over_budget};
use self::statuses::runs_elsewhere;
use super::herder::Registry;
use super::plugins;
use super::references::Providers;
use super::storage::{
    Properties, State, StatusKey, Storage, TargetState, commit_record, server_key, task_record,
};
use super::task_records::TaskRecords;
use crate::config::WorkerConfig;
use crate::connector_config::{ConnectorConfig, OptionError};
use crate::dead_letter::desk::Desk;
use crate::health::{Health, Role};
use crate::task::{self, Beginning, TaskHandle, TaskState};

/// The connector's only task; a slot has one reader.
pub(super) const TASK: u32 = 0;
/// After a write to the config topic failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// What a connector should be.
#[derive(Debug, Clone, Default)]
pub(super) struct Desired {
    /// `None`: removed.
    pub(super) properties: Option<Properties>,
    pub(super) target: TargetState,
    /// The task configuration that is in force.
    pub(super) committed: Option<Properties>,
    pub(super) events: Events,
}

/// How often something happened that the rest of [`Desired`] does not show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Events {
    pub(super) configured: u64,
    pub(super) removed: u64,
    pub(super) connector_restarts: u64,
    pub(super) task_restarts: u64,
    /// Restarts that show as RESTARTING meanwhile.
    pub(super) announced: u64,
}

/// How far a supervisor has come.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// The number of restarts that the statuses tell of.
    pub(super) announced: u64,
    /// Whether it was stopped on request, and the last source offset of its task is stored.
    pub(super) is_stopped: bool,
    /// The dead letters of the task that was started last.
    pub(super) dead_letters: Option<Arc<Desk>>,
}

/// Runs one connector until it is removed or the process stops.
pub(super) struct Supervisor {
    name: String,
    worker: Arc<WorkerConfig>,
    storage: Arc<Storage>,
    desired: watch::Receiver<Desired>,
    progress: watch::Sender<Progress>,
    health: Arc<Health>,
    shutdown: CancellationToken,
    seen: Events,
    connector: Option<State>,
    task: Option<Task>,
    /// Watched while the task does not run.
    resting_slot: Option<RestingSlot>,
    retry: bool,
    /// Records of the status topic, and when this worker last said that its task runs.
    status_changes: watch::Receiver<u64>,
    claimed_at: Option<Instant>,
}

/// What a supervisor does next.
enum Next {
    Again,
    Drain,
    End,
}

struct Task {
    properties: Properties,
    phase: Phase,
}

enum Phase {
    Running(Running),
    Paused,
    Failed,
}

struct Running {
    handle: TaskHandle,
    states: watch::Receiver<TaskState>,
    /// The state that was told last.
    told: TaskState,
    records: TaskRecords,
}

impl Supervisor {
    pub(super) fn new(
        name: &str,
        worker: Arc<WorkerConfig>,
        storage: Arc<Storage>,
        desired: watch::Receiver<Desired>,
        progress: watch::Sender<Progress>,
        health: Arc<Health>,
        shutdown: CancellationToken,
    ) -> Self {
        let seen = desired.borrow().events;
        let status_changes = storage.status_changes();
        Self {
            name: name.to_owned(),
            worker,
            storage,
            desired,
            progress,
            health,
            shutdown,
            seen,
            connector: None,
            task: None,
            resting_slot: None,
            retry: false,
            status_changes,
            claimed_at: None,
        }
    }

    pub(super) async fn run(mut self, registry: Arc<Registry>) {
        loop {
            let desired = self.desired.borrow_and_update().clone();
            self.reconcile(&desired).await;
            self.watch_resting_slot(&desired);
            if desired.properties.is_none() && registry.retire(&self.name, &self.desired) {
                return;
            }
            match self.next().await {
                Next::Again => {}
                Next::Drain => return self.drain().await,
                Next::End => return,
            }
        }
    }

    /// Waits for something to do.
    async fn next(&mut self) -> Next {
        loop {
            let claim_due = self.claim_due();
            tokio::select! {
                biased;
                // A stop of the process goes first: everything else would be stopped again at once.
                () = self.shutdown.cancelled() => return Next::Drain,
                changed = self.desired.changed() => {
                    return if changed.is_ok() { Next::Again } else { Next::End };
                }
                state = task_changed(&mut self.task) => {
                    self.note(state).await;
                    return Next::Again;
                }
                report = over_budget(&mut self.resting_slot) => self.give_up_resting_slot(&report).await,
                () = tokio::time::sleep(RETRY_DELAY), if self.retry => return Next::Again,
                Ok(()) = self.status_changes.changed() => {}
                () = tokio::time::sleep(claim_due.unwrap_or_default()), if claim_due.is_some() => {
                    self.claim();
                }
            }
        }
    }

    async fn reconcile(&mut self, desired: &Desired) {
        let (events, seen) = (desired.events, self.seen);
        self.seen = events;
        self.retry = false;
        if events.removed != seen.removed {
            self.remove().await;
        }
        let Some(properties) = &desired.properties else { return };
        let announced = events.announced != seen.announced;
        let again = events.configured != seen.configured
            || events.connector_restarts != seen.connector_restarts;
        if again && self.connector.is_some() {
            self.tell_connector(State::Unassigned, None);
            if announced {
                self.tell_connector(State::Restarting, None);
            }
        }
        let restart_task = events.task_restarts != seen.task_restarts && self.task.is_some();
        if restart_task {
            self.tell_task(State::Unassigned, None);
            if announced {
                self.tell_task(State::Restarting, None);
            }
        }
        self.progress.send_modify(|progress| progress.announced = events.announced);
        if desired.target != TargetState::Stopped {
            self.progress.send_modify(|progress| progress.is_stopped = false);
        }
        match desired.target {
            TargetState::Started => self.start(properties, desired, restart_task).await,
            TargetState::Paused => self.pause(desired, restart_task).await,
            TargetState::Stopped => self.stop(desired).await,
        }
    }

    async fn start(&mut self, properties: &Properties, desired: &Desired, restart_task: bool) {
        if let Some(trace) = null_option(properties) {
            if self.connector != Some(State::Failed) {
                tracing::error!(connector.name = self.name, trace, "the connector failed");
                self.health.begin(Role::Failed { reason: trace.clone() });
                self.tell_connector(State::Failed, Some(trace));
            }
            return;
        }
        if self.connector != Some(State::Running) {
            if self.another_runs_it() {
                // Its word stands until this worker takes over.
                self.connector = Some(State::Running);
            } else {
                self.tell_connector(State::Running, None);
            }
        }
        let wanted = task_properties(properties);
        if desired.committed.as_ref() == Some(&wanted) {
            return self.run_task(wanted, restart_task).await;
        }
        // The task starts when the record has come back through the topic, as it would for any other worker.
        let task = task_record(&self.name, TASK, &wanted);
        let written = match self.storage.write_config(task).await {
            Ok(()) => self.storage.write_config(commit_record(&self.name, 1)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            tracing::warn!(connector.name = self.name, %error, "the task's configuration was not stored, trying again");
            self.retry = true;
        }
    }

    async fn run_task(&mut self, wanted: Properties, restart: bool) {
        if let Some(task) = &self.task {
            let as_wanted = task.properties == wanted && !restart;
            if as_wanted && !matches!(task.phase, Phase::Paused) {
                return;
            }
            self.halt().await;
        }
        let phase = match self.start_task(&wanted) {
            Ok(running) => {
                tracing::info!(connector.name = self.name, "task started");
                Phase::Running(running)
            }
            Err(trace) => {
                tracing::error!(connector.name = self.name, trace, "the task cannot start");
                self.fail(trace);
                Phase::Failed
            }
        };
        self.task = Some(Task { properties: wanted, phase });
    }

    fn start_task(&self, wanted: &Properties) -> Result<Running, String> {
        let connector = self.connector_config(wanted)?;
        let key = server_key(&self.name, &connector.topic_prefix);
        let stored = self.stored_offset(&key)?;
        let (storage, ours) = (Arc::clone(&self.storage), self.worker.advertised.to_string());
        let name = self.name.clone();
        let another_runs_it = move || runs_elsewhere(&storage, &name, &ours);
        let beginning = Beginning {
            stored,
            stored_now: Some(self.stored_now(&key)),
            health: Arc::clone(&self.health),
            another_runs_it: Some(Box::new(another_runs_it)),
            ..Beginning::default()
        };
        self.health.begin(Role::Starting);
        let handle = task::start(Arc::new(connector), Arc::clone(&self.worker), beginning);
        let dead_letters = handle.dead_letters();
        self.progress.send_modify(|progress| progress.dead_letters = dead_letters);
        let (storage, written) = (Arc::clone(&self.storage), handle.written());
        let records = TaskRecords::follow(&self.name, key, written, storage, &self.worker);
        // RUNNING is told when it streams: an event that is written after that is not missed.
        Ok(Running { states: handle.subscribe(), handle, told: TaskState::Starting, records })
    }

    /// A failed task stays failed through a pause; only a restart or another configuration helps it.
    async fn pause(&mut self, desired: &Desired, restart_task: bool) {
        if self.connector != Some(State::Paused) {
            self.tell_connector(State::Paused, None);
        }
        let Some(committed) = &desired.committed else {
            self.health.begin(Role::Paused);
            return self.end_task().await;
        };
        match &self.task {
            Some(Task { phase: Phase::Failed, .. }) if !restart_task => return,
            Some(Task { phase: Phase::Paused, .. }) if !restart_task => return,
            _ => {}
        }
        self.halt().await;
        self.task = Some(Task { properties: committed.clone(), phase: Phase::Paused });
        self.health.begin(Role::Paused);
        self.tell_task(State::Paused, None);
    }

    async fn stop(&mut self, desired: &Desired) {
        if self.connector != Some(State::Stopped) {
            self.tell_connector(State::Stopped, None);
        }
        self.end_task().await;
        self.health.begin(Role::Paused);
        self.progress.send_modify(|progress| progress.is_stopped = true);
        if desired.committed.is_some() {
            // The stop took the task away, and this supervisor, which was starting it, put it back.
            let written = self.storage.write_config(commit_record(&self.name, 0)).await;
            self.retry = written.is_err();
        }
    }

    /// Stops the task and removes its status; the record of a task from before this process, too.
    async fn end_task(&mut self) {
        let known = self.storage.statuses().task(&self.name, TASK).is_some();
        if self.task.is_none() && !known {
            return;
        }
        self.halt().await;
        self.tell_task(State::Unassigned, None);
        let key = StatusKey::Task(self.name.clone(), TASK);
        self.storage.write_status(&key, None);
        // Otherwise it would be told once more to have ended.
        self.task = None;
    }

    async fn remove(&mut self) {
        self.tell_connector(State::Unassigned, None);
        self.end_task().await;
        self.forget_topics();
        let tasks: Vec<u32> = self.storage.statuses().tasks(&self.name).map(|(id, _)| id).collect();
        for id in tasks {
            let key = StatusKey::Task(self.name.clone(), id);
            self.storage.write_status(&key, None);
        }
        let key = StatusKey::Connector(self.name.clone());
        self.storage.write_status(&key, None);
        self.connector = None;
        tracing::info!(connector.name = self.name, "connector removed");
    }

    fn forget_topics(&self) {
        let topics: Vec<String> = self.storage.statuses().topics(&self.name).cloned().collect();
        for topic in topics {
            let key = StatusKey::Topic { connector: self.name.clone(), topic };
            self.storage.write_status(&key, None);
        }
    }

    /// Takes in what the task says of itself.
    async fn note(&mut self, state: TaskState) {
        let trace = match state {
            TaskState::Starting => return,
            // Of several workers with the same topics one streams and says so; the others stand by in silence.
            TaskState::StandingBy { .. } if self.another_told_last() => return,
            // That another one runs it, as it once said, is not known to be true any more. It says so again if it is.
            TaskState::StandingBy { reason } | TaskState::Waiting { reason } => {
                return self.tell_task(State::Unassigned, Some(format!("waiting: {reason}")));
            }
            TaskState::Running => return self.claim(),
            TaskState::Failed { trace } => trace,
            TaskState::Stopped => "the task stopped without being asked to".to_owned(),
        };
        tracing::error!(
            connector.name = self.name,
            trace,
            "the task failed; correct the cause and restart it"
        );
        self.halt().await;
        if let Some(task) = &mut self.task {
            task.phase = Phase::Failed;
        }
        self.fail(trace);
    }

    /// Stops the task if it runs; it is paused then. True: it was drained in time, or there was nothing to drain.
    async fn halt(&mut self) -> bool {
        let Some(task) = &mut self.task else { return true };
        let Phase::Running(running) = std::mem::replace(&mut task.phase, Phase::Paused) else {
            return true;
        };
        self.progress.send_modify(|progress| progress.dead_letters = None);
        let begun = Instant::now();
        // It has a bound of its own.
        let drained = running.handle.stop().await;
        running.records.finish().await;
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        if drained {
            tracing::info!(connector.name = self.name, took_ms, "task drained and stopped");
        } else {
            tracing::warn!(
                connector.name = self.name,
                took_ms,
                "task not drained in time, given up"
            );
        }
        drained
    }

    async fn drain(mut self) {
        let stands_by = matches!(self.health.role(), Role::StandingBy { .. });
        self.halt().await;
        // One that stood by leaves the other's RUNNING alone.
        let stood_by = self.another_runs_it() || (stands_by && self.another_told_last());
        if self.task.is_some() && !stood_by {
            self.tell_task(State::Unassigned, None);
        }
        if self.connector.is_some() && !stood_by {
            self.tell_connector(State::Unassigned, None);
        }
    }

    fn connector_config(&self, task: &Properties) -> Result<ConnectorConfig, String> {
        let mut resolved = Providers::new(&self.worker).resolve(task)?;
        resolved.remove(TASK_CLASS);
        // Kafka Connect lets a PATCH change the `name` in a configuration; the connector keeps its own.
        resolved.insert("name".to_owned(), self.name.clone());
        ConnectorConfig::parse(&resolved, &self.worker).map_err(|errors| problems(&errors))
    }
}

const TASK_CLASS: &str = "task.class";

/// The connector's configuration as its task has it.
fn task_properties(properties: &Properties) -> Properties {
    let mut task = properties.clone();
    task.insert(TASK_CLASS.to_owned(), Some(plugins::TASK_CLASS.to_owned()));
    task
}

/// Kafka Connect takes a null and then cannot start the connector with it.
fn null_option(properties: &Properties) -> Option<String> {
    let (option, _) = properties.iter().find(|(_, value)| value.is_none())?;
    Some(format!("Option {option} is null; remove the option or give it a value"))
}

fn problems(errors: &[OptionError]) -> String {
    let problem = |error: &OptionError| format!("{}: {}", error.option, error.message);
    errors.iter().map(problem).collect::<Vec<_>>().join("\n")
}

/// Waits for a state of a running task that was not told yet; for ever when none runs.
async fn task_changed(task: &mut Option<Task>) -> TaskState {
    let Some(Task { phase: Phase::Running(running), .. }) = task else {
        return std::future::pending().await;
    };
    let Running { states, told, .. } = running;
    loop {
        // A task may have failed before anybody looked.
        let state = states.borrow_and_update().clone();
        if state != *told {
            told.clone_from(&state);
            return state;
        }
        if states.changed().await.is_err() {
            let trace =
                "the task ended without a word, as it does after a panic; see the log".to_owned();
            return TaskState::Failed { trace };
        }
    }
}
