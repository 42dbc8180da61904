//! Source offsets and topics in use, as the REST API reads and changes them.

use serde_json::Value;

use super::entities::{ActiveTopics, ConnectorOffset, ConnectorOffsets, TopicList};
use super::error::ConnectError;
use super::herder::{Herder, not_found, not_written};
use super::storage::{StatusKey, TargetState, offset_key};

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
            offset: offset.clone(),
        };
        Ok(ConnectorOffsets { offsets: shown.map(offset).collect() })
    }

    pub(super) async fn alter_offsets(
        &self,
        name: &str,
        changes: Vec<OffsetChange>,
    ) -> Result<(), ConnectError> {
        let _turn = self.turn.lock().await;
        self.check_stopped(name)?;
        for (partition, offset) in changes {
            let key = offset_key(name, &partition);
            self.storage.write_offset(&key, offset.as_ref()).await.map_err(not_written)?;
        }
        Ok(())
    }

    pub(super) async fn reset_offsets(&self, name: &str) -> Result<(), ConnectError> {
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
    pub(super) fn topics(&self, name: &str) -> ActiveTopics {
        let topics = self.storage.statuses().topics(name).cloned().collect();
        ActiveTopics::from([(name.to_owned(), TopicList { topics })])
    }

    pub(super) async fn reset_topics(&self, name: &str) {
        for topic in self.topics(name).remove(name).map(|list| list.topics).unwrap_or_default() {
            let key = StatusKey::Topic { connector: name.to_owned(), topic };
            self.storage.write_status(&key, None).await;
        }
    }

    fn check_stopped(&self, name: &str) -> Result<(), ConnectError> {
        let config = self.storage.config();
        config.properties(name).ok_or_else(|| not_found(name))?;
        let stopped = config.target_state(name) == TargetState::Stopped;
        if stopped && config.tasks(name).next().is_none() {
            return Ok(());
        }
        Err(ConnectError::bad_request(format!(
            "Connectors must be in the STOPPED state before their offsets can be modified. This can be done for the \
             specified connector by issuing a 'PUT' request to the '/connectors/{name}/stop' endpoint"
        )))
    }
}
