//! The one place that owns connectors: every call of the REST API is a method here.
//!
//! Changes are written to the config topic and take effect when they are read back from it, so that a change by another
//! worker on the same topics takes effect in the same way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::entities::{ConnectorInfo, ConnectorStatus, StateInfo, TaskId, TaskInfo, TaskStateInfo};
use super::error::ConnectError;
use super::log_levels::LogLevels;
use super::secrets;
use super::storage::{
    ConfigChange, Properties, Record, State, Storage, TargetState, WriteError, commit_record,
    connector_record, removal_records, restart_record, target_state_record,
};
use super::supervisor::{Desired, Events, Progress, Supervisor, TASK};
use super::validation;
use crate::config::WorkerConfig;
use crate::health::{self, Health};

/// Each connector costs connections, a producer and memory; far more than this on one worker is a mistake.
const CONNECTORS_MAX: usize = 100;
/// How long statuses of the end may take to be written when the process stops: milliseconds, unless Kafka is away.
const LAST_STATUSES_TIMEOUT: Duration = Duration::from_secs(2);
/// On top of the tasks' own bound, for a supervisor to say that its task was not drained.
const SUPERVISOR_GRACE: Duration = Duration::from_secs(2);
/// For the statuses to tell of a restart; a supervisor that is draining a task tells later.
const ANNOUNCED_MAX: Duration = Duration::from_secs(2);

/// Kafka Connect's word for connectors like Debezium's.
pub(super) const SOURCE: &str = "source";

/// Owns the connectors of this worker.
pub(super) struct Herder {
    pub(super) worker: Arc<WorkerConfig>,
    pub(super) storage: Arc<Storage>,
    pub(super) log_levels: LogLevels,
    pub(super) registry: Arc<Registry>,
    /// One change at a time, so that a check still holds when what it allowed is written.
    pub(super) turn: tokio::sync::Mutex<()>,
    supervisors: TaskTracker,
    shutdown: CancellationToken,
}

/// The wishes that supervisors follow.
#[derive(Default)]
pub(super) struct Registry(Mutex<BTreeMap<String, Supervised>>);

/// The two ends of a supervisor.
struct Supervised {
    desired: watch::Sender<Desired>,
    progress: watch::Receiver<Progress>,
    health: Arc<Health>,
}

impl Registry {
    /// Forgets a connector that is gone, unless it has come back meanwhile. False: there is more to do.
    pub(super) fn retire(&self, name: &str, desired: &watch::Receiver<Desired>) -> bool {
        let mut supervised = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if desired.has_changed().unwrap_or(false) {
            return false;
        }
        supervised.remove(name);
        true
    }

    /// The health of every connector, by name.
    pub(super) fn health(&self) -> Vec<(String, health::State)> {
        let supervised = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        supervised.iter().map(|(name, one)| (name.clone(), one.health.look())).collect()
    }

    pub(super) fn progress(&self, name: &str) -> Option<watch::Receiver<Progress>> {
        let supervised = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        supervised.get(name).map(|supervised| supervised.progress.clone())
    }
}

impl Herder {
    /// Reads the storage topics and starts what they say should run.
    pub(super) async fn start(
        worker: Arc<WorkerConfig>,
        log_levels: LogLevels,
    ) -> anyhow::Result<Arc<Self>> {
        let (storage, changes) = Storage::open(&worker).await?;
        let herder = Arc::new(Self {
            worker,
            storage: Arc::new(storage),
            log_levels,
            registry: Arc::default(),
            turn: tokio::sync::Mutex::default(),
            supervisors: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        });
        let names = herder.names();
        tracing::info!(connector.count = names.len(), "storage topics read");
        for name in names {
            herder.refresh(&name, |_| {});
        }
        tokio::spawn(Arc::clone(&herder).follow(changes));
        // Nothing here needs the key, so nothing waits for it.
        let storage = Arc::clone(&herder.storage);
        tokio::spawn(async move { storage.write_session_key().await });
        Ok(herder)
    }

    /// Stops all tasks in parallel, within the worker's bound.
    pub(super) async fn stop(&self) {
        let count = self.supervisors.len();
        self.shutdown.cancel();
        self.supervisors.close();
        let bound = self.worker.shutdown_timeout + SUPERVISOR_GRACE;
        let in_time = tokio::time::timeout(bound, self.supervisors.wait()).await.is_ok();
        let flushed = tokio::time::timeout(LAST_STATUSES_TIMEOUT, self.storage.flush_statuses());
        let flushed = flushed.await.is_ok();
        tracing::info!(
            connector.count = count,
            in_time,
            statuses_written = flushed,
            "connectors stopped"
        );
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.storage.config().names().cloned().collect()
    }

    pub(super) fn properties(&self, name: &str) -> Result<Properties, ConnectError> {
        let config = self.storage.config();
        config.properties(name).cloned().ok_or_else(|| not_found(name))
    }

    /// A configuration for an answer.
    pub(super) fn shown(&self, properties: &Properties) -> Properties {
        match self.worker.show_passwords {
            true => properties.clone(),
            false => secrets::masked(properties),
        }
    }

    pub(super) fn info(&self, name: &str) -> Result<ConnectorInfo, ConnectError> {
        let config = self.storage.config();
        let properties = config.properties(name).ok_or_else(|| not_found(name))?;
        let task = |(task, _)| TaskId { connector: name.to_owned(), task };
        Ok(ConnectorInfo {
            name: name.to_owned(),
            config: self.shown(properties),
            tasks: config.tasks(name).map(task).collect(),
            kind: SOURCE,
        })
    }

    pub(super) fn tasks(&self, name: &str) -> Result<Vec<TaskInfo>, ConnectError> {
        let config = self.storage.config();
        config.properties(name).ok_or_else(|| not_found(name))?;
        let info = |(task, properties): (u32, &Properties)| TaskInfo {
            id: TaskId { connector: name.to_owned(), task },
            config: self.shown(properties),
        };
        Ok(config.tasks(name).map(info).collect())
    }

    pub(super) fn status(&self, name: &str) -> Result<ConnectorStatus, ConnectError> {
        let statuses = self.storage.statuses();
        let connector = statuses.connector(name).ok_or_else(|| {
            ConnectError::not_found(format!("No status found for connector {name}"))
        })?;
        let task = |(id, status)| TaskStateInfo { id, info: StateInfo::from(status) };
        Ok(ConnectorStatus {
            name: name.to_owned(),
            connector: connector.into(),
            tasks: statuses.tasks(name).map(task).collect(),
            kind: SOURCE,
        })
    }

    pub(super) fn task_status(&self, name: &str, id: u32) -> Result<TaskStateInfo, ConnectError> {
        let statuses = self.storage.statuses();
        let status = statuses.task(name, id).ok_or_else(|| {
            ConnectError::not_found(format!("No status found for task {name}-{id}"))
        })?;
        Ok(TaskStateInfo { id, info: status.into() })
    }

    /// Creates a connector, or configures it again where that is allowed. True: it was created.
    pub(super) async fn put(
        &self,
        name: &str,
        mut properties: Properties,
        target: Option<TargetState>,
        may_replace: bool,
    ) -> Result<(bool, ConnectorInfo), ConnectError> {
        let stored = self.storage.config().properties(name).cloned();
        secrets::restore(&mut properties, stored.as_ref())?;
        self.check(&properties).await?;
        let _turn = self.turn.lock().await;
        let exists = self.storage.config().properties(name).is_some();
        if exists && !may_replace {
            return Err(ConnectError::conflict(format!("Connector {name} already exists")));
        }
        self.store(name, &properties, target).await?;
        let mut info = self.info(name)?;
        if !exists {
            // Its task is made from now on, by the supervisor; the answer does not race with it.
            info.tasks.clear();
        }
        Ok((!exists, info))
    }

    /// Stores a configuration that has been checked; the caller has the turn.
    pub(super) async fn store(
        &self,
        name: &str,
        properties: &Properties,
        target: Option<TargetState>,
    ) -> Result<(), ConnectError> {
        let (exists, count) = {
            let config = self.storage.config();
            (config.properties(name).is_some(), config.names().count())
        };
        if !exists && count >= CONNECTORS_MAX {
            return Err(ConnectError::bad_request(format!(
                "This worker has {CONNECTORS_MAX} connectors, which is its limit; delete one or use another worker"
            )));
        }
        if let Some(target) = target {
            self.write(target_state_record(name, target)).await?;
        }
        self.write(connector_record(name, properties)).await
    }

    /// Merges a patch into the configuration; null removes an option.
    pub(super) async fn patch(
        &self,
        name: &str,
        mut patch: Properties,
    ) -> Result<ConnectorInfo, ConnectError> {
        let mut properties = self.properties(name)?;
        secrets::restore(&mut patch, Some(&properties))?;
        for (option, value) in patch {
            match value {
                Some(value) => properties.insert(option, Some(value)),
                None => properties.remove(&option),
            };
        }
        self.check(&properties).await?;
        let _turn = self.turn.lock().await;
        self.properties(name)?;
        self.store(name, &properties, None).await?;
        self.info(name)
    }

    pub(super) async fn delete(&self, name: &str) -> Result<(), ConnectError> {
        let _turn = self.turn.lock().await;
        self.properties(name)?;
        for record in removal_records(name) {
            self.write(record).await?;
        }
        Ok(())
    }

    pub(super) async fn pause(&self, name: &str) -> Result<(), ConnectError> {
        self.set_target(name, TargetState::Paused).await
    }

    pub(super) async fn resume(&self, name: &str) -> Result<(), ConnectError> {
        self.set_target(name, TargetState::Started).await
    }

    pub(super) async fn stop_connector(&self, name: &str) -> Result<(), ConnectError> {
        self.set_target(name, TargetState::Stopped).await
    }

    async fn set_target(&self, name: &str, target: TargetState) -> Result<(), ConnectError> {
        let _turn = self.turn.lock().await;
        if self.storage.config().properties(name).is_none() {
            return Err(ConnectError::not_found(format!("Unknown connector {name}")));
        }
        if target == TargetState::Stopped {
            self.write(commit_record(name, 0)).await?;
        }
        self.write(target_state_record(name, target)).await
    }

    /// Restarts the connector alone.
    pub(super) fn restart(&self, name: &str) -> Result<(), ConnectError> {
        self.check_known(name)?;
        self.refresh(name, |events| events.connector_restarts += 1);
        Ok(())
    }

    pub(super) async fn restart_task(&self, name: &str, id: u32) -> Result<(), ConnectError> {
        self.check_known(name)?;
        if !self.storage.config().tasks(name).any(|(task, _)| task == id) {
            return Err(ConnectError::not_found(format!("Unknown task: {name}-{id}")));
        }
        let ours = self.worker.advertised.to_string();
        let elsewhere =
            self.storage.statuses().task(name, id).is_some_and(|told| told.worker_id != ours);
        if elsewhere {
            // Another worker has the task. What is written to the topic reaches it, and this one as well.
            let _turn = self.turn.lock().await;
            return self.write(restart_record(name, true, false)).await;
        }
        self.refresh(name, |events| events.task_restarts += 1);
        Ok(())
    }

    /// Restarts the connector and perhaps its tasks; answers with the states as they will be at once.
    pub(super) async fn restart_all(
        &self,
        name: &str,
        include_tasks: bool,
        only_failed: bool,
    ) -> Result<ConnectorStatus, ConnectError> {
        let turn = self.turn.lock().await;
        self.check_known(name)?;
        let Ok(mut status) = self.status(name) else {
            let message = format!("Status for connector {name} not found");
            return Err(ConnectError::not_found(message));
        };
        let mut restarting = false;
        if restarts(status.connector.state, only_failed) {
            status.connector.state = State::Restarting;
            restarting = true;
        }
        for task in &mut status.tasks {
            if include_tasks && restarts(task.info.state, only_failed) {
                task.info.state = State::Restarting;
                restarting = true;
            }
        }
        let progress = self.registry.progress(name);
        self.write(restart_record(name, include_tasks, only_failed)).await?;
        drop(turn);
        if let Some(progress) = progress.filter(|_| restarting) {
            self.wait_until_announced(progress).await;
        }
        Ok(status)
    }

    /// Waits until the statuses tell of the restart: whoever asks next and waits for RUNNING must not see what was
    /// before it.
    async fn wait_until_announced(&self, mut progress: watch::Receiver<Progress>) {
        let before = progress.borrow_and_update().announced;
        let told = async {
            // An error: the connector is gone, and its statuses with it.
            let _ = progress.wait_for(|now| now.announced > before).await;
            self.storage.flush_statuses().await;
        };
        let _ = tokio::time::timeout(ANNOUNCED_MAX, told).await;
    }

    pub(super) fn check_known(&self, name: &str) -> Result<(), ConnectError> {
        match self.storage.config().properties(name) {
            Some(_) => Ok(()),
            None => Err(ConnectError::not_found(format!("Unknown connector: {name}"))),
        }
    }

    pub(super) async fn write(&self, record: Record) -> Result<(), ConnectError> {
        self.storage.write_config(record).await.map_err(not_written)
    }

    async fn check(&self, properties: &Properties) -> Result<(), ConnectError> {
        validation::check_class(properties, self.worker.show_passwords)?;
        let checked = validation::check_with_database(properties, &self.worker).await;
        match checked.is_empty() {
            true => Ok(()),
            false => Err(validation::refusal(&checked)),
        }
    }

    /// Takes in what was read from the config topic, whoever wrote it.
    async fn follow(self: Arc<Self>, mut changes: mpsc::UnboundedReceiver<ConfigChange>) {
        loop {
            let change = tokio::select! {
                () = self.shutdown.cancelled() => return,
                change = changes.recv() => change,
            };
            let Some(change) = change else { return };
            // A call may write several records; they take effect together.
            let _turn = self.turn.lock().await;
            match change {
                ConfigChange::Configured(name) => {
                    self.refresh(&name, |events| events.configured += 1);
                }
                ConfigChange::Removed(name) => self.refresh(&name, |events| events.removed += 1),
                ConfigChange::Adjusted(name) => self.refresh(&name, |_| {}),
                ConfigChange::Restart { name, include_tasks, only_failed } => {
                    self.begin_restart(&name, include_tasks, only_failed);
                }
                ConfigChange::Logger { name, level } => {
                    if let Err(error) = self.log_levels.set(&name, &level) {
                        tracing::warn!(logger.name = name, %error, "the log level is not set");
                    }
                }
                ConfigChange::Nothing | ConfigChange::Malformed(_) => {}
            }
        }
    }

    fn begin_restart(&self, name: &str, include_tasks: bool, only_failed: bool) {
        let (connector, task) = {
            let statuses = self.storage.statuses();
            let connector = statuses.connector(name).map(|status| status.state);
            (connector, statuses.task(name, TASK).map(|status| status.state))
        };
        let connector = connector.is_some_and(|state| restarts(state, only_failed));
        let task = include_tasks && task.is_some_and(|state| restarts(state, only_failed));
        if connector || task {
            self.refresh(name, |events| {
                events.announced += 1;
                events.connector_restarts += u64::from(connector);
                events.task_restarts += u64::from(task);
            });
        }
    }

    /// Tells a connector's supervisor what is wanted now; starts one where there is none.
    fn refresh(&self, name: &str, count: impl FnOnce(&mut Events)) {
        let (properties, target, committed) = {
            let config = self.storage.config();
            let committed = config.tasks(name).find(|(id, _)| *id == TASK);
            let committed = committed.map(|(_, properties)| properties.clone());
            (config.properties(name).cloned(), config.target_state(name), committed)
        };
        let mut supervised = self.registry.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(supervised) = supervised.get(name) {
            supervised.desired.send_modify(|desired| {
                (desired.properties, desired.target, desired.committed) =
                    (properties, target, committed);
                count(&mut desired.events);
            });
        } else if properties.is_some() {
            let events = Events::default();
            let (sender, desired) =
                watch::channel(Desired { properties, target, committed, events });
            let (tell, progress) = watch::channel(Progress::default());
            let health = Arc::new(Health::default());
            let told = Arc::clone(&health);
            supervised
                .insert(name.to_owned(), Supervised { desired: sender, progress, health: told });
            let (worker, storage) = (Arc::clone(&self.worker), Arc::clone(&self.storage));
            let shutdown = self.shutdown.child_token();
            let supervisor =
                Supervisor::new(name, worker, storage, desired, tell, health, shutdown);
            self.supervisors.spawn(supervisor.run(Arc::clone(&self.registry)));
        }
    }
}

pub(super) fn not_found(name: &str) -> ConnectError {
    ConnectError::not_found(format!("Connector {name} not found"))
}

pub(super) fn not_written(error: WriteError) -> ConnectError {
    tracing::error!(%error, "a change was not stored");
    ConnectError::internal(format!("The change was not stored: {error}"))
}

fn restarts(state: State, only_failed: bool) -> bool {
    !only_failed || state == State::Failed
}
