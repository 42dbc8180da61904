//! The JSON shapes of the REST API, fields in Kafka Connect's order.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::storage::{Properties, State, Status};

/// A connector as `GET /connectors/{name}` shows it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ConnectorInfo {
    pub(super) name: String,
    pub(super) config: Properties,
    pub(super) tasks: Vec<TaskId>,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct TaskId {
    pub(super) connector: String,
    pub(super) task: u32,
}

/// A task with its configuration.
#[derive(Debug, Clone, Serialize)]
pub(super) struct TaskInfo {
    pub(super) id: TaskId,
    pub(super) config: Properties,
}

/// The states of a connector and its tasks.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ConnectorStatus {
    pub(super) name: String,
    pub(super) connector: StateInfo,
    pub(super) tasks: Vec<TaskStateInfo>,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct StateInfo {
    pub(super) state: State,
    pub(super) worker_id: String,
    pub(super) version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trace: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct TaskStateInfo {
    pub(super) id: u32,
    #[serde(flatten)]
    pub(super) info: StateInfo,
}

impl From<&Status> for StateInfo {
    fn from(status: &Status) -> Self {
        Self {
            state: status.state,
            worker_id: status.worker_id.clone(),
            version: status.version.clone(),
            trace: status.trace.clone().filter(|trace| !trace.is_empty()),
        }
    }
}

/// The source offsets of a connector.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ConnectorOffsets {
    pub(super) offsets: Vec<ConnectorOffset>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct ConnectorOffset {
    pub(super) partition: Value,
    pub(super) offset: Value,
}

/// Connector -> the topics it wrote to.
pub(super) type ActiveTopics = BTreeMap<String, TopicList>;

#[derive(Debug, Clone, Serialize)]
pub(super) struct TopicList {
    pub(super) topics: Vec<String>,
}
