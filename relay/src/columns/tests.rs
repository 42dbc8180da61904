//! A value of each kind in each mode; what the catalogue adds.

use std::collections::HashMap;

use event_router::data::Type;
use pgoutput::{Column as WireColumn, ReplicaIdentity};

use super::*;

fn relation<'r>(columns: &[(&'r str, u32, i32)]) -> Relation<'r> {
    let column = |&(name, type_id, type_modifier): &(&'r str, u32, i32)| WireColumn {
        key: false,
        name,
        type_id,
        type_modifier,
    };
    Relation {
        id: 1,
        namespace: "public",
        name: "outbox",
        replica_identity: ReplicaIdentity::Default,
        columns: columns.iter().map(column).collect(),
    }
}

fn check(type_id: u32, modifier: i32, modes: &ValueModes, text: &str, schema: &str, value: &str) {
    let relation = relation(&[("c", type_id, modifier)]);
    let columns = TableColumns::new(&relation, &HashMap::new(), modes);
    let known = &columns.columns[0];
    let read = columns.read(0, &[TupleColumn::Text(text.as_bytes())]).expect("a legal text");
    let name =
        known.schema.name.clone().unwrap_or_else(|| known.schema.kind.java_name().to_owned());
    assert_eq!((name.as_str(), read.to_java_text().as_str()), (schema, value), "{text}");
}

#[test]
fn times_are_written_by_their_precision() {
    let modes = ValueModes::default();
    check(1082, -1, &modes, "2020-02-29", "io.debezium.time.Date", "18321");
    check(1082, -1, &modes, "0044-03-15 BC", "io.debezium.time.Date", "-735160");
    check(1083, -1, &modes, "13:14:15.123456", "io.debezium.time.MicroTime", "47655123456");
    check(1083, 3, &modes, "13:14:15.123", "io.debezium.time.Time", "47655123");
    check(
        1114,
        -1,
        &modes,
        "2020-02-29 13:14:15.123456",
        "io.debezium.time.MicroTimestamp",
        "1582982055123456",
    );
    check(
        1114,
        3,
        &modes,
        "2020-02-29 13:14:15.123",
        "io.debezium.time.Timestamp",
        "1582982055123",
    );
    check(1114, -1, &modes, "infinity", "io.debezium.time.MicroTimestamp", "9223372036854775807");
    check(
        1184,
        -1,
        &modes,
        "2020-06-01 10:00:00.5+00",
        "io.debezium.time.ZonedTimestamp",
        "2020-06-01T10:00:00.500000Z",
    );
    check(
        1184,
        0,
        &modes,
        "9999-12-31 23:59:59+00",
        "io.debezium.time.ZonedTimestamp",
        "9999-12-31T23:59:59Z",
    );
    check(
        1184,
        -1,
        &modes,
        "0044-03-15 12:00:00+00 BC",
        "io.debezium.time.ZonedTimestamp",
        "-0043-03-15T12:00:00.000000Z",
    );
    check(1266, -1, &modes, "01:02:03+05:30", "io.debezium.time.ZonedTime", "19:32:03Z");
    check(1266, -1, &modes, "24:00:00+00", "io.debezium.time.ZonedTime", "24:00:00Z");
}

#[test]
fn intervals_are_read_in_every_style() {
    let numeric = ValueModes::default();
    let text = ValueModes { interval: IntervalMode::String, ..ValueModes::default() };
    let name = "io.debezium.time.MicroDuration";
    check(1186, -1, &numeric, "1 year 2 mons 3 days 04:05:06.789", name, "37091106789000");
    let name = "io.debezium.time.Interval";
    check(1186, -1, &text, "1 year 2 mons 3 days 04:05:06.789", name, "P1Y2M3DT4H5M6.789S");
    check(1186, -1, &text, "P1Y2M3DT4H5M6.789S", name, "P1Y2M3DT4H5M6.789S");
    check(
        1186,
        -1,
        &text,
        "@ 1 year 2 mons 3 days 4 hours 5 mins 6.789 secs",
        name,
        "P1Y2M3DT4H5M6.789S",
    );
    check(1186, -1, &text, "@ 1 mon -2 days ago", name, "P0Y-1M2DT0H0M0S");
    check(1186, -1, &text, "+1-2 +3 +4:05:06.789", name, "P0Y0M0DT4H5M6.789S");
    check(1186, -1, &text, "00:00:00.000001", name, "P0Y0M0DT0H0M0.000001S");
}

#[test]
fn numbers_keep_their_scale() {
    let modes = ValueModes::default();
    let numeric_10_3 = (10 << 16 | 3) + 4;
    check(
        1700,
        numeric_10_3,
        &modes,
        "123.450",
        "org.apache.kafka.connect.data.Decimal",
        "123.450",
    );
    check(790, -1, &modes, "-$1,234.56", "org.apache.kafka.connect.data.Decimal", "-1234.56");
    let text = ValueModes { decimal: DecimalMode::String, ..ValueModes::default() };
    check(1700, -1, &text, "NaN", "STRING", "NAN");
    check(1700, -1, &text, "10000000000", "STRING", "10000000000");
    check(700, -1, &modes, "1.1", "FLOAT32", "1.1");
    check(701, -1, &modes, "-Infinity", "FLOAT64", "-Infinity");
}

#[test]
fn arrays_bits_and_maps_are_read() {
    let modes = ValueModes::default();
    check(1007, -1, &modes, "{1,NULL,3}", "ARRAY", "[1, null, 3]");
    check(1007, -1, &modes, "{{1,2},{3,4}}", "ARRAY", "[null, null]");
    check(1009, -1, &modes, r#"{NULL,"null","a\"b",c}"#, "ARRAY", "[null, null, a\"b, c]");
    check(1560, 1, &modes, "1", "BOOLEAN", "true");
    assert_eq!(value::bits("10000001"), [0x81]);
    assert_eq!(value::bits("0000000101"), [5]);
    let entries = hstore::value(r#""a"=>"1", "b"=>NULL, "c"=>"x y""#, HstoreMode::Json);
    assert_eq!(
        entries.map(|json| json.to_java_text()),
        Some(r#"{"a":"1","b":null,"c":"x y"}"#.to_owned())
    );
}

#[test]
fn types_without_a_rule_are_left_out_unless_asked_for() {
    let relation = relation(&[("a", 23, -1), ("pair", 16_400, -1), ("b", 25, -1)]);
    let types = TypeRegistry::default();
    let columns =
        TableColumns::with_catalog(&relation, &Catalog::default(), &types, &ValueModes::default());
    let table = columns.table("golden", "public", "outbox");
    assert_eq!(
        table.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert_eq!(table.value_schema_name, "golden.public.outbox.Value");
    let tuple = [TupleColumn::Text(b"1"), TupleColumn::Text(b"(1,x)"), TupleColumn::Text(b"text")];
    assert_eq!(columns.read(1, &tuple), Ok(Value::text("text")));
}

#[test]
fn the_catalogue_adds_nullability_defaults_and_labels() {
    let text = |text: &str| Some(text.to_owned());
    let mut types = TypeRegistry::default();
    types.learn(&[
        text("16400"),
        text("mood"),
        text("e"),
        text("E"),
        text("0"),
        text("-1"),
        None,
        text("sad\u{1f}ok"),
    ]);
    let mut catalog = Catalog::default();
    catalog.learn(&[text("n"), text("false"), text("5"), text("0")]);
    catalog.learn(&[text("m"), text("true"), text("'sad'::public.mood"), None]);
    let relation = relation(&[("n", 23, -1), ("m", 16_400, -1)]);
    let columns = TableColumns::with_catalog(&relation, &catalog, &types, &ValueModes::default());
    let table = columns.table("golden", "public", "outbox");
    let number = &table.columns[0];
    assert!(!number.schema.optional && number.key);
    assert_eq!(number.schema.default, Some(Value::Int32(5)));
    let mood = &table.columns[1].schema;
    assert_eq!((mood.kind, mood.parameter("allowed")), (Type::String, Some("sad,ok")));
    assert_eq!(mood.default, Some(Value::text("sad")));
}

#[test]
fn defaults_are_literals_or_a_zero_for_functions() {
    let default = |kind: &Kind, expression: &str| {
        default::value(kind, None, expression, &ValueModes::default())
            .map(|value| value.to_java_text())
    };
    assert_eq!(default(&Kind::Text, "'x''y'::text").as_deref(), Some("x'y"));
    assert_eq!(default(&Kind::Text, "NULL::character varying"), None);
    assert_eq!(default(&Kind::Timestamp(6), "now()").as_deref(), Some("0"));
    assert_eq!(default(&Kind::Timestamp(6), "CURRENT_TIMESTAMP").as_deref(), Some("0"));
    let expression = "'2020-01-01 00:00:00'::timestamp without time zone";
    assert_eq!(default(&Kind::Timestamp(6), expression).as_deref(), Some("1577836800000000"));
    assert_eq!(default(&Kind::Int64, "nextval('s'::regclass)").as_deref(), Some("0"));
    assert_eq!(default(&Kind::Int32, "(1 + 2)"), None);
}

#[test]
fn a_value_that_was_not_sent_is_the_placeholder() {
    let modes = ValueModes { placeholder: "toast!".to_owned(), ..ValueModes::default() };
    let relation = relation(&[("t", 25, -1), ("b", 17, -1)]);
    let columns = TableColumns::new(&relation, &HashMap::new(), &modes);
    let tuple = [TupleColumn::UnchangedToast, TupleColumn::UnchangedToast];
    assert_eq!(columns.read(0, &tuple), Ok(Value::text("toast!")));
    assert_eq!(columns.read(1, &tuple), Ok(Value::Bytes(b"toast!".as_slice().into())));
}

proptest::proptest! {
    #[test]
    fn no_text_of_any_type_makes_a_value_panic(
        type_id in proptest::sample::select(vec![
            16_u32, 17, 19, 20, 21, 23, 25, 600, 601, 602, 603, 604, 628, 700, 718, 790, 1007, 1009, 1082, 1083, 1114,
            1184, 1186, 1266, 1560, 1562, 1700,
        ]),
        modifier in -1..20_i32,
        text in "[-+:. 0-9]{0,30}|\\PC{0,30}|[{}\",\\\\a0-9]{0,20}|-?[0-9]{1,25} (year|mon|day)s?",
    ) {
        let relation = relation(&[("c", type_id, modifier)]);
        for time_precision in [TimePrecisionMode::Adaptive, TimePrecisionMode::Connect, TimePrecisionMode::IsoString] {
            let modes = ValueModes { time_precision, ..ValueModes::default() };
            let columns = TableColumns::new(&relation, &HashMap::new(), &modes);
            let _ = columns.read(0, &[TupleColumn::Text(text.as_bytes())]);
        }
    }
}
