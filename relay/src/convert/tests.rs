//! What each converter makes of a value, and which options it takes from where.

use std::borrow::Cow;

use event_router::Header;
use event_router::data::{Decimal, Struct, Type};

use super::*;

fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn event<'a>(schema: Schema, value: Value<'a>) -> RoutedEvent<'a> {
    RoutedEvent {
        topic: "t".to_owned(),
        partition: None,
        key_schema: Some(Arc::new(Schema::new(Type::String))),
        key: Value::text("k"),
        value_schema: Some(Arc::new(schema)),
        value,
        headers: Vec::new(),
        timestamp: Some(1),
    }
}

const STRING_KEY: (&str, &str) =
    (KEY_CONVERTER, "org.apache.kafka.connect.storage.StringConverter");

fn converted(options: &[(&str, &str)], event: RoutedEvent<'_>) -> Result<Record, ConvertError> {
    let mut all = vec![STRING_KEY];
    all.extend_from_slice(options);
    Converters::parse(&properties(&all), &BTreeMap::new()).expect("legal options").convert(event)
}

fn check(options: &[(&str, &str)], schema: Schema, value: Value<'_>, expected: Option<&str>) {
    let record = converted(options, event(schema, value)).expect("a value that fits");
    let text = record.value.map(|value| String::from_utf8(value).expect("UTF-8"));
    assert_eq!(text.as_deref(), expected);
}

const JSON: (&str, &str) = (VALUE_CONVERTER, "JsonConverter");
const PLAIN: (&str, &str) = ("value.converter.schemas.enable", "false");

#[test]
fn json_has_its_schema_beside_it_unless_switched_off() {
    let schema = || Schema::new(Type::String).with_optional(true).named("io.debezium.data.Json", 1);
    let no_effect = ("value.converter.schemas.cache.size", "1");
    check(&[JSON, PLAIN, no_effect], schema(), Value::text("{\"a\": 1}"), Some(r#""{\"a\": 1}""#));
    check(
        &[JSON],
        schema(),
        Value::text("x"),
        Some(
            r#"{"schema":{"type":"string","optional":true,"name":"io.debezium.data.Json","version":1},"payload":"x"}"#,
        ),
    );
    check(&[JSON, PLAIN], schema(), Value::Null, Some("null"));
}

#[test]
fn a_struct_is_an_object_and_a_default_stands_for_null() {
    let mut with_default = Schema::new(Type::Int32).with_optional(true);
    with_default.default = Some(Value::Int32(5));
    let schema = Schema::structure(Vec::new())
        .with_field("b", Arc::new(Schema::new(Type::Bytes)))
        .with_field("n", Arc::new(with_default));
    let mut fields = Struct::new(&Arc::new(schema.clone())).expect("a struct");
    fields.put("b", Value::Bytes(Cow::Borrowed(&[0, 0xff, 0x10]))).expect("bytes fit");
    let value = || Value::Struct(Box::new(fields.clone()));
    check(&[JSON, PLAIN], schema.clone(), value(), Some(r#"{"b":"AP8Q","n":5}"#));
    let keep_nulls = ("value.converter.replace.null.with.default", "false");
    check(&[JSON, PLAIN, keep_nulls], schema.clone(), value(), Some(r#"{"b":"AP8Q","n":null}"#));
    check(
        &[(VALUE_CONVERTER, "String")],
        schema,
        value(),
        Some("Struct{b=java.nio.HeapByteBuffer[pos=0 lim=3 cap=3]}"),
    );
}

#[test]
fn decimals_are_base64_or_numbers() {
    let schema = || {
        Schema::new(Type::Bytes)
            .named("org.apache.kafka.connect.data.Decimal", 1)
            .with_parameter("scale", "2")
    };
    let value = || Value::Decimal("42.50".parse::<Decimal>().expect("a decimal"));
    check(&[JSON, PLAIN], schema(), value(), Some(r#""EJo=""#));
    let numeric = ("value.converter.decimal.format", "NUMERIC");
    check(&[JSON, PLAIN, numeric], schema(), value(), Some("42.50"));
}

#[test]
fn what_a_converter_cannot_take_is_an_error_of_its_stage() {
    let text = || event(Schema::new(Type::String), Value::text("x"));
    let binary = (VALUE_CONVERTER, "io.debezium.converters.BinaryDataConverter");
    let error = converted(&[binary], text()).expect_err("text without a delegate");
    assert_eq!(error.stage, Stage::Value);
    let delegate = (
        "value.converter.delegate.converter.type",
        "org.apache.kafka.connect.storage.StringConverter",
    );
    assert!(converted(&[binary, delegate], text()).is_ok());
    let mismatch = event(Schema::new(Type::Struct), Value::text("x"));
    let error = converted(&[JSON, PLAIN], mismatch).expect_err("text for a struct");
    assert_eq!(error.reason, "Invalid type for STRUCT: class java.lang.String");
    let mut negative = text();
    negative.partition = Some(-1);
    let error = converted(&[JSON], negative).expect_err("a negative partition");
    assert_eq!(error.stage, Stage::Record);
}

#[test]
fn headers_are_written_by_the_simple_converter_unless_another_is_named() {
    let with_header = |value| {
        let mut event = event(Schema::new(Type::String), Value::text("x"));
        let schema = Some(Arc::new(Schema::new(Type::String).with_optional(true)));
        event.headers.push(Header { name: "h".into(), schema, value });
        event
    };
    let written = |options: &[(&str, &str)], value| {
        let record = converted(options, with_header(value)).expect("a value that fits");
        record.headers[0].1.clone().map(|value| String::from_utf8(value).expect("UTF-8"))
    };
    let list = || Value::Array(vec![Value::text("a\"b"), Value::Null, Value::Int32(1)]);
    assert_eq!(written(&[JSON], list()).as_deref(), Some(r#"["a\"b",null,1]"#));
    assert_eq!(written(&[JSON], Value::text("a\"b")).as_deref(), Some("a\"b"));
    assert_eq!(written(&[JSON], Value::Null), None);
    assert_eq!(written(&[JSON], Value::Date(1_582_934_400_000)).as_deref(), Some("2020-02-29"));
    assert_eq!(written(&[JSON], Value::Date(47_655_123)).as_deref(), Some("13:14:15.123Z"));
    let options =
        [JSON, (HEADER_CONVERTER, "JsonConverter"), ("header.converter.schemas.enable", "false")];
    assert_eq!(written(&options, Value::Null).as_deref(), Some("null"));
}

#[test]
fn a_connectors_converter_takes_no_option_from_the_worker() {
    let worker = properties(&[STRING_KEY, JSON, PLAIN]);
    let converters = Converters::parse(&BTreeMap::new(), &worker).expect("the worker's");
    assert!(converters.writes_plain_json());
    let converters = Converters::parse(&properties(&[JSON]), &worker).expect("the connector's");
    assert!(!converters.writes_plain_json());
}

#[test]
fn unknown_classes_and_values_are_refused_by_their_option() {
    let options = [
        (KEY_CONVERTER, "io.debezium.converters.ByteBufferConverter"),
        JSON,
        ("value.converter.schemas.enable", "maybe"),
        (HEADER_CONVERTER, "String"),
        ("header.converter.encoding", "UTF-16"),
    ];
    let problems =
        Converters::parse(&properties(&options), &BTreeMap::new()).expect_err("three are wrong");
    let names: Vec<_> = problems.iter().map(|problem| problem.option.as_str()).collect();
    assert_eq!(
        names,
        [KEY_CONVERTER, "value.converter.schemas.enable", "header.converter.encoding"]
    );
}

#[test]
fn minus_one_millisecond_is_no_timestamp() {
    let mut without = event(Schema::new(Type::String), Value::text("x"));
    without.timestamp = Some(-1);
    assert_eq!(converted(&[JSON], without).expect("a record").timestamp, None);
}
