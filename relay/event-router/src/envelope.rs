//! Debezium's own events: a change with both images and its source, a deleted row's tombstone, a logical message.
//!
//! They are what a connector publishes without a router, and what passes by a router that a predicate keeps away.

mod message;
mod metadata;

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use crate::change::{Change, Operation, Row, Table, ValueError};
use crate::data::{Field, Schema, Struct, Type, Value};
use crate::event::{Header, RoutedEvent};

pub use message::MessageSchemas;
pub use metadata::{TransactionBlock, heartbeat, transaction_boundary};

/// Version that Debezium writes into `source`; readers compare it, so it is that of the vectors.
pub const DEBEZIUM_VERSION: &str = "3.7.0.Final";

/// Where a change comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source<'a> {
    /// `topic.prefix`.
    pub server: &'a str,
    /// Database.
    pub database: &'a str,
    /// Time of the commit, microseconds since 1970.
    pub commit_ts_us: i64,
    /// JSON text of the last commit's position and of this change's.
    pub sequence: String,
    /// Schema of the table; empty for messages.
    pub schema: &'a str,
    /// Table; empty for messages.
    pub table: &'a str,
    /// Transaction id; none for messages outside of transactions.
    pub transaction: Option<i64>,
    /// Position of the change.
    pub lsn: i64,
    /// Where the transaction came from, if not from this server: name of the origin and the commit's position there.
    pub origin: Option<(&'a str, i64)>,
}

/// A key and its schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Key<'a> {
    /// Schema; none for tables without a key.
    pub schema: Option<Arc<Schema>>,
    /// Struct of the key's columns.
    pub value: Value<'a>,
}

/// What the envelope of a change tells beside the rows. It is asked only for changes that no router takes.
pub trait Envelope<'a> {
    /// Topic of the table.
    fn topic(&self) -> &str;

    /// Key of the row.
    ///
    /// # Errors
    /// When a column's value is not in the form of its type.
    fn key(&self) -> Result<Key<'a>, ValueError>;

    /// Where the change comes from.
    fn source(&self) -> Source<'_>;

    /// Where it stands in its transaction, if that is told.
    fn transaction(&self) -> Option<TransactionBlock>;

    /// When the connector handled it, microseconds since 1970.
    fn event_ts_us(&self) -> i64;
}

/// A change with all that its envelope tells.
pub struct RawChange<'c, 'a> {
    /// The change.
    pub change: Change<'c, 'a>,
    /// The row before the change, where it is known.
    pub before: Option<&'c dyn Row<'a>>,
    /// The rest.
    pub envelope: &'c dyn Envelope<'a>,
}

static STRING: LazyLock<Arc<Schema>> = LazyLock::new(|| Arc::new(Schema::new(Type::String)));
static LONG: LazyLock<Arc<Schema>> = LazyLock::new(|| Arc::new(Schema::new(Type::Int64)));
static OPTIONAL_STRING: LazyLock<Arc<Schema>> =
    LazyLock::new(|| optional(Schema::new(Type::String)));
static OPTIONAL_LONG: LazyLock<Arc<Schema>> = LazyLock::new(|| optional(Schema::new(Type::Int64)));

static SOURCE: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let mut snapshot = Schema::new(Type::String)
        .with_optional(true)
        .named("io.debezium.data.Enum", 1)
        .with_parameter(
            "allowed",
            "true,first,first_in_data_collection,last_in_data_collection,last,false,incremental",
        );
    snapshot.default = Some(Value::text("false"));
    let fields = [
        ("version", &*STRING),
        ("connector", &*STRING),
        ("name", &*STRING),
        ("ts_ms", &*LONG),
        ("snapshot", &Arc::new(snapshot)),
        ("db", &*STRING),
        ("sequence", &*OPTIONAL_STRING),
        ("ts_us", &*OPTIONAL_LONG),
        ("ts_ns", &*OPTIONAL_LONG),
        ("schema", &*STRING),
        ("table", &*STRING),
        ("txId", &*OPTIONAL_LONG),
        ("lsn", &*OPTIONAL_LONG),
        ("xmin", &*OPTIONAL_LONG),
        ("origin", &*OPTIONAL_STRING),
        ("origin_lsn", &*OPTIONAL_LONG),
    ];
    Arc::new(structure(&fields).named("io.debezium.connector.postgresql.Source", 1))
});

static TRANSACTION: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let fields = [("id", &*STRING), ("total_order", &*LONG), ("data_collection_order", &*LONG)];
    optional(structure(&fields).named("event.block", 1))
});

/// The event of a change, as it goes out without a router.
///
/// # Errors
/// When a column's value is not in the form of its type.
pub fn change_event<'a>(raw: RawChange<'_, 'a>) -> Result<RoutedEvent<'a>, ValueError> {
    let table = raw.change.table;
    let row_schema = row_schema(table);
    let schema = envelope_schema(raw.envelope.topic(), &row_schema);
    let event_ts_us = raw.envelope.event_ts_us();
    let values = vec![
        image(table, &row_schema, raw.before)?,
        image(table, &row_schema, raw.change.after)?,
        source_value(&raw.envelope.source()),
        raw.envelope.transaction().map_or(Value::Null, TransactionBlock::value),
        Value::text(code(raw.change.operation)),
        Value::Int64(event_ts_us.div_euclid(1000)),
        Value::Int64(event_ts_us),
        Value::Int64(event_ts_us.saturating_mul(1000)),
    ];
    let value = Struct::from_parts(Arc::clone(&schema), values);
    let key = raw.envelope.key()?;
    Ok(RoutedEvent {
        topic: raw.envelope.topic().to_owned(),
        partition: None,
        key_schema: key.schema,
        key: key.value,
        value_schema: Some(schema),
        value: Value::Struct(Box::new(value)),
        headers: raw.change.headers,
        timestamp: None,
    })
}

/// The tombstone behind a delete (`tombstones.on.delete`).
#[must_use]
pub fn tombstone<'a>(topic: String, key: Key<'a>, headers: Vec<Header<'a>>) -> RoutedEvent<'a> {
    RoutedEvent {
        topic,
        partition: None,
        key_schema: key.schema,
        key: key.value,
        value_schema: None,
        value: Value::Null,
        headers,
        timestamp: None,
    }
}

fn optional(schema: Schema) -> Arc<Schema> {
    Arc::new(schema.with_optional(true))
}

fn structure(fields: &[(&str, &Arc<Schema>)]) -> Schema {
    let fields = fields
        .iter()
        .map(|(name, schema)| Field { name: (*name).to_owned(), schema: Arc::clone(schema) });
    Schema::structure(fields.collect())
}

fn row_schema(table: &Table) -> Arc<Schema> {
    let fields = table
        .columns
        .iter()
        .map(|column| Field { name: column.name.clone(), schema: Arc::clone(&column.schema) });
    let mut schema = Schema::structure(fields.collect());
    schema.name = Some(table.value_schema_name.clone());
    optional(schema)
}

fn envelope_schema(topic: &str, row: &Arc<Schema>) -> Arc<Schema> {
    let fields = [
        ("before", row),
        ("after", row),
        ("source", &*SOURCE),
        ("transaction", &*TRANSACTION),
        ("op", &*STRING),
        ("ts_ms", &*OPTIONAL_LONG),
        ("ts_us", &*OPTIONAL_LONG),
        ("ts_ns", &*OPTIONAL_LONG),
    ];
    // The row's schema is named after the topic, adjusted where asked for; the envelope follows it.
    let name = row.name.as_deref().and_then(|name| name.strip_suffix(".Value")).unwrap_or(topic);
    Arc::new(structure(&fields).named(&format!("{name}.Envelope"), 2))
}

fn image<'a>(
    table: &Table,
    schema: &Arc<Schema>,
    row: Option<&dyn Row<'a>>,
) -> Result<Value<'a>, ValueError> {
    let Some(row) = row else { return Ok(Value::Null) };
    let values = (0..table.columns.len()).map(|index| row.value(index));
    let values = values.collect::<Result<Vec<_>, _>>()?;
    Ok(Value::Struct(Box::new(Struct::from_parts(Arc::clone(schema), values))))
}

fn source_value<'a>(source: &Source<'_>) -> Value<'a> {
    let text = |text: &str| Value::String(Cow::Owned(text.to_owned()));
    let values = vec![
        Value::text(DEBEZIUM_VERSION),
        Value::text("postgresql"),
        text(source.server),
        Value::Int64(source.commit_ts_us.div_euclid(1000)),
        // Null: the default, "false", stands for it.
        Value::Null,
        text(source.database),
        text(&source.sequence),
        Value::Int64(source.commit_ts_us),
        Value::Int64(source.commit_ts_us.saturating_mul(1000)),
        text(source.schema),
        text(source.table),
        source.transaction.map_or(Value::Null, Value::Int64),
        Value::Int64(source.lsn),
        // The slot's xmin, which is not fetched (`xmin.fetch.interval.ms` is off by default).
        Value::Null,
        source.origin.map_or(Value::Null, |(name, _)| text(name)),
        source.origin.map_or(Value::Null, |(_, lsn)| Value::Int64(lsn)),
    ];
    Value::Struct(Box::new(Struct::from_parts(Arc::clone(&SOURCE), values)))
}

const fn code(operation: Operation) -> &'static str {
    match operation {
        Operation::Read => "r",
        Operation::Create => "c",
        Operation::Update => "u",
        Operation::Delete => "d",
        Operation::Truncate => "t",
    }
}
