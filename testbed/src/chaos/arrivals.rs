//! What lies in a topic, as a reader sees it who reads committed records only.

use anyhow::{Context as _, Result};

use super::count::Arrival;
use crate::topic;

/// Everything that is in the topic now.
pub(super) async fn read(bootstrap_servers: &str, name: &str) -> Result<Vec<Arrival>> {
    let records = topic::read(bootstrap_servers, name).await?;
    let arrival = |record: topic::Record| {
        let id = record.header("id").context("a record without an id")?;
        let (partition, offset) = (record.partition, record.offset);
        Ok(Arrival { id, topic: name.to_owned(), key: record.key_text(), partition, offset })
    };
    records.into_iter().map(arrival).collect()
}
