//! Debezium's context headers (`extended.headers.enabled`): which connector and which run an event came through.

use std::borrow::Cow;
use std::sync::Arc;

use event_router::Header;
use event_router::data::{Schema, Type, Value};

use crate::connector_config::ConnectorConfig;

/// The headers that stand behind those of a changed key and before all others, or none when they are switched off.
#[derive(Debug, Clone, Default)]
pub struct ContextHeaders(Vec<Header<'static>>);

impl ContextHeaders {
    /// Makes the headers of one start of a task.
    #[must_use]
    pub fn new(config: &ConnectorConfig) -> Self {
        if !config.extended_headers {
            return Self::default();
        }
        let header = |name: &'static str, value: String| Header {
            name: Cow::Borrowed(name),
            schema: Some(Arc::new(Schema::new(Type::String))),
            value: Value::String(Cow::Owned(value)),
        };
        Self(vec![
            header("__debezium.context.connectorLogicalName", config.topic_prefix.clone()),
            header("__debezium.context.taskId", "0".to_owned()),
            header("__debezium.context.connectorName", "postgresql".to_owned()),
            header("__debezium.context.runId", uuid::Uuid::new_v4().to_string()),
        ])
    }

    /// Appends the headers to those of a change.
    pub fn append_to<'r>(&self, headers: &mut Vec<Header<'r>>) {
        headers.extend(self.0.iter().cloned());
    }
}
