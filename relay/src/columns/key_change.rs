//! A changed primary key: Debezium makes a delete and a create of such an update.

use std::borrow::Cow;
use std::sync::Arc;

use event_router::Header;
use event_router::change::ValueError;
use event_router::data::{Struct, Value};
use pgoutput::TupleColumn;

use super::TableColumns;

/// Header of the create: the key that the row had.
pub const OLD_KEY_HEADER: &str = "__debezium.oldkey";
/// Header of the delete: the key that the row gets.
pub const NEW_KEY_HEADER: &str = "__debezium.newkey";

impl TableColumns {
    /// The header for the created row where an update changed the key; none where it did not. The update then counts
    /// as a delete and a create, so that the router publishes the row.
    ///
    /// # Errors
    /// When a value of the key is not in the form of its type.
    pub fn old_key_header<'r>(
        &self,
        topic: &str,
        old: &[TupleColumn<'r>],
        new: &[TupleColumn<'r>],
    ) -> Result<Option<Header<'r>>, ValueError> {
        let keys = self.changed_keys(topic, old, new)?;
        Ok(keys.map(|(before, _)| header(OLD_KEY_HEADER, before)))
    }

    /// The header for the deleted row of such an update.
    ///
    /// # Errors
    /// When a value of the key is not in the form of its type.
    pub fn new_key_header<'r>(
        &self,
        topic: &str,
        old: &[TupleColumn<'r>],
        new: &[TupleColumn<'r>],
    ) -> Result<Option<Header<'r>>, ValueError> {
        let keys = self.changed_keys(topic, old, new)?;
        Ok(keys.map(|(_, after)| header(NEW_KEY_HEADER, after)))
    }

    fn changed_keys<'r>(
        &self,
        topic: &str,
        old: &[TupleColumn<'r>],
        new: &[TupleColumn<'r>],
    ) -> Result<Option<(Struct<'r>, Struct<'r>)>, ValueError> {
        let keys = self.key(topic, old)?.zip(self.key(topic, new)?);
        Ok(keys.filter(|(before, after)| before != after))
    }

    /// The key of a row; none where the table has none.
    ///
    /// # Errors
    /// When a value of the key is not in the form of its type.
    pub fn key<'r>(
        &self,
        topic: &str,
        tuple: &[TupleColumn<'r>],
    ) -> Result<Option<Struct<'r>>, ValueError> {
        let Some(schema) = self.key_schema(topic) else { return Ok(None) };
        let mut values = Vec::with_capacity(schema.fields.len());
        for (index, column) in self.columns.iter().enumerate() {
            if column.key {
                values.push(self.read(index, tuple)?);
            }
        }
        Ok(Some(Struct::from_parts(schema, values)))
    }
}

fn header<'r>(name: &'static str, key: Struct<'r>) -> Header<'r> {
    let schema = Some(Arc::clone(key.schema()));
    Header { name: Cow::Borrowed(name), schema, value: Value::Struct(Box::new(key)) }
}
