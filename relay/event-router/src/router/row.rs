//! Reads a row's columns as Connect's `Struct` does: `get` replaces nulls by defaults, the typed getters do not.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Row, full_name};
use crate::change::Table;
use crate::data::{Schema, Type, Value};
use crate::event::RouteError;
use crate::options::FIELD_EVENT_TIMESTAMP;

/// Logical types that the timestamp column may have.
const TIMESTAMP_MILLISECONDS: &str = "io.debezium.time.Timestamp";
const TIMESTAMP_MICROSECONDS: &str = "io.debezium.time.MicroTimestamp";
const TIMESTAMP_NANOSECONDS: &str = "io.debezium.time.NanoTimestamp";

/// A row of an outbox table.
pub(super) struct OutboxRow<'c, 'a> {
    pub(super) table: &'c Arc<Table>,
    pub(super) row: &'c dyn Row<'a>,
}

impl<'a> OutboxRow<'_, 'a> {
    /// Position and schema of a column that must be there.
    pub(super) fn column(
        &self,
        index: Option<usize>,
        option: &'static str,
        name: &str,
    ) -> Result<(usize, Arc<Schema>), RouteError> {
        let found = index.and_then(|index| Some((index, self.table.columns.get(index)?)));
        match found {
            Some((index, column)) => Ok((index, Arc::clone(&column.schema))),
            None => Err(RouteError::MissingColumn {
                option,
                column: name.to_owned(),
                table: full_name(self.table),
            }),
        }
    }

    pub(super) fn schema(&self, index: usize) -> Option<Arc<Schema>> {
        self.table.columns.get(index).map(|column| Arc::clone(&column.schema))
    }

    /// A value; the column's default stands for null.
    pub(super) fn value_or_default(&self, index: usize) -> Result<Value<'a>, RouteError> {
        let value = self.row.value(index)?;
        if !value.is_null() {
            return Ok(value);
        }
        let default =
            self.table.columns.get(index).and_then(|column| column.schema.default.clone());
        Ok(default.unwrap_or(Value::Null))
    }

    /// A text column's value, null as it is.
    pub(super) fn text(
        &self,
        index: Option<usize>,
        option: &'static str,
        name: &str,
    ) -> Result<Option<Cow<'a, str>>, RouteError> {
        let index = self.typed(index, option, name, Type::String)?;
        match self.row.value(index)? {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text)),
            other => Err(wrong_type(option, name, "STRING", other.java_class())),
        }
    }

    /// A 32 bit integer column's value, null as it is.
    pub(super) fn int32(
        &self,
        index: Option<usize>,
        option: &'static str,
        name: &str,
    ) -> Result<Option<i32>, RouteError> {
        let index = self.typed(index, option, name, Type::Int32)?;
        match self.row.value(index)? {
            Value::Null => Ok(None),
            Value::Int32(value) => Ok(Some(value)),
            other => Err(wrong_type(option, name, "INT32", other.java_class())),
        }
    }

    /// Milliseconds of the timestamp column; the event's own where it is null.
    pub(super) fn timestamp(
        &self,
        index: usize,
        schema: &Schema,
        name: &str,
        event_ts_ms: i64,
    ) -> Result<i64, RouteError> {
        let option = FIELD_EVENT_TIMESTAMP;
        self.typed(Some(index), option, name, Type::Int64)?;
        let value = match self.row.value(index)? {
            Value::Null => return Ok(event_ts_ms),
            Value::Int64(value) => value,
            other => return Err(wrong_type(option, name, "INT64", other.java_class())),
        };
        // Division drops what is below a millisecond towards zero, before 1970 too.
        match schema.name.as_deref() {
            Some(TIMESTAMP_MILLISECONDS) => Ok(value),
            Some(TIMESTAMP_MICROSECONDS) => Ok(value / 1_000),
            Some(TIMESTAMP_NANOSECONDS) => Ok(value / 1_000_000),
            other => {
                let actual = other.unwrap_or("INT64 without a logical type");
                Err(wrong_type(option, name, "timestamp", actual))
            }
        }
    }

    fn typed(
        &self,
        index: Option<usize>,
        option: &'static str,
        name: &str,
        expected: Type,
    ) -> Result<usize, RouteError> {
        let (index, schema) = self.column(index, option, name)?;
        if schema.kind == expected {
            return Ok(index);
        }
        let actual = schema.name.as_deref().unwrap_or_else(|| schema.kind.java_name());
        Err(wrong_type(option, name, expected.java_name(), actual))
    }
}

fn wrong_type(
    option: &'static str,
    name: &str,
    expected: &'static str,
    actual: &str,
) -> RouteError {
    RouteError::ColumnType { option, column: name.to_owned(), expected, actual: actual.to_owned() }
}
