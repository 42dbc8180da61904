//! The status topic's records: states of connectors and tasks, and the topics that a connector wrote to. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

const CONNECTOR: &str = "status-connector-";
const TASK: &str = "status-task-";
const TOPIC: &str = "status-topic-";
/// Between topic and connector in a key; no topic name holds a colon.
const TOPIC_CONNECTOR: &str = ":connector-";

/// What a connector or task is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(in crate::connect) enum State {
    Unassigned,
    Running,
    Paused,
    Stopped,
    Failed,
    Restarting,
    Destroyed,
}

/// The state of a connector or task as it is stored, fields in Kafka Connect's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::connect) struct Status {
    pub(in crate::connect) state: State,
    #[serde(default)]
    pub(in crate::connect) trace: Option<String>,
    pub(in crate::connect) worker_id: String,
    #[serde(default)]
    pub(in crate::connect) generation: i32,
    #[serde(default)]
    pub(in crate::connect) version: Option<String>,
}

/// Whose status a record tells.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::connect) enum StatusKey {
    Connector(String),
    Task(String, u32),
    Topic { connector: String, topic: String },
}

impl StatusKey {
    /// The record's key.
    pub(in crate::connect) fn to_text(&self) -> String {
        match self {
            Self::Connector(name) => format!("{CONNECTOR}{name}"),
            Self::Task(name, id) => format!("{TASK}{name}-{id}"),
            Self::Topic { connector, topic } => {
                format!("{TOPIC}{topic}{TOPIC_CONNECTOR}{connector}")
            }
        }
    }

    fn parse(key: &str) -> Option<Self> {
        if let Some(name) = key.strip_prefix(CONNECTOR) {
            Some(Self::Connector(name.to_owned()))
        } else if let Some(rest) = key.strip_prefix(TASK) {
            let (name, id) = rest.rsplit_once('-')?;
            Some(Self::Task(name.to_owned(), id.parse().ok()?))
        } else {
            let (topic, connector) = key.strip_prefix(TOPIC)?.split_once(TOPIC_CONNECTOR)?;
            Some(Self::Topic { connector: connector.to_owned(), topic: topic.to_owned() })
        }
    }
}

/// The value of a record that tells that a connector writes to a topic; the task is its only one.
pub(in crate::connect) fn topic_value(connector: &str, topic: &str, now_ms: i64) -> Vec<u8> {
    let text = |text: &str| Value::from(text).to_string();
    // Fields in Kafka Connect's order.
    let value = format!(
        r#"{{"topic":{{"name":{},"connector":{},"task":0,"discoverTimestamp":{now_ms}}}}}"#,
        text(topic),
        text(connector)
    );
    value.into_bytes()
}

/// What all records of the status topic amount to.
#[derive(Debug, Default)]
pub(in crate::connect) struct StatusState {
    connectors: BTreeMap<String, Status>,
    tasks: BTreeMap<String, BTreeMap<u32, Status>>,
    topics: BTreeMap<String, BTreeMap<String, ()>>,
    generation: i32,
}

impl StatusState {
    pub(in crate::connect) fn connector(&self, name: &str) -> Option<&Status> {
        self.connectors.get(name)
    }

    pub(in crate::connect) fn tasks(&self, name: &str) -> impl Iterator<Item = (u32, &Status)> {
        self.tasks.get(name).into_iter().flatten().map(|(id, status)| (*id, status))
    }

    pub(in crate::connect) fn task(&self, name: &str, id: u32) -> Option<&Status> {
        self.tasks.get(name)?.get(&id)
    }

    pub(in crate::connect) fn writes_to(&self, name: &str, topic: &str) -> bool {
        self.topics.get(name).is_some_and(|topics| topics.contains_key(topic))
    }

    pub(in crate::connect) fn topics(&self, name: &str) -> impl Iterator<Item = &String> {
        self.topics.get(name).into_iter().flat_map(BTreeMap::keys)
    }

    /// The group generation to write: the highest that was read. A Connect worker that takes over ignores the statuses
    /// of generations after its own in some places, so ours must not run ahead.
    pub(in crate::connect) fn generation(&self) -> i32 {
        self.generation.max(1)
    }

    /// Takes the next record of the topic.
    ///
    /// # Errors
    /// Why the record cannot be read; it is skipped.
    pub(in crate::connect) fn apply(
        &mut self,
        key: &str,
        value: Option<&[u8]>,
    ) -> Result<(), String> {
        let key = StatusKey::parse(key).ok_or_else(|| "unknown key".to_owned())?;
        match key {
            StatusKey::Topic { connector, topic } => {
                let topics = self.topics.entry(connector).or_default();
                match value {
                    Some(_) => topics.insert(topic, ()),
                    None => topics.remove(&topic),
                };
            }
            StatusKey::Connector(name) => match self.read(value)? {
                Some(status) => drop(self.connectors.insert(name, status)),
                None => drop(self.connectors.remove(&name)),
            },
            StatusKey::Task(name, id) => match self.read(value)? {
                Some(status) => drop(self.tasks.entry(name).or_default().insert(id, status)),
                None => drop(self.tasks.get_mut(&name).and_then(|tasks| tasks.remove(&id))),
            },
        }
        Ok(())
    }

    fn read(&mut self, value: Option<&[u8]>) -> Result<Option<Status>, String> {
        let Some(value) = value else { return Ok(None) };
        let status: Status = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        self.generation = self.generation.max(status.generation);
        Ok((status.state != State::Destroyed).then_some(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: &str = r#"{"state":"RUNNING","trace":null,"worker_id":"w:8083","generation":7,"version":"3.7.0.Final"}"#;

    #[test]
    fn statuses_read_as_written_by_kafka_connect_and_go_with_tombstones() {
        let mut state = StatusState::default();
        state.apply("status-connector-a-1", Some(RUNNING.as_bytes())).unwrap();
        state.apply("status-task-a-1-0", Some(RUNNING.as_bytes())).unwrap();
        assert_eq!(serde_json::to_string(state.connector("a-1").unwrap()).unwrap(), RUNNING);
        assert_eq!(state.task("a-1", 0).unwrap().state, State::Running);
        assert_eq!(state.generation(), 7);
        state.apply("status-task-a-1-0", None).unwrap();
        state.apply("status-connector-a-1", None).unwrap();
        assert!(state.connector("a-1").is_none());
        assert_eq!(state.tasks("a-1").count(), 0);
    }

    #[test]
    fn topics_in_use_come_and_go() {
        let mut state = StatusState::default();
        let key = StatusKey::Topic { connector: "c".into(), topic: "OrderEvents".into() }.to_text();
        assert_eq!(key, "status-topic-OrderEvents:connector-c");
        let value =
            r#"{"topic":{"name":"OrderEvents","connector":"c","task":0,"discoverTimestamp":5}}"#;
        assert_eq!(topic_value("c", "OrderEvents", 5), value.as_bytes());
        state.apply(&key, Some(value.as_bytes())).unwrap();
        assert!(state.writes_to("c", "OrderEvents") && !state.writes_to("c", "other"));
        assert_eq!(state.topics("c").collect::<Vec<_>>(), ["OrderEvents"]);
        state.apply(&key, None).unwrap();
        assert_eq!(state.topics("c").count(), 0);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let mut state = StatusState::default();
        assert!(state.apply("stranger", None).is_err());
        assert!(state.apply("status-task-c", Some(RUNNING.as_bytes())).is_err());
        assert!(state.apply("status-connector-c", Some(b"{")).is_err());
    }
}
