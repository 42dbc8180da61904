//! A changed primary key: Debezium makes a delete and a create of such an update.

use std::borrow::Cow;
use std::sync::Arc;

use event_router::Header;
use event_router::change::ValueError;
use event_router::data::{Schema, Struct, Value};
use pgoutput::TupleColumn;

use super::TableColumns;

/// Header of the create: the key that the row had.
pub const OLD_KEY_HEADER: &str = "__debezium.oldkey";
/// Header of the delete: the key that the row gets.
pub const NEW_KEY_HEADER: &str = "__debezium.newkey";

/// The headers of the two changes that stand for an update of the key.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyChange<'r> {
    /// Of the delete.
    pub new_key: Header<'r>,
    /// Of the create.
    pub old_key: Header<'r>,
}

impl TableColumns {
    /// Whether an update changed the key, whose schema is given. The update then counts as a delete and a create, so
    /// that the router publishes the row.
    ///
    /// # Errors
    /// When a value of the key is not in the form of its type.
    pub fn key_change<'r>(
        &self,
        key_schema: Option<&Arc<Schema>>,
        old: &[TupleColumn<'r>],
        new: &[TupleColumn<'r>],
    ) -> Result<Option<KeyChange<'r>>, ValueError> {
        let Some(schema) = key_schema else { return Ok(None) };
        let (before, after) = (self.key(schema, old)?, self.key(schema, new)?);
        Ok((before != after).then(|| KeyChange {
            new_key: header(NEW_KEY_HEADER, after),
            old_key: header(OLD_KEY_HEADER, before),
        }))
    }

    /// The key of a row, in the table's [`Self::key_schema`].
    ///
    /// # Errors
    /// When a value of the key is not in the form of its type.
    pub fn key<'r>(
        &self,
        schema: &Arc<Schema>,
        tuple: &[TupleColumn<'r>],
    ) -> Result<Struct<'r>, ValueError> {
        let mut values = Vec::with_capacity(schema.fields.len());
        for column in self.key_columns() {
            let sent = tuple.get(column.position).copied().unwrap_or(TupleColumn::Null);
            values.push(self.unchanged(column, sent)?);
        }
        Ok(Struct::from_parts(Arc::clone(schema), values))
    }
}

fn header<'r>(name: &'static str, key: Struct<'r>) -> Header<'r> {
    let schema = Some(Arc::clone(key.schema()));
    Header { name: Cow::Borrowed(name), schema, value: Value::Struct(Box::new(key)) }
}
