//! What the router gives back: an event, a reason for none, or an error that stops the task.

use std::borrow::Cow;
use std::sync::Arc;

use crate::change::ValueError;
use crate::data::{DataError, Schema, Value};

/// A header of an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Header<'a> {
    /// Name; may occur twice.
    pub name: Cow<'a, str>,
    /// Schema of the value.
    pub schema: Option<Arc<Schema>>,
    /// The value, not yet converted.
    pub value: Value<'a>,
}

/// An event on its way to a topic, not yet converted to bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutedEvent<'a> {
    /// Topic; nothing has checked that it is a legal name.
    pub topic: String,
    /// Partition, where the event asks for one.
    pub partition: Option<i32>,
    /// Schema of the key.
    pub key_schema: Option<Arc<Schema>>,
    /// The key.
    pub key: Value<'a>,
    /// Schema of the value; none for a tombstone.
    pub value_schema: Option<Arc<Schema>>,
    /// The value.
    pub value: Value<'a>,
    /// Headers in order.
    pub headers: Vec<Header<'a>>,
    /// Milliseconds since 1970; none: the producer takes its clock.
    pub timestamp: Option<i64>,
}

/// Something that Debezium logs while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// The payload is no JSON that can be expanded; it is sent as it is.
    ExpansionFailed(String),
    /// The payload column is not text, so it cannot be expanded.
    PayloadIsNotText,
}

impl Warning {
    /// The sentence for the log. It holds names and positions, no payload.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::ExpansionFailed(reason) => {
                format!("the payload is sent as it is, not expanded as JSON: {reason}")
            }
            Self::PayloadIsNotText => {
                "table.expand.json.payload is on, but the payload column is not text".to_owned()
            }
        }
    }
}

/// Why a change makes no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skipped {
    /// A delete: outbox rows may go at any time. Not worth a line in the log.
    Delete,
    /// An update, which an outbox table should not see: Debezium logs a warning.
    UpdateWarned,
    /// An update: Debezium logs an error and goes on.
    UpdateReported,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<'a> {
    /// An event to be sent, with what should be logged.
    Routed(Box<RoutedEvent<'a>>, Vec<Warning>),
    /// No event.
    Skipped(Skipped),
}

/// The change cannot be routed. Debezium stops the task here (or leaves the record out with `errors.tolerance=all`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// `table.op.invalid.behavior=fatal`.
    #[error(
        "unexpected update of a row of outbox table {table} and table.op.invalid.behavior is fatal; outbox rows \
         should only be inserted and deleted"
    )]
    UnexpectedUpdate {
        /// The table.
        table: String,
    },
    /// A truncate, which has no row.
    #[error("{table} was truncated, which is no outbox event; leave `t` in skipped.operations")]
    NoRow {
        /// The table.
        table: String,
    },
    /// An option names a column that the table does not have.
    #[error("{option} names column {column}, which {table} does not have")]
    MissingColumn {
        /// The option.
        option: &'static str,
        /// The column it names.
        column: String,
        /// The table.
        table: String,
    },
    /// An option names a column of a type that it cannot use.
    #[error("{option} names column {column}, which is not of type {expected} but {actual}")]
    ColumnType {
        /// The option.
        option: &'static str,
        /// The column it names.
        column: String,
        /// The type it needs.
        expected: &'static str,
        /// The type it has.
        actual: String,
    },
    /// The routing column is null.
    #[error("column {column}, which decides the topic, is null")]
    NullTopic {
        /// The column that `route.by.field` names.
        column: String,
    },
    /// `table.fields.additional.placement` names a placement that does not exist.
    #[error(
        "table.fields.additional.placement: column {column} has no placement header, envelope or partition"
    )]
    UnknownPlacement {
        /// The column.
        column: String,
    },
    /// `route.topic.replacement` does not fit `route.topic.regex`.
    #[error("route.topic.replacement: {0}")]
    Replacement(String),
    /// `route.topic.regex` takes too many steps for a value.
    #[error(
        "route.topic.regex takes too many steps for this value; write it without nested repetition"
    )]
    RegexTooSlow,
    /// A value does not fit its schema.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A column's value is not in the form of its type.
    #[error(transparent)]
    Value(#[from] ValueError),
}
