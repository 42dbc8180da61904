//! Kafka Connect's converters: from a routed event to the bytes of a record.
//!
//! Source of the rules: Kafka Connect 4.3's `JsonConverter`, `StringConverter`, `ByteArrayConverter`,
//! `SimpleHeaderConverter` and `Values`, and Debezium's `BinaryDataConverter`, as the conformance vectors show them.

mod bytes;
mod class;
mod header;
mod json;
mod number;
mod options;
mod schema_json;

use std::collections::BTreeMap;
use std::sync::Arc;

use event_router::RoutedEvent;
use event_router::data::{Schema, Value};

use crate::connector_config::OptionError;
use crate::record::Record;

use bytes::BinaryConverter;
use class::ConverterClass;
use json::JsonConverter;
use number::NumberKind;
use options::Source;

/// Option of the key's converter.
pub const KEY_CONVERTER: &str = "key.converter";
/// Option of the value's converter.
pub const VALUE_CONVERTER: &str = "value.converter";
/// Option of the headers' converter.
pub const HEADER_CONVERTER: &str = "header.converter";

/// Class that Connect takes for headers where nothing is set.
const HEADER_CONVERTER_DEFAULT: &str = "org.apache.kafka.connect.storage.SimpleHeaderConverter";

/// Which part of a record could not be converted; Connect names it as the stage of a failed task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The key.
    Key,
    /// The value.
    Value,
    /// A header.
    Header,
    /// The record as a whole: a negative partition or timestamp.
    Record,
}

/// A value that a converter cannot take. Debezium stops the task here (or leaves the record out with
/// `errors.tolerance=all`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {reason}")]
pub struct ConvertError {
    /// Where it happened.
    pub stage: Stage,
    /// The option that decides here.
    pub option: &'static str,
    /// What is wrong; never the value itself.
    pub reason: String,
}

/// The three converters of a connector.
#[derive(Debug, Clone)]
pub struct Converters {
    key: Converter,
    value: Converter,
    header: Converter,
}

/// One converter.
#[derive(Debug, Clone)]
enum Converter {
    String,
    Json(Box<JsonConverter>),
    ByteArray,
    Binary(Box<BinaryConverter>),
    SimpleHeader,
    Number(NumberKind),
}

impl Converters {
    /// Reads the converters of a connector. Where the connector names a converter, all its options come from the
    /// connector; otherwise all come from the worker: Connect never mixes the two.
    ///
    /// # Errors
    /// Every option that is missing or cannot be taken.
    pub fn parse(
        connector: &BTreeMap<String, String>,
        worker: &BTreeMap<String, String>,
    ) -> Result<Self, Vec<OptionError>> {
        let source = Source { connector, worker };
        let key = source.converter(KEY_CONVERTER, None);
        let value = source.converter(VALUE_CONVERTER, None);
        let header = source.converter(HEADER_CONVERTER, Some(HEADER_CONVERTER_DEFAULT));
        match (key, value, header) {
            (Ok(key), Ok(value), Ok(header)) => Ok(Self { key, value, header }),
            (key, value, header) => Err([key.err(), value.err(), header.err()]
                .into_iter()
                .flatten()
                .flatten()
                .collect()),
        }
    }

    /// Whether the value is written as JSON without a schema, so that expanded payloads need none
    /// ([`event_router::Router::write_json`]).
    #[must_use]
    pub fn writes_plain_json(&self) -> bool {
        matches!(&self.value, Converter::Json(json) if !json.schemas_enabled())
    }

    /// Converts an event.
    ///
    /// # Errors
    /// When a converter does not take its value, or Kafka's producer would not take the record.
    pub fn convert(&self, event: RoutedEvent<'_>) -> Result<Record, ConvertError> {
        let failed = |stage, option| move |reason| ConvertError { stage, option, reason };
        let mut headers = Vec::with_capacity(event.headers.len());
        // Connect converts headers first, then the key, then the value.
        for header in event.headers {
            let value = self
                .header
                .convert(&event.topic, header.schema.as_ref(), header.value)
                .map_err(failed(Stage::Header, HEADER_CONVERTER))?;
            headers.push((header.name.into_owned(), value));
        }
        let key = self
            .key
            .convert(&event.topic, event.key_schema.as_ref(), event.key)
            .map_err(failed(Stage::Key, KEY_CONVERTER))?;
        let value = self
            .value
            .convert(&event.topic, event.value_schema.as_ref(), event.value)
            .map_err(failed(Stage::Value, VALUE_CONVERTER))?;
        let partition = checked_partition(event.partition)?;
        let timestamp = checked_timestamp(event.timestamp)?;
        Ok(Record { topic: event.topic, partition, key, value, headers, timestamp })
    }

    /// Converts a key alone.
    ///
    /// # Errors
    /// What the converter does not take.
    pub fn key(
        &self,
        topic: &str,
        schema: Option<&Arc<Schema>>,
        key: Value<'_>,
    ) -> Result<Option<Vec<u8>>, String> {
        self.key.convert(topic, schema, key)
    }
}

impl Converter {
    fn convert(
        &self,
        topic: &str,
        schema: Option<&Arc<Schema>>,
        value: Value<'_>,
    ) -> Result<Option<Vec<u8>>, String> {
        match self {
            Self::String => Ok(java_text(value)),
            Self::Json(json) => json.convert(schema, value),
            Self::ByteArray => bytes::convert_byte_array(schema, value),
            Self::Binary(binary) => binary.convert(topic, schema, value),
            Self::SimpleHeader => Ok(header::convert(value)),
            Self::Number(kind) => kind.convert(value),
        }
    }
}

/// What `StringConverter` writes: `toString` in UTF-8.
fn java_text(value: Value<'_>) -> Option<Vec<u8>> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.into_owned().into_bytes()),
        other => Some(other.to_java_text().into_bytes()),
    }
}

fn checked_partition(partition: Option<i32>) -> Result<Option<i32>, ConvertError> {
    match partition {
        Some(negative) if negative < 0 => Err(ConvertError {
            stage: Stage::Record,
            option: "table.fields.additional.placement",
            reason: format!(
                "Invalid partition: {negative}. Partition number should always be non-negative or null."
            ),
        }),
        partition => Ok(partition),
    }
}

/// Connect's word for "no timestamp".
const NO_TIMESTAMP: i64 = -1;

fn checked_timestamp(timestamp: Option<i64>) -> Result<Option<i64>, ConvertError> {
    match timestamp {
        Some(NO_TIMESTAMP) => Ok(None),
        Some(negative) if negative < 0 => Err(ConvertError {
            stage: Stage::Record,
            option: "table.field.event.timestamp",
            reason: format!(
                "Invalid record timestamp {negative}: a record cannot be older than 1970"
            ),
        }),
        timestamp => Ok(timestamp),
    }
}

#[cfg(test)]
mod tests;
