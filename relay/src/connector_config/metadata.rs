//! `heartbeat.*` and `provide.transaction.metadata`: events that are about the stream itself.

use std::time::Duration;

use super::options::Options;

/// Longest interval that can be asked for: a day.
const INTERVAL_MAX_MS: u64 = 24 * 3600 * 1000;

/// Heartbeats and boundaries of transactions, as configured.
#[derive(Debug, Clone, Default)]
pub struct MetadataConfig {
    /// `heartbeat.interval.ms`; none: no heartbeats.
    pub heartbeat_interval: Option<Duration>,
    /// Where heartbeats go: `topic.heartbeat.prefix` before `topic.prefix`.
    pub heartbeat_topic: String,
    /// `heartbeat.action.query`: SQL that is run with each heartbeat.
    pub heartbeat_query: Option<String>,
    /// `provide.transaction.metadata`: where begin and end of transactions go, `topic.transaction` behind
    /// `topic.prefix`; none: they are not told.
    pub transaction_topic: Option<String>,
}

impl MetadataConfig {
    pub(super) fn parse(options: &mut Options<'_>, topic_prefix: &str) -> Self {
        let interval = options.milliseconds("heartbeat.interval.ms", 0, 0..=INTERVAL_MAX_MS);
        let delimiter = options.text("topic.delimiter").unwrap_or_else(|| ".".to_owned());
        let mut named = |option: &str, default: &str| {
            let text = options.text(option).filter(|text| !text.is_empty());
            text.unwrap_or_else(|| default.to_owned())
        };
        let heartbeat_prefix = named("topic.heartbeat.prefix", "__debezium-heartbeat");
        let transaction = named("topic.transaction", "transaction");
        let query = options.text("heartbeat.action.query").filter(|query| !query.is_empty());
        let is_told = options.flag("provide.transaction.metadata", false);
        let heartbeat_interval = Some(interval).filter(|interval| !interval.is_zero());
        if query.is_some() && heartbeat_interval.is_none() {
            let remark =
                "option `heartbeat.action.query` has no effect without heartbeat.interval.ms";
            options.remark(remark.to_owned());
        }
        Self {
            heartbeat_interval,
            heartbeat_topic: [heartbeat_prefix.as_str(), topic_prefix].join(&delimiter),
            heartbeat_query: query,
            transaction_topic: is_told
                .then(|| [topic_prefix, transaction.as_str()].join(&delimiter)),
        }
    }
}
