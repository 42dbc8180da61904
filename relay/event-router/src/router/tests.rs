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

proptest! {
    #[test]
    fn any_payload_and_routing_value_are_routed_without_panic(payload in "\\PC{0,40}", routed_by in "\\PC{0,10}") {
        let mut row = row(Value::String(payload.into()));
        row[1] = Value::String(routed_by.clone().into());
        let options = [(EXPAND_JSON_PAYLOAD, "true"), (FIELDS_ADDITIONAL_PLACEMENT, "type:envelope")];
        if let Ok(Outcome::Routed(event, _)) = route(&mut router(&options), Operation::Create, &row) {
            prop_assert!(event.topic.ends_with(&routed_by));
        }
    }
}
