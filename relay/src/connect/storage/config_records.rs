//! The config topic's records, and what they amount to: connectors, target states and committed task configurations.
//!
//! Pure. The rules are those of Kafka's `KafkaConfigBackingStore`, as its records show them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::properties::Properties;

const CONNECTOR: &str = "connector-";
const TARGET_STATE: &str = "target-state-";
const TASK: &str = "task-";
const COMMIT: &str = "commit-";
const RESTART: &str = "restart-connector-";
const LOGGER: &str = "logger-cluster-";
const SESSION_KEY: &str = "session-key";
const TASKS_FENCING: &str = "tasks-fencing-";

/// What the user wants a connector to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(in crate::connect) enum TargetState {
    #[default]
    Started,
    Paused,
    Stopped,
}

/// What a record changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::connect) enum ConfigChange {
    /// A connector was created or configured again.
    Configured(String),
    /// A connector is gone.
    Removed(String),
    /// Target state or committed tasks of a connector changed.
    Adjusted(String),
    /// Somebody asked for a restart.
    Restart { name: String, include_tasks: bool, only_failed: bool },
    /// Somebody set a log level for the whole cluster.
    Logger { name: String, level: String },
    /// Nothing that concerns this worker.
    Nothing,
    /// The record cannot be read; it is skipped.
    Malformed(String),
}

/// What all records of the config topic amount to.
#[derive(Debug, Default)]
pub(in crate::connect) struct ConfigState {
    connectors: BTreeMap<String, Properties>,
    target_states: BTreeMap<String, TargetState>,
    tasks_written: BTreeMap<String, BTreeMap<u32, Properties>>,
    tasks_committed: BTreeMap<String, BTreeMap<u32, Properties>>,
    has_session_key: bool,
}

impl ConfigState {
    pub(in crate::connect) fn names(&self) -> impl Iterator<Item = &String> {
        self.connectors.keys()
    }

    pub(in crate::connect) fn properties(&self, name: &str) -> Option<&Properties> {
        self.connectors.get(name)
    }

    pub(in crate::connect) fn target_state(&self, name: &str) -> TargetState {
        self.target_states.get(name).copied().unwrap_or_default()
    }

    /// The task configurations that are valid together; empty when there are none or they are incomplete.
    pub(in crate::connect) fn tasks(&self, name: &str) -> impl Iterator<Item = (u32, &Properties)> {
        let known = self.connectors.contains_key(name);
        let tasks = self.tasks_committed.get(name).filter(|_| known);
        tasks.into_iter().flatten().map(|(id, properties)| (*id, properties))
    }

    pub(in crate::connect) fn has_session_key(&self) -> bool {
        self.has_session_key
    }

    /// Takes the next record of the topic.
    pub(in crate::connect) fn apply(&mut self, key: &str, value: Option<&[u8]>) -> ConfigChange {
        let value = match value.map(serde_json::from_slice::<Value>).transpose() {
            Ok(value) => value.filter(|value| !value.is_null()),
            Err(error) => return ConfigChange::Malformed(error.to_string()),
        };
        if let Some(name) = key.strip_prefix(TARGET_STATE) {
            self.apply_target_state(name, value)
        } else if let Some(name) = key.strip_prefix(CONNECTOR) {
            self.apply_connector(name, value)
        } else if let Some(name) = key.strip_prefix(COMMIT) {
            self.apply_commit(name, value)
        } else if let Some(rest) = key.strip_prefix(RESTART) {
            restart(rest, value)
        } else if let Some(name) = key.strip_prefix(LOGGER) {
            logger(name, value)
        } else if key.starts_with(TASKS_FENCING) {
            ConfigChange::Nothing
        } else if let Some(rest) = key.strip_prefix(TASK) {
            self.apply_task(rest, value)
        } else if key == SESSION_KEY {
            self.has_session_key = value.is_some();
            ConfigChange::Nothing
        } else {
            ConfigChange::Malformed("unknown key".to_owned())
        }
    }

    fn apply_connector(&mut self, name: &str, value: Option<Value>) -> ConfigChange {
        let Some(value) = value else {
            // Task records of a removed connector stay in the topic for ever; they must not come back with its name.
            self.tasks_written.remove(name);
            self.tasks_committed.remove(name);
            return match self.connectors.remove(name) {
                Some(_) => ConfigChange::Removed(name.to_owned()),
                None => ConfigChange::Nothing,
            };
        };
        match properties(value) {
            Some(properties) => {
                self.connectors.insert(name.to_owned(), properties);
                ConfigChange::Configured(name.to_owned())
            }
            None => ConfigChange::Malformed("no properties".to_owned()),
        }
    }

    fn apply_target_state(&mut self, name: &str, value: Option<Value>) -> ConfigChange {
        let state = match value {
            None => None,
            Some(value) => match read_target_state(&value) {
                Some(state) => Some(state),
                None => return ConfigChange::Malformed("unknown target state".to_owned()),
            },
        };
        match state {
            Some(state) => self.target_states.insert(name.to_owned(), state),
            None => self.target_states.remove(name),
        };
        self.adjusted(name)
    }

    fn apply_task(&mut self, rest: &str, value: Option<Value>) -> ConfigChange {
        // Names may hold dashes, so the number is after the last one.
        let id = rest.rsplit_once('-').and_then(|(name, id)| Some((name, id.parse::<u32>().ok()?)));
        let Some((name, id)) = id else {
            return ConfigChange::Malformed("no task number".to_owned());
        };
        let written = self.tasks_written.entry(name.to_owned()).or_default();
        match value.map(properties) {
            None => written.remove(&id),
            Some(Some(properties)) => written.insert(id, properties),
            Some(None) => return ConfigChange::Malformed("no properties".to_owned()),
        };
        ConfigChange::Nothing
    }

    fn apply_commit(&mut self, name: &str, value: Option<Value>) -> ConfigChange {
        let count = value.as_ref().map_or(Some(0), |value| value.get("tasks")?.as_u64());
        let Some(count) = count else {
            return ConfigChange::Malformed("no number of tasks".to_owned());
        };
        let mut all = self.tasks_committed.remove(name).unwrap_or_default();
        all.extend(self.tasks_written.remove(name).unwrap_or_default());
        all.retain(|id, _| u64::from(*id) < count);
        // Compaction may have taken a task record away; then none is valid, and they are written anew.
        if all.len() as u64 == count && count > 0 {
            self.tasks_committed.insert(name.to_owned(), all);
        }
        self.adjusted(name)
    }

    fn adjusted(&self, name: &str) -> ConfigChange {
        match self.connectors.contains_key(name) {
            true => ConfigChange::Adjusted(name.to_owned()),
            false => ConfigChange::Nothing,
        }
    }
}

/// A key and a value to write; `None` is a tombstone.
pub(in crate::connect) type Record = (String, Option<Value>);

pub(in crate::connect) fn connector_record(name: &str, properties: &Properties) -> Record {
    (format!("{CONNECTOR}{name}"), Some(json!({"properties": properties})))
}

pub(in crate::connect) fn target_state_record(name: &str, state: TargetState) -> Record {
    // Workers before 3.5 know no STOPPED and read `state` alone.
    let old = if state == TargetState::Started { state } else { TargetState::Paused };
    (format!("{TARGET_STATE}{name}"), Some(json!({"state": old, "state.v2": state})))
}

/// The tombstones of a deleted connector.
pub(in crate::connect) fn removal_records(name: &str) -> [Record; 2] {
    [(format!("{CONNECTOR}{name}"), None), (format!("{TARGET_STATE}{name}"), None)]
}

pub(in crate::connect) fn task_record(name: &str, id: u32, properties: &Properties) -> Record {
    (format!("{TASK}{name}-{id}"), Some(json!({"properties": properties})))
}

pub(in crate::connect) fn commit_record(name: &str, tasks: usize) -> Record {
    (format!("{COMMIT}{name}"), Some(json!({"tasks": tasks})))
}

pub(in crate::connect) fn restart_record(name: &str, tasks: bool, only_failed: bool) -> Record {
    let value = json!({"include-tasks": tasks, "only-failed": only_failed});
    (format!("{RESTART}{name}"), Some(value))
}

pub(in crate::connect) fn logger_record(name: &str, level: &str) -> Record {
    (format!("{LOGGER}{name}"), Some(json!({"level": level})))
}

/// The key that signs requests between Connect workers; `key` is base64.
pub(in crate::connect) fn session_key_record(key: &str, created_ms: i64) -> Record {
    let value = json!({"key": key, "algorithm": "HmacSHA256", "creation-timestamp": created_ms});
    (SESSION_KEY.to_owned(), Some(value))
}

fn properties(value: Value) -> Option<Properties> {
    let Value::Object(mut value) = value else { return None };
    let Some(Value::Object(properties)) = value.remove("properties") else { return None };
    let text = |value| match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    Some(properties.into_iter().map(|(name, value)| (name, text(value))).collect())
}

fn read_target_state(value: &Value) -> Option<TargetState> {
    let state = value.get("state.v2").or_else(|| value.get("state"))?;
    serde_json::from_value(state.clone()).ok()
}

fn restart(name: &str, value: Option<Value>) -> ConfigChange {
    let Some(value) = value else { return ConfigChange::Nothing };
    let flag = |field: &str| value.get(field).and_then(Value::as_bool);
    match (flag("include-tasks"), flag("only-failed")) {
        (Some(include_tasks), Some(only_failed)) => {
            ConfigChange::Restart { name: name.to_owned(), include_tasks, only_failed }
        }
        _ => ConfigChange::Malformed("no restart flags".to_owned()),
    }
}

fn logger(name: &str, value: Option<Value>) -> ConfigChange {
    let Some(value) = value else { return ConfigChange::Nothing };
    match value.get("level").and_then(Value::as_str) {
        Some(level) => ConfigChange::Logger { name: name.to_owned(), level: level.to_owned() },
        None => ConfigChange::Malformed("no level".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(state: &mut ConfigState, key: &str, value: &str) -> ConfigChange {
        state.apply(key, (!value.is_empty()).then_some(value.as_bytes()))
    }

    const CONFIG: &str = r#"{"properties":{"name":"a-0","x":null}}"#;

    #[test]
    fn tasks_count_from_their_commit_on_and_only_when_complete() {
        let mut state = ConfigState::default();
        assert_eq!(
            apply(&mut state, "connector-a-0", CONFIG),
            ConfigChange::Configured("a-0".into())
        );
        assert_eq!(apply(&mut state, "task-a-0-0", CONFIG), ConfigChange::Nothing);
        assert_eq!(state.tasks("a-0").count(), 0);
        apply(&mut state, "commit-a-0", r#"{"tasks":1}"#);
        assert_eq!(state.tasks("a-0").count(), 1);
        apply(&mut state, "commit-a-0", r#"{"tasks":2}"#);
        assert_eq!(state.tasks("a-0").count(), 0, "task 1 is missing");
        apply(&mut state, "commit-a-0", r#"{"tasks":0}"#);
        assert_eq!(state.tasks("a-0").count(), 0);
    }

    #[test]
    fn a_tombstone_removes_the_connector_and_its_tasks() {
        let mut state = ConfigState::default();
        apply(&mut state, "connector-a-0", CONFIG);
        apply(&mut state, "task-a-0-0", CONFIG);
        apply(&mut state, "commit-a-0", r#"{"tasks":1}"#);
        assert_eq!(apply(&mut state, "connector-a-0", ""), ConfigChange::Removed("a-0".into()));
        apply(&mut state, "connector-a-0", CONFIG);
        assert_eq!(state.tasks("a-0").count(), 0);
    }

    #[test]
    fn the_second_version_of_a_target_state_wins_and_a_tombstone_means_started() {
        let mut state = ConfigState::default();
        apply(&mut state, "target-state-c", r#"{"state":"PAUSED","state.v2":"STOPPED"}"#);
        apply(&mut state, "connector-c", CONFIG);
        assert_eq!(
            state.target_state("c"),
            TargetState::Stopped,
            "it may come before the connector"
        );
        apply(&mut state, "target-state-c", r#"{"state":"PAUSED"}"#);
        assert_eq!(state.target_state("c"), TargetState::Paused);
        assert_eq!(apply(&mut state, "target-state-c", ""), ConfigChange::Adjusted("c".into()));
        assert_eq!(state.target_state("c"), TargetState::Started);
    }

    #[test]
    fn records_are_written_as_kafka_connect_writes_them() {
        let check = |(key, value): Record, expected: (&str, &str)| {
            assert_eq!((key.as_str(), value.unwrap().to_string().as_str()), expected);
        };
        check(
            target_state_record("c", TargetState::Stopped),
            ("target-state-c", r#"{"state":"PAUSED","state.v2":"STOPPED"}"#),
        );
        check(commit_record("c", 1), ("commit-c", r#"{"tasks":1}"#));
        let properties = Properties::from([("a".to_owned(), None)]);
        check(task_record("c", 0, &properties), ("task-c-0", r#"{"properties":{"a":null}}"#));
        check(
            restart_record("c", true, false),
            ("restart-connector-c", r#"{"include-tasks":true,"only-failed":false}"#),
        );
    }

    #[test]
    fn no_secret_is_printed() {
        let mut state = ConfigState::default();
        let config = r#"{"properties":{"database.password":"s3cret"}}"#;
        apply(&mut state, "connector-c", config);
        apply(&mut state, "task-c-0", config);
        apply(&mut state, "commit-c", r#"{"tasks":1}"#);
        let printed = format!("{state:?}");
        assert!(printed.contains("database.password") && !printed.contains("s3cret"), "{printed}");
    }

    #[test]
    fn what_cannot_be_read_is_named_and_skipped() {
        let mut state = ConfigState::default();
        for (key, value) in [
            ("connector-c", "{nope"),
            ("connector-c", "[]"),
            ("target-state-c", r#"{"state":"SLEEPING"}"#),
            ("task-c", CONFIG),
            ("commit-c", r#"{"tasks":"x"}"#),
            ("restart-connector-c", "{}"),
            ("stranger", "{}"),
        ] {
            let change = apply(&mut state, key, value);
            assert!(matches!(change, ConfigChange::Malformed(_)), "{key} {value}: {change:?}");
        }
        assert_eq!(state.names().count(), 0);
    }
}
