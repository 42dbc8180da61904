//! The router on rows made by hand, and on arbitrary ones.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::change::Column;
use crate::data::Type;
use crate::options::{
    EXPAND_JSON_PAYLOAD, FIELDS_ADDITIONAL_PLACEMENT, OP_INVALID_BEHAVIOR, ROUTE_TOMBSTONE,
};

fn table() -> Arc<Table> {
    let column = |name: &str, kind, optional| Column {
        name: name.to_owned(),
        schema: Arc::new(Schema::new(kind).with_optional(optional)),
        key: name == "id",
    };
    Arc::new(Table {
        schema: "inventory".to_owned(),
        name: "outboxevent".to_owned(),
        value_schema_name: "dbserver1.inventory.outboxevent.Value".to_owned(),
        columns: vec![
            column("id", Type::String, false),
            column("aggregatetype", Type::String, true),
            column("aggregateid", Type::String, true),
            column("type", Type::String, true),
            column("payload", Type::String, true),
            column("shard", Type::Int32, true),
        ],
    })
}

fn row(payload: Value<'static>) -> Vec<Value<'static>> {
    let text = Value::text;
    vec![text("e1"), text("Order"), text("1"), text("OrderCreated"), payload, Value::Int32(3)]
}

fn router(options: &[(&str, &str)]) -> Router {
    let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Router::new(
        RouterOptions::parse(&options.collect::<BTreeMap<_, _>>()).expect("legal options").0,
    )
}

fn route(
    router: &mut Router,
    operation: Operation,
    row: &Vec<Value<'static>>,
) -> Result<Outcome<'static>, RouteError> {
    let after: Option<&dyn Row<'static>> = Some(row);
    let headers = Vec::new();
    router.route(Change { table: &table(), operation, after, event_ts_ms: 7, headers })
}

fn routed(options: &[(&str, &str)], row: &Vec<Value<'static>>) -> RoutedEvent<'static> {
    match route(&mut router(options), Operation::Create, row) {
        Ok(Outcome::Routed(event, _)) => *event,
        other => panic!("not routed: {other:?}"),
    }
}

#[test]
fn an_insert_becomes_an_event_with_topic_key_and_id() {
    let event = routed(&[], &row(Value::text("{}")));
    assert_eq!(event.topic, "outbox.event.Order");
    assert_eq!(event.key, Value::text("1"));
    assert_eq!(event.value, Value::text("{}"));
    assert_eq!((event.timestamp, event.partition), (Some(7), None));
    assert_eq!(
        (event.headers[0].name.as_ref(), &event.headers[0].value),
        ("id", &Value::text("e1"))
    );
}

#[test]
fn additional_columns_go_where_the_option_says() {
    let placement = "type:header:eventType,shard:partition,type:envelope:kind";
    let event = routed(&[(FIELDS_ADDITIONAL_PLACEMENT, placement)], &row(Value::text("x")));
    assert_eq!((event.headers[1].name.as_ref(), event.partition), ("eventType", Some(3)));
    assert_eq!(event.value.to_java_text(), "Struct{payload=x,kind=OrderCreated}");
    let name = event.value_schema.and_then(|schema| schema.name.clone());
    assert_eq!(name.as_deref(), Some("dbserver1.inventory.outboxevent.Order.Value"));
}

#[test]
fn deletes_are_skipped_and_updates_do_what_the_option_says() {
    let outcome = |options: &[(&str, &str)], operation| {
        route(&mut router(options), operation, &row(Value::Null))
    };
    assert_eq!(outcome(&[], Operation::Delete), Ok(Outcome::Skipped(Skipped::Delete)));
    assert_eq!(outcome(&[], Operation::Update), Ok(Outcome::Skipped(Skipped::UpdateWarned)));
    let reported = outcome(&[(OP_INVALID_BEHAVIOR, "error")], Operation::Update);
    assert_eq!(reported, Ok(Outcome::Skipped(Skipped::UpdateReported)));
    let fatal = outcome(&[(OP_INVALID_BEHAVIOR, "fatal")], Operation::Update);
    assert!(matches!(fatal, Err(RouteError::UnexpectedUpdate { .. })));
}

#[test]
fn an_empty_payload_is_a_tombstone_only_when_asked() {
    let blank = row(Value::text(" \t\n"));
    assert_eq!(routed(&[], &blank).value, Value::text(" \t\n"));
    let tombstone = routed(&[(ROUTE_TOMBSTONE, "true")], &blank);
    assert_eq!((tombstone.value, tombstone.value_schema), (Value::Null, None));
}

#[test]
fn a_mistake_names_its_option_and_column() {
    let wrong = |option: &'static str, value: &str| {
        let error = route(&mut router(&[(option, value)]), Operation::Create, &row(Value::Null));
        error.expect_err("a mistake").to_string()
    };
    assert!(wrong(options::ROUTE_BY_FIELD, "nope").contains("route.by.field names column nope"));
    assert!(wrong(options::ROUTE_BY_FIELD, "shard").contains("not of type STRING"));
    assert!(wrong(options::FIELD_EVENT_TIMESTAMP, "type").contains("not of type INT64"));
    let mut null_topic = row(Value::Null);
    null_topic[1] = Value::Null;
    let error = route(&mut router(&[]), Operation::Create, &null_topic);
    assert!(matches!(error, Err(RouteError::NullTopic { .. })));
}

/// What the router must make of a change, column by column, from the rules as Debezium's documentation has them.
mod reference {
    use super::*;

    /// Columns by name; the last one is a number.
    pub(super) type Columns = BTreeMap<&'static str, Option<String>>;

    pub(super) const NAMES: [&str; 6] =
        ["id", "aggregatetype", "aggregateid", "type", "payload", "shard"];

    /// Topic, key, headers, partition and value, as text.
    pub(super) type Event = (String, String, Vec<(String, String)>, Option<i32>, String);

    pub(super) fn event(
        columns: &Columns,
        placements: &[(&'static str, &'static str, String)],
        tombstones: bool,
    ) -> Option<Event> {
        let text = |name: &str| columns[name].clone().unwrap_or_else(|| "null".to_owned());
        let topic = format!("outbox.event.{}", columns["aggregatetype"].as_ref()?);
        let mut headers = vec![("id".to_owned(), text("id"))];
        let mut partition = None;
        let mut fields = vec![("payload".to_owned(), columns["payload"].clone())];
        for (column, place, alias) in placements {
            match *place {
                "header" => headers.push((alias.clone(), text(column))),
                "partition" => partition = columns["shard"].as_ref().and_then(|n| n.parse().ok()),
                _ => fields.push((alias.clone(), columns[column].clone())),
            }
        }
        let payload = columns["payload"].as_deref().unwrap_or_default();
        let is_empty = payload.trim_matches(|char| char <= ' ').is_empty();
        let has_envelope = fields.len() > 1;
        let value = if tombstones && is_empty {
            "null".to_owned()
        } else if has_envelope {
            let set = fields.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
            let set: Vec<String> = set.map(|(name, value)| format!("{name}={value}")).collect();
            format!("Struct{{{}}}", set.join(","))
        } else {
            text("payload")
        };
        Some((topic, text("aggregateid"), headers, partition, value))
    }
}

/// Any columns in any order, any placements of them, any operation.
fn changes() -> impl Strategy<Value = (reference::Columns, Vec<usize>, Vec<(usize, u8)>, u8, bool)>
{
    let text = || proptest::option::weighted(0.8, "[ a-z{}\\[\\]\"=,é😀\\t]{0,8}");
    let shard = proptest::option::weighted(0.8, any::<i32>().prop_map(|n| n.to_string()));
    let columns = ("[a-f0-9]{1,8}", text(), text(), text(), text(), shard);
    let columns = columns.prop_map(|(id, topic, key, kind, payload, shard)| {
        let values = [Some(id), topic, key, kind, payload, shard];
        reference::NAMES.into_iter().zip(values).collect()
    });
    let order = Just((0..6_usize).collect::<Vec<_>>()).prop_shuffle();
    let placements = proptest::collection::vec((0..6_usize, 0..3_u8), 0..4);
    (columns, order, placements, 0..4_u8, any::<bool>())
}

proptest! {
    #[test]
    fn any_row_is_routed_as_the_rules_say((columns, order, placed, operation, tombstones) in changes()) {
        let mut table = Arc::unwrap_or_clone(table());
        table.columns = order.iter().map(|index| table.columns[*index].clone()).collect();
        let value = |column: &Column| match &columns[&*column.name] {
            None => Value::Null,
            Some(number) if column.name == "shard" => Value::Int32(number.parse().expect("a number")),
            Some(text) => Value::String(text.clone().into()),
        };
        let row: Vec<Value<'static>> = table.columns.iter().map(value).collect();
        let placements: Vec<(&'static str, &'static str, String)> = placed
            .iter()
            .enumerate()
            .map(|(index, (column, place))| match place {
                0 => ("shard", "partition", String::new()),
                1 => (reference::NAMES[*column], "header", format!("h{index}")),
                _ => (reference::NAMES[*column], "envelope", format!("e{index}")),
            })
            .collect();
        let option = placements.iter().map(|(column, place, alias)| match alias.is_empty() {
            true => format!("{column}:{place}"),
            false => format!("{column}:{place}:{alias}"),
        });
        let option = option.collect::<Vec<_>>().join(",");
        let tombstone_option = tombstones.to_string();
        let mut options = vec![(ROUTE_TOMBSTONE, tombstone_option.as_str())];
        if !option.is_empty() {
            options.push((FIELDS_ADDITIONAL_PLACEMENT, &option));
        }
        let operation =
            [Operation::Create, Operation::Read, Operation::Update, Operation::Delete][usize::from(operation)];
        let after: Option<&dyn Row<'static>> = Some(&row);
        let change =
            Change { table: &Arc::new(table), operation, after, event_ts_ms: 7, headers: Vec::new() };
        let outcome = router(&options).route(change);
        match operation {
            Operation::Delete => prop_assert_eq!(outcome, Ok(Outcome::Skipped(Skipped::Delete))),
            Operation::Update => prop_assert_eq!(outcome, Ok(Outcome::Skipped(Skipped::UpdateWarned))),
            _ => match (reference::event(&columns, &placements, tombstones), outcome) {
                (None, outcome) => {
                    let is_told = matches!(outcome, Err(RouteError::NullTopic { .. }));
                    prop_assert!(is_told, "{:?}", outcome);
                }
                (Some(expected), Ok(Outcome::Routed(event, _))) => {
                    let text = |value: &Value<'_>| value.to_java_text();
                    let header = |header: &Header<'_>| (header.name.to_string(), text(&header.value));
                    let found = (
                        event.topic.clone(),
                        text(&event.key),
                        event.headers.iter().map(header).collect::<Vec<_>>(),
                        event.partition,
                        text(&event.value),
                    );
                    prop_assert_eq!(found, expected);
                    prop_assert_eq!(event.timestamp, Some(7));
                }
                (Some(_), other) => prop_assert!(false, "{:?}", other),
            },
        }
    }

    #[test]
    fn any_payload_and_routing_value_are_routed_without_panic(payload in "\\PC{0,40}", routed_by in "\\PC{0,10}") {
        let mut row = row(Value::String(payload.into()));
        row[1] = Value::String(routed_by.clone().into());
        let options = [(EXPAND_JSON_PAYLOAD, "true"), (FIELDS_ADDITIONAL_PLACEMENT, "type:envelope")];
        match route(&mut router(&options), Operation::Create, &row) {
            Ok(Outcome::Routed(event, _)) => prop_assert!(event.topic.ends_with(&routed_by)),
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
