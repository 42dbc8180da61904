//! `DecodeLogicalDecodingMessageContent`: makes the JSON content of a logical decoding message look like an inserted row,
//! so that `pg_logical_emit_message` is an outbox without a table.

use std::sync::Arc;

use crate::data::{DataError, Field, Schema, Struct, Value};
use crate::event::{RouteError, RoutedEvent};
use crate::expand::{Expansion, NullBehavior};

/// The transform's class.
pub(super) const CLASS: &str =
    "io.debezium.connector.postgresql.transforms.DecodeLogicalDecodingMessageContent";

/// Its one option: whether fields that are null are kept.
pub(super) const NULL_INCLUDE: &str = "fields.null.include";

/// Name of the schema of messages.
const MESSAGE_VALUE: &str = "io.debezium.connector.postgresql.MessageValue";

/// The transform.
#[derive(Debug, Clone)]
pub(super) struct MessageContent {
    expansion: Expansion,
}

impl MessageContent {
    pub(super) fn new(keeps_nulls: bool) -> Self {
        let nulls = if keeps_nulls { NullBehavior::OptionalBytes } else { NullBehavior::Ignore };
        Self { expansion: Expansion { nulls, ..Expansion::default() } }
    }

    /// Changes a message; every other event stays as it is.
    pub(super) fn apply(&self, event: &mut RoutedEvent<'_>) -> Result<(), RouteError> {
        let Value::Struct(envelope) = &event.value else { return Ok(()) };
        if envelope.schema().name.as_deref() != Some(MESSAGE_VALUE) {
            return Ok(());
        }
        let after = self.decode(content(envelope)?)?;
        let mut fields = Vec::new();
        let mut values = Vec::new();
        for (field, value) in envelope.schema().fields.iter().zip(envelope.values()) {
            match field.name.as_str() {
                "message" => continue,
                "op" => values.push(Value::text("c")),
                _ => values.push(value.clone()),
            }
            fields.push(field.clone());
        }
        fields.push(Field { name: "after".to_owned(), schema: Arc::clone(after.schema()) });
        values.push(Value::Struct(after));
        let mut schema = Schema::structure(fields);
        schema.name = Some(format!("{MESSAGE_VALUE}.Envelope"));
        let schema = Arc::new(schema);
        event.value = Value::Struct(Box::new(Struct::from_parts(Arc::clone(&schema), values)));
        event.value_schema = Some(schema);
        (event.key, event.key_schema) = (Value::Null, None);
        Ok(())
    }

    fn decode(&self, content: &[u8]) -> Result<Box<Struct<'static>>, RouteError> {
        let text = String::from_utf8_lossy(content);
        let expanded = self.expansion.expand_as(None, &text).map_err(|error| {
            let reason = error.reason();
            DataError(format!(
                "the content of a logical decoding message cannot be parsed: {reason}"
            ))
        })?;
        match expanded.value {
            Value::Struct(after) => Ok(after),
            _ => Err(refused("the content of a logical decoding message is no JSON object")),
        }
    }
}

/// The message's bytes.
fn content<'e>(envelope: &'e Struct<'_>) -> Result<&'e [u8], RouteError> {
    let field = |structure: &'e Struct<'_>, name: &str| {
        structure.schema().index_of(name).and_then(|index| structure.values().get(index))
    };
    let Some(Value::Struct(message)) = field(envelope, "message") else {
        return Err(refused("a logical decoding message has no content"));
    };
    match message.schema().index_of("content").and_then(|index| message.values().get(index)) {
        Some(Value::Bytes(bytes)) => Ok(bytes),
        _ => Err(refused(
            "The content of a logical decoding message is non-binary: set binary.handling.mode to bytes",
        )),
    }
}

fn refused(reason: &str) -> RouteError {
    DataError(reason.to_owned()).into()
}
