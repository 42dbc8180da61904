//! The event of a message of `pg_logical_emit_message`.

use std::sync::{Arc, LazyLock};

use super::{OPTIONAL_LONG, OPTIONAL_STRING, SOURCE, STRING, Source, TRANSACTION};
use super::{source_value, structure};
use crate::data::{Schema, Struct, Value};
use crate::event::RoutedEvent;

static KEY: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let fields = [("prefix", &*OPTIONAL_STRING)];
    Arc::new(structure(&fields).named("io.debezium.connector.postgresql.MessageKey", 1))
});

/// The schemas of messages, which depend on how the connector writes bytes (`binary.handling.mode`).
#[derive(Debug, Clone)]
pub struct MessageSchemas {
    message: Arc<Schema>,
    value: Arc<Schema>,
}

impl MessageSchemas {
    /// Schemas with this one for the content.
    #[must_use]
    pub fn new(content: Schema) -> Self {
        let content = Arc::new(content.with_optional(true));
        let fields = [("prefix", &*OPTIONAL_STRING), ("content", &content)];
        let message =
            Arc::new(structure(&fields).named("io.debezium.connector.postgresql.Message", 1));
        let fields = [
            ("op", &*STRING),
            ("ts_ms", &*OPTIONAL_LONG),
            ("source", &*SOURCE),
            ("transaction", &*TRANSACTION),
            ("message", &message),
        ];
        let value = structure(&fields).named("io.debezium.connector.postgresql.MessageValue", 1);
        Self { value: Arc::new(value), message }
    }

    /// The event of a message. It has no headers, not even those that a connector puts on all changes.
    #[must_use]
    pub fn event<'a>(
        &self,
        topic: String,
        source: &Source<'_>,
        prefix: &'a str,
        content: Value<'a>,
        event_ts_ms: i64,
    ) -> RoutedEvent<'a> {
        let key = Struct::from_parts(Arc::clone(&KEY), vec![Value::text(prefix)]);
        let message =
            Struct::from_parts(Arc::clone(&self.message), vec![Value::text(prefix), content]);
        let values = vec![
            Value::text("m"),
            Value::Int64(event_ts_ms),
            source_value(source),
            Value::Null,
            Value::Struct(Box::new(message)),
        ];
        let value = Struct::from_parts(Arc::clone(&self.value), values);
        RoutedEvent {
            topic,
            partition: None,
            key_schema: Some(Arc::clone(&KEY)),
            key: Value::Struct(Box::new(key)),
            value_schema: Some(Arc::clone(&self.value)),
            value: Value::Struct(Box::new(value)),
            headers: Vec::new(),
            timestamp: None,
        }
    }
}
