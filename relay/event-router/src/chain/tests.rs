//! Chains in which the router is not alone.

use std::sync::Arc;

use super::*;
use crate::change::{Change, Column, Operation, Row, Table, ValueError};
use crate::data::{Schema, Type, Value};
use crate::envelope::{Envelope, Key, MessageSchemas, Source, TransactionBlock};
use crate::event::RouteError;

const ROUTER: (&str, &str) =
    ("transforms.outbox.type", "io.debezium.transforms.outbox.EventRouter");
const DECODE: (&str, &str) = (
    "transforms.decode.type",
    "io.debezium.connector.postgresql.transforms.DecodeLogicalDecodingMessageContent",
);

fn chain(options: &[(&str, &str)]) -> Chain {
    let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Chain::parse(&options.collect()).expect("legal options").0
}

fn source() -> Source<'static> {
    Source {
        server: "dbserver1",
        database: "orderdb",
        commit_ts_us: 1,
        sequence: String::new(),
        schema: "inventory",
        table: "outboxevent",
        transaction: None,
        lsn: 1,
        origin: None,
    }
}

struct OutboxEnvelope;

impl Envelope<'static> for OutboxEnvelope {
    fn topic(&self) -> &str {
        "dbserver1.inventory.outboxevent"
    }

    fn key(&self) -> Result<Key<'static>, ValueError> {
        Ok(Key { schema: None, value: Value::Null })
    }

    fn source(&self) -> Source<'_> {
        source()
    }

    fn transaction(&self) -> Option<TransactionBlock> {
        None
    }

    fn event_ts_us(&self) -> i64 {
        7_000
    }
}

fn outbox() -> Arc<Table> {
    let column = |name: &&str| Column {
        name: (*name).to_owned(),
        schema: Arc::new(Schema::new(Type::String)),
        key: *name == "id",
    };
    Arc::new(Table {
        schema: "inventory".to_owned(),
        name: "outboxevent".to_owned(),
        value_schema_name: "dbserver1.inventory.outboxevent.Value".to_owned(),
        columns: ["id", "aggregatetype", "aggregateid", "type", "payload"]
            .iter()
            .map(column)
            .collect(),
    })
}

fn change(chain: &mut Chain, operation: Operation) -> Result<Output<'static>, RouteError> {
    let row = vec!["e1", "Order", "1", "OrderCreated", "{}"].into_iter().map(Value::text);
    let row: Vec<Value<'static>> = row.collect();
    let table = outbox();
    let after: Option<&dyn Row<'static>> = Some(&row);
    let change = Change { table: &table, operation, after, event_ts_ms: 7, headers: Vec::new() };
    chain.apply(Input::Change(RawChange { change, before: None, envelope: &OutboxEnvelope }))
}

fn message(chain: &mut Chain, content: &'static str) -> Result<Output<'static>, RouteError> {
    let schemas = MessageSchemas::new(Schema::new(Type::Bytes));
    let content = Value::Bytes(content.as_bytes().into());
    let topic = "dbserver1.message".to_owned();
    let event = schemas.event(topic, &source(), "outbox", content, 7);
    chain.apply(Input::Event(Box::new(event)))
}

#[test]
fn a_router_takes_a_change_that_another_transform_has_touched() {
    let header = "org.apache.kafka.connect.transforms.InsertHeader";
    let mut chain = chain(&[
        ("transforms", "mark,outbox"),
        ("transforms.mark.type", header),
        ("transforms.mark.header", "source"),
        ("transforms.mark.value.literal", "relay"),
        ROUTER,
    ]);
    let output = change(&mut chain, Operation::Create).unwrap();
    let event = output.event.expect("an event");
    assert_eq!(event.topic, "outbox.event.Order");
    assert_eq!(event.key, Value::text("1"));
    assert_eq!(event.timestamp, Some(7));
    let names: Vec<&str> = event.headers.iter().map(|header| &*header.name).collect();
    assert_eq!(names, ["source", "id"]);
    let output = change(&mut chain, Operation::Update).unwrap();
    assert_eq!(output.skipped, Some(Skipped::UpdateWarned));
    assert_eq!(output.event, None);
}

#[test]
fn a_message_with_json_is_an_outbox_without_a_table() {
    let mut chain = chain(&[("transforms", "decode,outbox"), DECODE, ROUTER]);
    let content = r#"{"id":"e1","aggregatetype":"Order","aggregateid":"1","type":"x","payload":{"id":7,"no":null}}"#;
    let event = message(&mut chain, content).unwrap().event.expect("an event");
    assert_eq!(event.topic, "outbox.event.Order");
    assert_eq!(event.key, Value::text("1"));
    assert_eq!(event.value.to_java_text(), "Struct{id=7}");
    assert_eq!(event.headers[0].value, Value::text("e1"));
    // Rows go their way beside them.
    let event = change(&mut chain, Operation::Create).unwrap().event.expect("an event");
    assert_eq!(event.topic, "outbox.event.Order");
}

#[test]
fn a_message_that_is_no_json_object_stops_only_where_it_is_decoded() {
    let mut decoding = chain(&[("transforms", "decode,outbox"), DECODE, ROUTER]);
    for content in ["text", "{", "[1]", "[]", ""] {
        assert!(message(&mut decoding, content).is_err(), "{content}");
    }
    let mut plain = chain(&[("transforms", "outbox"), ROUTER]);
    let event = message(&mut plain, "text").unwrap().event.expect("an event");
    assert_eq!(event.topic, "dbserver1.message");
}

#[test]
fn nulls_of_a_message_are_kept_where_that_is_asked_for() {
    let keep = ("transforms.decode.fields.null.include", "true");
    let mut chain = chain(&[("transforms", "decode"), DECODE, keep]);
    let event = message(&mut chain, r#"{"a":null,"b":1}"#).unwrap().event.expect("an event");
    let text = event.value.to_java_text();
    assert!(text.contains("op=c") && text.contains("after=Struct{b=1}"), "{text}");
    let schema = event.value_schema.expect("a schema");
    let after = &schema.fields[schema.index_of("after").expect("a row")].schema;
    assert_eq!(after.fields.len(), 2);
}
