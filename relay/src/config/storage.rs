//! The storage topics: their names, and what they are created with where they are not there yet.

use std::collections::BTreeMap;

use super::{ConfigError, Reader, cut_prefix};

/// `offset.storage.partitions` when not set, as in Kafka Connect.
const OFFSET_PARTITIONS: i32 = 25;
/// `status.storage.partitions` when not set, as in Kafka Connect.
const STATUS_PARTITIONS: i32 = 5;

/// Kafka compacts no segment that it still writes to, and a worker reads a storage topic from its beginning. With Kafka's
/// gigabyte that would be weeks of offsets, one a second; with 16 MiB it is at most a day of them.
const OFFSET_SEGMENT_BYTES: &str = "16777216";

/// What follows `offset.storage.` and is no setting of the topic itself. The policy is not for anybody to choose: another
/// one loses records in time.
const NO_TOPIC_SETTINGS: [&str; 4] =
    ["topic", "partitions", "replication.factor", "cleanup.policy"];

/// One of the three storage topics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StorageTopic {
    /// Topic name.
    pub name: String,
    /// Partitions to create it with; an existing topic keeps what it has.
    pub partitions: i32,
    /// Replication factor to create it with; `None`: three, or as many brokers as there are. -1: the broker's default.
    pub replication: Option<i32>,
    /// Settings of the topic to create it with, by Kafka's names, besides `cleanup.policy=compact`.
    pub settings: BTreeMap<String, String>,
}

impl Reader {
    pub(super) fn config_topic(&self) -> Result<StorageTopic, ConfigError> {
        // With more than one, the order of a connector's records would be lost.
        self.storage_topic("config", "connect-configs", 1)
    }

    pub(super) fn offset_topic(&self) -> Result<StorageTopic, ConfigError> {
        let partitions = self.number("offset.storage.partitions")?.unwrap_or(OFFSET_PARTITIONS);
        let mut topic = self.storage_topic("offset", "connect-offsets", partitions)?;
        let segment = topic.settings.entry("segment.bytes".to_owned());
        segment.or_insert_with(|| OFFSET_SEGMENT_BYTES.to_owned());
        Ok(topic)
    }

    pub(super) fn status_topic(&self) -> Result<StorageTopic, ConfigError> {
        let partitions = self.number("status.storage.partitions")?.unwrap_or(STATUS_PARTITIONS);
        self.storage_topic("status", "connect-status", partitions)
    }

    fn storage_topic(
        &self,
        name: &str,
        default: &str,
        partitions: i32,
    ) -> Result<StorageTopic, ConfigError> {
        let mut settings = cut_prefix(&self.properties, &format!("{name}.storage."));
        settings.retain(|setting, _| !NO_TOPIC_SETTINGS.contains(&setting.as_str()));
        Ok(StorageTopic {
            name: self.text(&format!("{name}.storage.topic")).unwrap_or(default).to_owned(),
            partitions,
            replication: self.number(&format!("{name}.storage.replication.factor"))?,
            settings,
        })
    }
}
