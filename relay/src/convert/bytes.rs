//! Converters of bytes: Kafka's `ByteArrayConverter`, Debezium's `BinaryDataConverter` and `ByteArrayConverter`.

use std::sync::Arc;

use event_router::data::{Schema, Type, Value};

use super::Converter;

/// Passes bytes on and hands everything else to another converter.
#[derive(Debug, Clone)]
pub(super) struct BinaryConverter {
    /// The other converter; without one, everything but bytes fails.
    pub(super) delegate: Option<Converter>,
    /// Whether Java's `ByteBuffer`, which Debezium makes of `bytea`, counts as bytes.
    pub(super) takes_buffers: bool,
}

impl BinaryConverter {
    pub(super) fn convert(
        &self,
        topic: &str,
        schema: Option<&Arc<Schema>>,
        value: Value<'_>,
    ) -> Result<Option<Vec<u8>>, String> {
        let is_binary = schema.is_none_or(|schema| schema.kind == Type::Bytes);
        match value {
            Value::Null if is_binary => Ok(None),
            Value::Bytes(bytes) if is_binary && self.takes_buffers => Ok(Some(bytes.into_owned())),
            value => match &self.delegate {
                Some(delegate) => delegate.convert(topic, schema, value),
                None => Err(format!(
                    "a value for topic {topic} is not bytes but {}, which requires a delegate.converter.type to be \
                     configured",
                    value.java_class()
                )),
            },
        }
    }
}

/// Kafka's converter: bytes or nothing.
pub(super) fn convert_byte_array(
    schema: Option<&Arc<Schema>>,
    value: Value<'_>,
) -> Result<Option<Vec<u8>>, String> {
    if let Some(schema) = schema
        && schema.kind != Type::Bytes
    {
        let kind = schema.kind.java_name();
        return Err(format!("Invalid schema type for ByteArrayConverter: {kind}"));
    }
    match value {
        Value::Null => Ok(None),
        Value::Bytes(bytes) => Ok(Some(bytes.into_owned())),
        other => {
            let class = other.java_class();
            Err(format!("ByteArrayConverter is not compatible with objects of type {class}"))
        }
    }
}
