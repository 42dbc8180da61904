//! Source offsets and topics in use, as the REST API reads and changes them.

use std::time::Duration;

use serde_json::Value;

use super::entities::{ActiveTopics, ConnectorOffset, ConnectorOffsets, TopicList};
use super::error::ConnectError;
use super::herder::{Herder, not_found, not_written};
use super::storage::{StatusKey, TargetState, offset_key};
use super::task_records::{allows_topic_reset, tracks_topics};

/// How long a task that was told to stop is waited for; it has a bound of its own, which is shorter by default.
const STOP_WAIT: Duration = Duration::from_secs(20);

/// What the names of the relay's own fields of an offset begin with.
const OWN_FIELDS: &str = "relay_";

/// What a caller wants a source partition's offset to be; `None` removes it.
pub(super) type OffsetChange = (Value, Option<Value>);

impl Herder {
    pub(super) fn offsets(&self, name: &str) -> Result<ConnectorOffsets, ConnectError> {
        self.properties(name)?;
        let offsets = self.storage.offsets();
        // Kafka Connect stores an offset without partition and never shows it.
        let shown = offsets.of(name).filter(|(_, partition, _)| partition.is_object());
        let offset = |(_, partition, offset): (_, &Value, &Value)| ConnectorOffset {
            partition: partition.clone(),
            offset: as_debezium_has_it(offset),
        };
        Ok(ConnectorOffsets { offsets: shown.map(offset).collect() })
    }

    pub(super) async fn alter_offsets(
        &self,
        name: &str,
        changes: Vec<OffsetChange>,
    ) -> Result<(), ConnectError> {
        // Not within the turn: the stop itself needs it.
        self.wait_until_stopped(name).await?;
        let _turn = self.turn.lock().await;
        self.check_stopped(name)?;
        for (partition, offset) in changes {
            let key = offset_key(name, &partition);
            let offset = offset.map(|offset| offset.to_string().into_bytes());
            self.storage.write_offset(&key, offset.as_deref()).await.map_err(not_written)?;
        }
        Ok(())
    }

    pub(super) async fn reset_offsets(&self, name: &str) -> Result<(), ConnectError> {
        // Not within the turn: the stop itself needs it.
        self.wait_until_stopped(name).await?;
        let _turn = self.turn.lock().await;
        self.check_stopped(name)?;
        let keys: Vec<String> = {
            let offsets = self.storage.offsets();
            let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
            offsets.of(name).map(|(key, ..)| text(key)).collect()
        };
        for key in keys {
            self.storage.write_offset(&key, None).await.map_err(not_written)?;
        }
        Ok(())
    }

    /// Connectors that never were have no topics, and that is no error in Kafka Connect.
    pub(super) fn topics(&self, name: &str) -> Result<ActiveTopics, ConnectError> {
        if !tracks_topics(&self.worker) {
            return Err(ConnectError::forbidden("Topic tracking is disabled."));
        }
        let topics = self.storage.statuses().topics(name).cloned().collect();
        Ok(ActiveTopics::from([(name.to_owned(), TopicList { topics })]))
    }

    pub(super) fn reset_topics(&self, name: &str) -> Result<(), ConnectError> {
        let mut known = self.topics(name)?;
        if !allows_topic_reset(&self.worker) {
            return Err(ConnectError::forbidden("Topic tracking reset is disabled."));
        }
        for topic in known.remove(name).map(|list| list.topics).unwrap_or_default() {
            let key = StatusKey::Topic { connector: name.to_owned(), topic };
            self.storage.write_status(&key, None);
        }
        Ok(())
    }

    /// Waits until a connector that was told to stop has stopped: its task stores a last offset, which must not come
    /// after the one that is written here.
    async fn wait_until_stopped(&self, name: &str) -> Result<(), ConnectError> {
        self.check_stopped(name)?;
        let Some(mut progress) = self.registry.progress(name) else { return Ok(()) };
        let stopped = progress.wait_for(|progress| progress.is_stopped);
        match tokio::time::timeout(STOP_WAIT, stopped).await {
            Ok(_) => Ok(()),
            Err(_) => Err(ConnectError::conflict(format!(
                "The task of connector {name} has not stopped yet; try again later"
            ))),
        }
    }

    fn check_stopped(&self, name: &str) -> Result<(), ConnectError> {
        let config = self.storage.config();
        config.properties(name).ok_or_else(|| not_found(name))?;
        let stopped = config.target_state(name) == TargetState::Stopped;
        match stopped && config.tasks(name).next().is_none() {
            true => Ok(()),
            false => Err(must_be_stopped(name)),
        }
    }
}

/// Without the relay's own fields, which say what the position is a position in: an operator who writes an offset back,
/// or gives it to another connector, says where to go on.
fn as_debezium_has_it(offset: &Value) -> Value {
    let mut offset = offset.clone();
    if let Value::Object(fields) = &mut offset {
        fields.retain(|name, _| !name.starts_with(OWN_FIELDS));
    }
    offset
}

fn must_be_stopped(name: &str) -> ConnectError {
    ConnectError::bad_request(format!(
        "Connectors must be in the STOPPED state before their offsets can be modified. This can be done for the \
         specified connector by issuing a 'PUT' request to the '/connectors/{name}/stop' endpoint"
    ))
}
