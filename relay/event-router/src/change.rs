//! What the router is given: a change of a row of a table.

use std::sync::Arc;

use crate::data::{Schema, Value};
use crate::event::Header;

/// A column of a table.
#[derive(Debug, Clone)]
pub struct Column {
    /// Name, as the connector gives it (adjusted, where asked for).
    pub name: String,
    /// Schema of its values.
    pub schema: Arc<Schema>,
    /// Whether it is part of the key.
    pub key: bool,
}

/// A table in one version of its shape. Make a new one when the shape changes; keep it as long as it does not: the
/// router remembers by identity where the columns are.
#[derive(Debug, Clone)]
pub struct Table {
    /// Schema (namespace) of the table.
    pub schema: String,
    /// Name of the table.
    pub name: String,
    /// Name of the row's struct schema, for example `dbserver1.inventory.outboxevent.Value`.
    pub value_schema_name: String,
    /// The columns that are sent, in order.
    pub columns: Vec<Column>,
}

impl Table {
    /// Position of a column.
    #[must_use]
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Read by a snapshot.
    Read,
    /// Inserted.
    Create,
    /// Updated.
    Update,
    /// Deleted.
    Delete,
    /// All rows were removed.
    Truncate,
}

/// A value that could not be read from the database's form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {reason}")]
pub struct ValueError {
    /// Name of the column.
    pub column: String,
    /// What is wrong; never the value itself.
    pub reason: String,
}

/// A row: values by position of the column, converted when they are asked for, so that nothing is read that the
/// router does not need.
pub trait Row<'a> {
    /// The value of a column as it is (defaults do not replace nulls here).
    ///
    /// # Errors
    /// When the value is not in the form that its type has.
    fn value(&self, column: usize) -> Result<Value<'a>, ValueError>;
}

/// A row of values that are there already.
impl<'a> Row<'a> for Vec<Value<'a>> {
    fn value(&self, column: usize) -> Result<Value<'a>, ValueError> {
        Ok(self.get(column).cloned().unwrap_or(Value::Null))
    }
}

/// A change of a row.
pub struct Change<'c, 'a> {
    /// The table.
    pub table: &'c Arc<Table>,
    /// What happened.
    pub operation: Operation,
    /// The row after the change; none for deletes and truncates.
    pub after: Option<&'c dyn Row<'a>>,
    /// When the connector handled the change (`ts_ms` of Debezium's envelope), milliseconds since 1970.
    pub event_ts_ms: i64,
    /// Headers that the connector has set, for example `__debezium.oldkey`.
    pub headers: Vec<Header<'a>>,
}
