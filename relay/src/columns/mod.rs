//! PostgreSQL's column types and text values as Debezium's schemas and values.
//!
//! Pure: the facts of the catalogue come in as arguments. Source of the rules: Debezium's documentation ("Data type
//! mappings" of the PostgreSQL connector) and the conformance vectors.

mod array;
mod catalog;
mod date;
mod default;
mod elements;
mod filter;
mod geometry;
mod hstore;
mod interval;
mod key_change;
mod kind;
mod message;
mod modes;
mod schema;
mod toast;
mod value;

use std::collections::HashMap;
use std::sync::Arc;

use event_router::change::{Column, Row, Table, ValueError};
use event_router::data::{Schema, Type, Value};
use event_router::naming::topic_safe;
use pgoutput::{Relation, TupleColumn};

pub(crate) use date::iso_date;

pub use catalog::{COLUMN_QUERY, Catalog, ColumnFacts, PgType, TYPE_QUERY, TypeForm, TypeRegistry};
pub use key_change::{KeyChange, NEW_KEY_HEADER, OLD_KEY_HEADER};
pub use modes::{BinaryMode, DecimalMode, HstoreMode, IntervalMode, TimePrecisionMode, ValueModes};

use filter::ColumnChange;
use kind::Kind;
use schema::{key_schema, schema_of};
use value::Converter;

/// How a table's columns are read, in one version of its shape.
#[derive(Debug, Clone)]
pub struct TableColumns {
    columns: Vec<KnownColumn>,
    modes: ValueModes,
}

/// A column that Debezium passes on.
#[derive(Debug, Clone)]
struct KnownColumn {
    /// Position in the tuples of the stream.
    position: usize,
    name: String,
    kind: Kind,
    schema: Arc<Schema>,
    /// In the key of raw changes, which knows no masks.
    key_schema: Arc<Schema>,
    /// Place in the key, if it is part of it.
    key: Option<usize>,
    change: Option<ColumnChange>,
}

impl TableColumns {
    /// Columns of a relation, without the catalogue: all may be null, none has a default, and types that are not
    /// built in are known by name alone.
    #[must_use]
    pub fn new(
        relation: &Relation<'_>,
        type_names: &HashMap<u32, String>,
        modes: &ValueModes,
    ) -> Self {
        let mut types = TypeRegistry::default();
        for (oid, name) in type_names {
            types.learn_name(*oid, name);
        }
        Self::with_catalog(relation, &Catalog::default(), &types, modes)
    }

    /// Columns of a relation with what the catalogue says of them now: Debezium asks it when a relation arrives, so
    /// that nullability and defaults are those of that moment, not of the moment of the change.
    #[must_use]
    pub fn with_catalog(
        relation: &Relation<'_>,
        catalog: &Catalog,
        types: &TypeRegistry,
        modes: &ValueModes,
    ) -> Self {
        let namespace =
            if relation.namespace.is_empty() { "pg_catalog" } else { relation.namespace };
        let table = format!("{namespace}.{}", relation.name);
        let columns = relation.columns.iter().enumerate().filter_map(|(position, column)| {
            let full_name = format!("{table}.{}", column.name);
            if !modes.filter.includes(&full_name) {
                return None;
            }
            let facts = catalog.column(column.name);
            let kind = Kind::of(types, column.type_id, column.type_modifier, modes)?;
            let change = modes.filter.change(&full_name, column.type_id, column.type_modifier);
            let mut schema = schema_of(&kind, modes)?;
            // Geometric types are optional whatever the column says.
            schema.optional |= facts.is_none_or(|facts| facts.optional);
            if let Some(expression) = facts.and_then(|facts| facts.default.as_deref())
                && default::is_read(types, column.type_id)
            {
                let type_name = types.name(column.type_id);
                schema.default = default::value(&kind, type_name, expression, modes);
            }
            let key = match facts {
                Some(facts) => facts.key,
                None => column.key.then_some(position),
            };
            let name = modes.field_names.field_name(column.name);
            let key_schema = Arc::new(schema);
            let schema = match &change {
                Some(change) => Arc::new(change.marked(&key_schema)),
                None => Arc::clone(&key_schema),
            };
            Some(KnownColumn { position, name, kind, schema, key_schema, key, change })
        });
        Self { columns: columns.collect(), modes: modes.clone() }
    }

    /// The table as the router sees it.
    #[must_use]
    pub fn table(&self, topic_prefix: &str, schema: &str, name: &str) -> Table {
        let columns = self.columns.iter().map(|column| Column {
            name: column.name.clone(),
            schema: Arc::clone(&column.schema),
            key: column.key.is_some(),
        });
        let topic = self.topic(topic_prefix, schema, name);
        Table {
            schema: schema.to_owned(),
            name: name.to_owned(),
            value_schema_name: self.modes.schema_names.schema_name(&format!("{topic}.Value")),
            columns: columns.collect(),
        }
    }

    /// Topic of the table's raw changes, `prefix.schema.table`, made legal.
    #[must_use]
    pub fn topic(&self, topic_prefix: &str, schema: &str, name: &str) -> String {
        let parts = [topic_prefix, schema, name];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.trim().is_empty()).collect();
        topic_safe(&parts.join(&self.modes.topic_delimiter))
    }

    /// Schema of the key of the table's raw changes; none where it has no key.
    #[must_use]
    pub fn key_schema(&self, topic: &str) -> Option<Arc<Schema>> {
        let name = self.modes.schema_names.schema_name(&format!("{topic}.Key"));
        key_schema(
            &name,
            self.key_columns().map(|column| (column.name.as_str(), &column.key_schema)),
        )
    }

    /// The columns of the key, in its order.
    fn key_columns(&self) -> impl Iterator<Item = &KnownColumn> {
        let mut columns: Vec<_> =
            self.columns.iter().filter_map(|column| Some((column.key?, column))).collect();
        columns.sort_by_key(|(place, _)| *place);
        columns.into_iter().map(|(_, column)| column)
    }

    /// The value of a column of [`Self::table`], from the tuple of the stream.
    ///
    /// # Errors
    /// When the text is not in the form of the column's type.
    pub fn read<'r>(
        &self,
        column: usize,
        tuple: &[TupleColumn<'r>],
    ) -> Result<Value<'r>, ValueError> {
        let sent = self.position(column).and_then(|position| tuple.get(position).copied());
        self.value(column, sent.unwrap_or(TupleColumn::Null))
    }

    /// Where a column of [`Self::table`] stands in the tuples: columns that are left out make the two differ.
    #[must_use]
    pub fn position(&self, column: usize) -> Option<usize> {
        self.columns.get(column).map(|known| known.position)
    }

    /// The value of a column of [`Self::table`], from what the tuple has at its [`Self::position`].
    ///
    /// # Errors
    /// When the text is not in the form of the column's type.
    pub fn value<'r>(&self, column: usize, sent: TupleColumn<'r>) -> Result<Value<'r>, ValueError> {
        let Some(known) = self.columns.get(column) else { return Ok(Value::Null) };
        let value = self.unchanged(known, sent)?;
        Ok(match &known.change {
            Some(change) => change.apply(&known.kind, value),
            None => value,
        })
    }

    /// The value without what masks and truncations make of it.
    fn unchanged<'r>(
        &self,
        known: &KnownColumn,
        sent: TupleColumn<'r>,
    ) -> Result<Value<'r>, ValueError> {
        self.convert(known, sent)
            .map_err(|reason| ValueError { column: known.name.clone(), reason })
    }

    fn convert<'r>(&self, known: &KnownColumn, sent: TupleColumn<'r>) -> Result<Value<'r>, String> {
        Ok(match sent {
            TupleColumn::Null => Converter::null(known, &self.modes),
            TupleColumn::UnchangedToast => toast::placeholder(&known.kind, &self.modes),
            TupleColumn::Binary(_) => {
                return Err("it was sent in binary form, which is not asked for".to_owned());
            }
            TupleColumn::Text(text) => {
                let text = std::str::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())?;
                let value = Converter { modes: &self.modes }.text(&known.kind, text)?;
                self.fitting(known, value)?
            }
        })
    }

    /// A value as its column's schema takes it.
    fn fitting<'r>(&self, known: &KnownColumn, value: Value<'r>) -> Result<Value<'r>, String> {
        let schema = &known.schema;
        match value {
            Value::Struct(structure) => {
                Ok(Value::Struct(Box::new(structure.with_schema(Arc::clone(schema)))))
            }
            // `name` is the one kind whose text Debezium reads as null to begin with.
            Value::Null
                if known.kind == Kind::Name || schema.optional || schema.default.is_some() =>
            {
                Ok(Converter::null(known, &self.modes))
            }
            Value::Null => Err("there is no such value, and it must not be null".to_owned()),
            value => Ok(value),
        }
    }
}

/// A row of the stream, converted column by column when asked.
#[derive(Debug)]
pub struct TupleRow<'c, 'r> {
    /// How the columns are read.
    pub columns: &'c TableColumns,
    /// What was sent.
    pub tuple: Vec<TupleColumn<'r>>,
}

impl<'r> Row<'r> for TupleRow<'_, 'r> {
    fn value(&self, column: usize) -> Result<Value<'r>, ValueError> {
        self.columns.read(column, &self.tuple)
    }
}

/// Null where a column of this kind must not be null (Debezium's fallback).
const fn fallback(kind: Type) -> Value<'static> {
    match kind {
        Type::Boolean => Value::Boolean(false),
        Type::Int8 => Value::Int8(0),
        Type::Int16 => Value::Int16(0),
        Type::Int32 => Value::Int32(0),
        Type::Int64 => Value::Int64(0),
        Type::Float32 => Value::Float32(0.0),
        Type::Float64 => Value::Float64(0.0),
        Type::String => Value::text(""),
        Type::Bytes => Value::Bytes(std::borrow::Cow::Borrowed(&[])),
        Type::Array => Value::Array(Vec::new()),
        Type::Map => Value::Map(Vec::new()),
        Type::Struct => Value::Null,
    }
}

#[cfg(test)]
mod tests;
