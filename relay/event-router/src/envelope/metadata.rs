//! Events that are about the stream itself: heartbeats, and begin and end of transactions.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use super::{LONG, OPTIONAL_LONG, STRING, TRANSACTION, optional, structure};
use crate::data::{Schema, Struct, Value};
use crate::event::RoutedEvent;

static HEARTBEAT_KEY: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let fields = [("serverName", &*STRING)];
    Arc::new(structure(&fields).named("io.debezium.connector.common.ServerNameKey", 1))
});
static HEARTBEAT: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let fields = [("ts_ms", &*LONG)];
    Arc::new(structure(&fields).named("io.debezium.connector.common.Heartbeat", 1))
});
static BOUNDARY_KEY: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let fields = [("id", &*STRING)];
    Arc::new(structure(&fields).named("io.debezium.connector.common.TransactionMetadataKey", 1))
});
static COLLECTION: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let fields = [("data_collection", &*STRING), ("event_count", &*LONG)];
    optional(structure(&fields).named("event.collection", 1))
});
static BOUNDARY: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let collections = optional(Schema::array(Arc::clone(&COLLECTION)));
    let fields = [
        ("status", &*STRING),
        ("id", &*STRING),
        ("event_count", &*OPTIONAL_LONG),
        ("data_collections", &collections),
        ("ts_ms", &*LONG),
    ];
    Arc::new(structure(&fields).named("io.debezium.connector.common.TransactionMetadataValue", 1))
});

/// A heartbeat of the server that `topic.prefix` names; always to the first partition.
#[must_use]
pub fn heartbeat(topic: String, server: &str, now_ms: i64) -> RoutedEvent<'static> {
    let key = Struct::from_parts(Arc::clone(&HEARTBEAT_KEY), vec![text(server)]);
    let value = Struct::from_parts(Arc::clone(&HEARTBEAT), vec![Value::Int64(now_ms)]);
    RoutedEvent { partition: Some(0), ..event(topic, key, value) }
}

/// The begin of a transaction, or (with the counts of its changes by table) its end.
#[must_use]
pub fn transaction_boundary(
    topic: String,
    id: &str,
    counts: Option<&[(String, i64)]>,
    commit_ts_ms: i64,
) -> RoutedEvent<'static> {
    let collection = |(name, count): &(String, i64)| {
        let values = vec![text(name), Value::Int64(*count)];
        Value::Struct(Box::new(Struct::from_parts(Arc::clone(&COLLECTION), values)))
    };
    let total = |counts: &[(String, i64)]| counts.iter().map(|(_, count)| count).sum();
    let values = vec![
        Value::text(if counts.is_some() { "END" } else { "BEGIN" }),
        text(id),
        counts.map_or(Value::Null, |counts| Value::Int64(total(counts))),
        counts.map_or(Value::Null, |counts| Value::Array(counts.iter().map(collection).collect())),
        Value::Int64(commit_ts_ms),
    ];
    let key = Struct::from_parts(Arc::clone(&BOUNDARY_KEY), vec![text(id)]);
    event(topic, key, Struct::from_parts(Arc::clone(&BOUNDARY), values))
}

/// Where a change stands in its transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionBlock {
    /// The transaction, and the position of the change.
    pub id: String,
    /// Number of the change in the transaction, from 1.
    pub total_order: i64,
    /// Its number among those of its table, from 1.
    pub collection_order: i64,
}

impl TransactionBlock {
    pub(super) fn value(self) -> Value<'static> {
        let values = vec![
            Value::String(Cow::Owned(self.id)),
            Value::Int64(self.total_order),
            Value::Int64(self.collection_order),
        ];
        Value::Struct(Box::new(Struct::from_parts(Arc::clone(&TRANSACTION), values)))
    }
}

fn text(text: &str) -> Value<'static> {
    Value::String(Cow::Owned(text.to_owned()))
}

fn event(topic: String, key: Struct<'static>, value: Struct<'static>) -> RoutedEvent<'static> {
    RoutedEvent {
        topic,
        partition: None,
        key_schema: Some(Arc::clone(key.schema())),
        key: Value::Struct(Box::new(key)),
        value_schema: Some(Arc::clone(value.schema())),
        value: Value::Struct(Box::new(value)),
        headers: Vec::new(),
        timestamp: None,
    }
}
