//! The table of forms that are taken, the table of what is poison, and the proof that no bytes panic.

use chrono::NaiveDate;
use proptest::prelude::*;

use super::*;
use crate::message::Header;

const ID: &str = "00000000-0000-4000-8000-000000000001";
const PLAIN: &str = r#"{"id":1,"customerId":123,"orderDate":"2019-01-31T12:13:01","lineItems":[{"id":1,"item":"Debezium in Action","status":"ENTERED","quantity":2,"totalPrice":39.98}]}"#;

fn message(headers: &[(&str, &str)], value: impl Into<String>) -> Message {
    let headers = headers
        .iter()
        .map(|(name, value)| Header {
            name: (*name).to_owned(),
            value: Some(value.as_bytes().to_vec()),
        })
        .collect();
    Message { headers, value: Some(value.into().into_bytes()), ..Message::default() }
}

/// Text as a JSON string, as a converter quotes it.
fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

fn of_the_first_order(event: &OrderEvent) -> bool {
    let expected = OrderCreated {
        order_id: 1,
        customer_id: 123,
        order_date: NaiveDate::from_ymd_opt(2019, 1, 31).unwrap().and_hms_opt(12, 13, 1).unwrap(),
    };
    event.event_id == Uuid::parse_str(ID).unwrap()
        && event.event_type == "OrderCreated"
        && matches!(&event.content, Content::OrderCreated { order, payload } if *order == expected && payload == PLAIN)
}

#[test]
fn every_known_form_is_the_same_event() {
    let headers = [("id", ID), ("eventType", "OrderCreated")];
    let spaced = PLAIN.replace(',', " ,\n\t").replace(':', ": ").replace("12: 13: 01", "12:13:01");
    let of_2019 = format!(
        r#"{{"eventType":"OrderCreated","ts_ms":1548936781000,"payload":{}}}"#,
        quoted(PLAIN)
    );
    let forms: Vec<(&str, Message)> = vec![
        ("our relay: plain JSON", message(&headers, PLAIN)),
        ("plain JSON on several lines", message(&headers, spaced)),
        ("the original: JSON in a JSON string", message(&headers, quoted(PLAIN))),
        ("a string in a string in a string", message(&headers, quoted(&quoted(&quoted(PLAIN))))),
        (
            "the schema envelope with an object",
            message(
                &headers,
                format!(r#"{{"schema":{{"type":"struct","fields":[]}},"payload":{PLAIN}}}"#),
            ),
        ),
        (
            "the schema envelope with a string",
            message(
                &headers,
                format!(
                    r#"{{"schema":{{"type":"string","name":"io.debezium.data.Json"}},"payload":{}}}"#,
                    quoted(PLAIN)
                ),
            ),
        ),
        (
            "the payload comes before the schema",
            message(&headers, format!(r#"{{"payload":{PLAIN},"schema":null}}"#)),
        ),
        (
            "2019: header eventId, the type in the value",
            message(&[("eventId", ID)], of_2019.clone()),
        ),
        (
            "2019, with schemas",
            message(
                &[("eventId", ID)],
                format!(r#"{{"schema":{{"type":"struct"}},"payload":{of_2019}}}"#),
            ),
        ),
        (
            "the present router that plays 2019",
            message(
                &[("id", ID), ("eventId", ID)],
                format!(r#"{{"payload":{},"eventType":"OrderCreated"}}"#, quoted(PLAIN)),
            ),
        ),
    ];
    check_forms(forms);
}

#[test]
fn headers_come_in_many_forms_too() {
    let headers = [("id", ID), ("eventType", "OrderCreated")];
    let forms: Vec<(&str, Message)> = vec![
        (
            "quoted headers",
            message(&[("id", &quoted(ID)), ("eventType", &quoted("OrderCreated"))], PLAIN),
        ),
        (
            "headers in the schema envelope",
            message(
                &[
                    ("id", &format!(r#"{{"schema":{{"type":"string"}},"payload":"{ID}"}}"#)),
                    ("eventType", r#"{"schema":null,"payload":"OrderCreated"}"#),
                ],
                PLAIN,
            ),
        ),
        (
            "Debezium's context headers come before",
            message(
                &[("__debezium.context.taskId", "0"), ("id", ID), ("eventType", "OrderCreated")],
                PLAIN,
            ),
        ),
        (
            "the last of several headers of one name counts",
            message(
                &[("id", "x"), ("id", ID), ("eventType", "x"), ("eventType", "OrderCreated")],
                PLAIN,
            ),
        ),
        (
            "the header decides before the value",
            message(&headers, format!(r#"{{"eventType":"InvoiceCreated","payload":{PLAIN}}}"#)),
        ),
    ];
    check_forms(forms);
}

fn check_forms(forms: Vec<(&str, Message)>) {
    for (form, message) in forms {
        let event = read(&message).unwrap_or_else(|poison| panic!("{form}: {poison}"));
        assert!(of_the_first_order(&event), "{form}: {event:?}");
    }
}

#[test]
fn numbers_may_be_strings() {
    for (id, customer_id) in [("7", "\"123\""), ("\"7\"", "123"), ("\" 7 \"", "\"123\"")] {
        let value = format!(
            r#"{{"id":{id},"customerId":{customer_id},"orderDate":"2019-01-31T12:13:01"}}"#
        );
        let event = read(&message(&[("id", ID), ("eventType", "OrderCreated")], value)).unwrap();
        let Content::OrderCreated { order, .. } = event.content else { panic!("{event:?}") };
        assert_eq!((order.order_id, order.customer_id), (7, 123));
    }
}

#[test]
fn order_dates_come_in_many_forms() {
    for (form, expected) in [
        (r#""2019-01-31T12:13:01""#, "2019-01-31T12:13:01"),
        (r#""2019-01-31T12:13""#, "2019-01-31T12:13:00"),
        (r#""2019-01-31T12:13:01.1""#, "2019-01-31T12:13:01.100"),
        (r#""2019-01-31T12:13:01.123456""#, "2019-01-31T12:13:01.123456"),
        (r#""2019-01-31T12:13:01.123456789""#, "2019-01-31T12:13:01.123456789"),
        (r#""2019-01-31 12:13:01""#, "2019-01-31T12:13:01"),
        (r#""2019-01-31T12:13:01Z""#, "2019-01-31T12:13:01"),
        (r#""2019-01-31T12:13Z""#, "2019-01-31T12:13:00"),
        (r#""2019-01-31T12:13:01+01:00""#, "2019-01-31T11:13:01"),
        ("1548936781000000", "2019-01-31T12:13:01"),
        ("1548936781000001", "2019-01-31T12:13:01.000001"),
        ("[2019,1,31,12,13]", "2019-01-31T12:13:00"),
        ("[2019,1,31,12,13,1]", "2019-01-31T12:13:01"),
        ("[2019,1,31,12,13,1,100000000]", "2019-01-31T12:13:01.100"),
    ] {
        let value = serde_json::from_str(form).unwrap();
        let date = order_date::read(&value).unwrap_or_else(|problem| panic!("{form}: {problem}"));
        assert_eq!(date, expected.parse::<NaiveDateTime>().unwrap(), "{form}");
    }
    for form in [
        "null",
        "true",
        "{}",
        r#""""#,
        r#""yesterday""#,
        r#""2019-02-30T12:13:01""#,
        r#""2019-01-31T25:00:00""#,
        r#""2019-01-31T12:13:60""#,
        r#""2019-01-31T23:59:60Z""#,
        "[2019,1,31,12,13,59,1500000000]",
        "1.5",
        "9223372036854775807",
        "[2019,1,31]",
        "[2019,13,31,0,0]",
        "[2019,1,31,0,0,0,0,0]",
        "[2019,-1,31,0,0]",
        r#"["2019",1,31,0,0]"#,
        r#""+12345-01-31T12:13:01""#,
        r#""0001-01-01T00:00:00""#,
    ] {
        let value = serde_json::from_str(form).unwrap();
        assert!(order_date::read(&value).is_err(), "{form} was taken");
    }
}

#[test]
fn a_line_update_is_read_for_the_log_and_an_unknown_type_is_not_looked_at() {
    let headers = [("id", ID), ("eventType", "OrderLineUpdated")];
    let payload = r#"{"orderId":1,"orderLineId":2,"oldStatus":"ENTERED","newStatus":"CANCELLED"}"#;
    for value in [payload.to_owned(), quoted(payload)] {
        let event = read(&message(&headers, value)).unwrap();
        assert_eq!(event.content, Content::OrderLineUpdated { payload: payload.to_owned() });
    }
    let unknown = Message { value: None, ..message(&[("id", ID), ("eventType", "OrderLost")], "") };
    assert_eq!(read(&unknown).unwrap().content, Content::Unknown);
    assert_eq!(
        read(&message(&[("id", ID), ("eventType", "OrderLost")], "\u{0}")).unwrap().content,
        Content::Unknown
    );
}

#[test]
fn poison_has_a_reason() {
    let created = [("id", ID), ("eventType", "OrderCreated")];
    let with = |value: &str| message(&created, value);
    let tombstone = Message { value: None, ..with("") };
    let binary = Message { value: Some(vec![0xff, 0xfe]), ..with("") };
    let mut binary_header = with(PLAIN);
    binary_header.headers[0].value = Some(vec![0xff]);
    let wrapped = (0..20).fold(PLAIN.to_owned(), |text, _| format!(r#"{{"payload":{text}}}"#));
    for (kind, message) in [
        ("no-event-id", message(&[("eventType", "OrderCreated")], PLAIN)),
        ("bad-event-id", message(&[("id", "1"), ("eventType", "OrderCreated")], PLAIN)),
        ("bad-event-id", message(&[("id", ""), ("eventType", "OrderCreated")], PLAIN)),
        ("no-event-type", message(&[("id", ID)], PLAIN)),
        ("no-event-type", Message { value: None, ..message(&[("id", ID)], "") }),
        ("bad-header", binary_header),
        ("bad-header", message(&[("id", &"x".repeat(2000)), ("eventType", "OrderCreated")], PLAIN)),
        ("no-value", tombstone),
        ("unreadable-value", binary),
        ("unreadable-value", message(&[("id", ID)], "{")),
        ("unreadable-value", with("")),
        ("unreadable-value", with("null")),
        ("unreadable-value", with("[]")),
        ("unreadable-value", with("1")),
        ("unreadable-value", with("\"text\"")),
        ("unreadable-value", with("{\"id\":1")),
        ("unreadable-value", with(&format!("{PLAIN} and more"))),
        ("unreadable-value", with("Struct{payload={\"id\": 7},eventType=Created}")),
        ("unreadable-value", with(&wrapped)),
        ("bad-field", with("{}")),
        ("bad-field", with(r#"{"id":1,"customerId":123}"#)),
        ("bad-field", with(r#"{"id":null,"customerId":123,"orderDate":"2019-01-31T12:13:01"}"#)),
        ("bad-field", with(r#"{"id":1.5,"customerId":123,"orderDate":"2019-01-31T12:13:01"}"#)),
        ("bad-field", with(r#"{"id":1,"customerId":"Bob","orderDate":"2019-01-31T12:13:01"}"#)),
        (
            "bad-field",
            with(r#"{"id":99999999999999999999,"customerId":1,"orderDate":"2019-01-31T12:13:01"}"#),
        ),
        ("bad-field", with(r#"{"id":1,"customerId":123,"orderDate":"soon"}"#)),
    ] {
        let poison = read(&message).expect_err(&format!("{message:?} should be {kind}"));
        assert_eq!(poison.kind(), kind, "{poison}: {message:?}");
    }
}

#[test]
fn the_payload_of_the_log_is_one_line_whatever_is_in_it() {
    let value = "{ \"id\" : 1,\r\n \"item\": \"two  words, a \\\" and a \\\\\" ,\n\"x\":[ 1, 2 ] }";
    let event = read(&message(&[("id", ID), ("eventType", "OrderLineUpdated")], value)).unwrap();
    let expected = r#"{"id":1,"item":"two  words, a \" and a \\","x":[1,2]}"#;
    assert_eq!(event.content, Content::OrderLineUpdated { payload: expected.to_owned() });
}

#[test]
fn keys_are_shown_without_quotes() {
    for (key, shown) in [
        (Some("1"), "1"),
        (Some("\"1\""), "1"),
        (Some(r#"{"schema":{"type":"string","optional":false},"payload":"1"}"#), "1"),
        (Some(r#"{"schema":{"type":"int64"},"payload":1}"#), "1"),
        (Some("{"), "{"),
        (Some("\"1"), "\"1"),
        (None, "null"),
    ] {
        assert_eq!(display_key(key.map(str::as_bytes)), shown);
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(
        id in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..64)),
        event_type in proptest::option::of("OrderCreated|OrderLineUpdated|.{0,20}"),
        key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..32)),
        value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..256)),
        good_id in any::<bool>(),
    ) {
        let id = if good_id { Some(ID.as_bytes().to_vec()) } else { id };
        let headers = vec![
            Header { name: "id".to_owned(), value: id },
            Header { name: "eventType".to_owned(), value: event_type.map(String::into_bytes) },
        ];
        let message = Message { headers, key, value, ..Message::default() };
        let _ = read(&message);
        let _ = display_key(message.key.as_deref());
    }

    #[test]
    fn no_json_like_text_panics(text in r#"[\[\]{}",:\\ a-z0-9.eE+-]{0,200}"#, wrap in any::<bool>()) {
        let value = if wrap { format!(r#"{{"payload":{text},"eventType":"OrderCreated"}}"#) } else { text };
        let _ = read(&message(&[("id", ID)], value.clone()));
        let _ = read(&message(&[("id", ID), ("eventType", "OrderCreated")], value));
    }

    #[test]
    fn any_order_is_read_back_through_any_wrapping(
        id in any::<i64>(),
        customer_id in any::<i64>(),
        item in ".{0,30}",
        wrappings in proptest::collection::vec(0_usize..3, 0..=4),
    ) {
        let payload = serde_json::json!({
            "id": id, "customerId": customer_id, "orderDate": "2019-01-31T12:13:01", "lineItems": [{ "item": item }],
        }).to_string();
        let value = wrappings.iter().fold(payload.clone(), |text, wrapping| match wrapping {
            0 => quoted(&text),
            1 => format!(r#"{{"schema":{{}},"payload":{text}}}"#),
            _ => format!(r#"{{"eventType":"OrderCreated","payload":{}}}"#, quoted(&text)),
        });
        let event = read(&message(&[("id", ID), ("eventType", "OrderCreated")], value)).unwrap();
        let Content::OrderCreated { order, payload: read_payload } = event.content else { panic!("no order") };
        prop_assert_eq!((order.order_id, order.customer_id), (id, customer_id));
        prop_assert_eq!(read_payload, payload);
    }
}
