//! What a supervisor says of its connector in the status topic, and when it says it again.

use std::time::{Duration, Instant};

use super::{Phase, Supervisor, TASK, Task};
use crate::connect::plugins;
use crate::connect::storage::{State, Status, StatusKey, Storage};
use crate::health::Role;
use crate::task::TaskState;

/// The shortest time between two claims of a task that streams: of two workers that both believe that they stream, as
/// one does that has not heard yet that its connection is lost, neither floods the status topic.
const CLAIM_INTERVAL: Duration = Duration::from_secs(2);

impl Supervisor {
    pub(super) fn fail(&self, trace: String) {
        let reason = trace.lines().next().unwrap_or_default().to_owned();
        self.health.begin(Role::Failed { reason });
        self.tell_task(State::Failed, Some(trace));
    }

    /// Says that this worker runs connector and task.
    pub(super) fn claim(&mut self) {
        self.claimed_at = Some(Instant::now());
        self.tell_task(State::Running, None);
        let told = self.storage.statuses().connector(&self.name).cloned();
        if told.is_none_or(|told| told.worker_id != self.worker.advertised.to_string()) {
            self.tell_connector(State::Running, None);
        }
    }

    /// When to say again that this task streams: another worker, which stopped or lost its database, has told of it
    /// last.
    pub(super) fn claim_due(&mut self) -> Option<Duration> {
        self.status_changes.mark_unchanged();
        let Some(Task { phase: Phase::Running(running), .. }) = &self.task else { return None };
        let streams = running.told == TaskState::Running && self.health.role() == Role::Streaming;
        let claimed_at = self.claimed_at.filter(|_| streams && self.another_told_last())?;
        Some(CLAIM_INTERVAL.saturating_sub(claimed_at.elapsed()))
    }

    /// Whether the task's last status is another worker's.
    pub(super) fn another_told_last(&self) -> bool {
        let ours = self.worker.advertised.to_string();
        let statuses = self.storage.statuses();
        statuses.task(&self.name, TASK).is_some_and(|told| told.worker_id != ours)
    }

    pub(super) fn another_runs_it(&self) -> bool {
        runs_elsewhere(&self.storage, &self.name, &self.worker.advertised.to_string())
    }

    pub(super) fn tell_connector(&mut self, state: State, trace: Option<String>) {
        self.connector = Some(state);
        let status = self.status(state, trace);
        let key = StatusKey::Connector(self.name.clone());
        self.storage.write_status(&key, Some(&status));
    }

    pub(super) fn tell_task(&self, state: State, trace: Option<String>) {
        let mut status = self.status(state, trace);
        if state == State::Failed {
            status.version = Some(plugins::DEBEZIUM_VERSION.to_owned());
        }
        let key = StatusKey::Task(self.name.clone(), TASK);
        self.storage.write_status(&key, Some(&status));
    }

    fn status(&self, state: State, trace: Option<String>) -> Status {
        let running = matches!(state, State::Running | State::Paused | State::Stopped);
        Status {
            state,
            trace,
            worker_id: self.worker.advertised.to_string(),
            generation: self.storage.statuses().generation(),
            version: running.then(|| plugins::DEBEZIUM_VERSION.to_owned()),
        }
    }
}

/// Whether another worker says that it runs the task.
pub(super) fn runs_elsewhere(storage: &Storage, name: &str, ours: &str) -> bool {
    let statuses = storage.statuses();
    let told = statuses.task(name, TASK);
    told.is_some_and(|told| told.state == State::Running && told.worker_id != ours)
}
