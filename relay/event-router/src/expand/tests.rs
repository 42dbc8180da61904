//! Debezium's inference in small, and that the short way writes what the long way would.

use proptest::prelude::*;

use super::*;

fn expand(text: &str) -> Result<String, ExpandError> {
    Expansion::default().expand("payload", text).map(|expanded| expanded.value.to_java_text())
}

#[test]
fn objects_lose_nulls_and_empty_arrays() {
    let text = r#"{"a": null, "b": 1, "c": {"d": []}, "e": [{"f": null, "g": 1.50}]} trailing"#;
    assert_eq!(expand(text), Ok("Struct{b=1,c=Struct{},e=[Struct{g=1.5}]}".to_owned()));
}

#[test]
fn a_repeated_name_keeps_its_place_and_takes_the_last_value() {
    assert_eq!(expand(r#"{"b": 1, "a": 2, "b": 3}"#), Ok("Struct{b=3,a=2}".to_owned()));
}

#[test]
fn what_is_no_object_is_left_as_it_is() {
    for text in [
        "1",
        "\"x\"",
        " {}",
        "",
        "{\"a\": 01}",
        "{a: 1}",
        "{\"a\": [1, \"x\"]}",
        "{\"\": 1}",
        "{\"a\": \"\t\"}",
    ] {
        assert!(matches!(expand(text), Err(ExpandError::Unchanged(_))), "{text}");
    }
}

#[test]
fn some_documents_get_a_schema_that_they_do_not_fit() {
    for text in [
        "[1, 2]",
        "[]",
        "{\"a\": 12345678901234567890}",
        "{\"a\": [[1], [\"x\"]]}",
        "{\"a\": [{\"x\": 1}, {\"x\": \"s\"}]}",
    ] {
        assert!(matches!(expand(text), Err(ExpandError::SchemaReplaced(..))), "{text}");
    }
}

#[test]
fn depth_and_length_end_where_jacksons_do() {
    let nested =
        |levels: usize| format!("{{\"a\": {}1{}}}", "[".repeat(levels), "]".repeat(levels));
    assert!(expand(&nested(999)).is_ok());
    assert!(matches!(expand(&nested(1000)), Err(ExpandError::Unchanged(_))));
    let fraction = |digits: usize| format!("{{\"a\": 0.{}}}", "1".repeat(digits));
    assert!(expand(&fraction(1000)).is_ok());
    assert!(expand(&fraction(1001)).is_err());
}

/// JSON in all the forms that matter to inference.
fn json() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i32>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        any::<f64>()
            .prop_filter("JSON has no NaN", |value| value.is_finite())
            .prop_map(|value| format!("{value:e}")),
        (any::<i32>(), 0..100_000_u32)
            .prop_map(|(whole, fraction)| format!("{whole}.{fraction:05}")),
        "[a-z\\\\u00e9😀\"/ ]{0,6}".prop_map(|text| format!("{:?}", text.replace('\\', ""))),
        Just("\"\\ud83d \\u00e9\\n\"".to_owned()),
        prop_oneof!["-?0", "-?0\\.0", "12345678901234567890", "-?[1-9]0{0,19}"],
    ];
    // Names that are written as they are read, and others.
    let name = prop_oneof![8 => "[abc]{0,1}", 1 => "é|😀|\\\\u0061|a\\\\\"b|\\\\n"];
    scalar.prop_recursive(4, 32, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4)
                .prop_map(|elements| format!("[{}]", elements.join(", "))),
            proptest::collection::vec((name.clone(), inner.clone()), 0..5).prop_map(|members| {
                let members: Vec<_> =
                    members.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
            // The same element several times, as real arrays have it.
            (inner, 1..4_usize)
                .prop_map(|(element, count)| format!("[{}]", vec![element; count].join(","))),
        ]
    })
}

/// What `JsonConverter` without schemas writes for an expanded payload, in the plainest way.
fn long_way(text: &str) -> Option<String> {
    fn write(value: &Value<'_>, out: &mut Vec<u8>) {
        use crate::json_text::{write_double, write_integer, write_string, write_utf16};
        match value {
            Value::Boolean(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Value::Int32(value) => write_integer(i64::from(*value), out),
            Value::Int64(value) => write_integer(*value, out),
            Value::Float64(value) => write_double(*value, out),
            Value::String(text) => write_string(text, out),
            Value::Utf16(units) => write_utf16(units, out),
            Value::Array(elements) => {
                out.push(b'[');
                for (index, element) in elements.iter().enumerate() {
                    out.extend((index > 0).then_some(b','));
                    write(element, out);
                }
                out.push(b']');
            }
            Value::Struct(fields) => {
                out.push(b'{');
                for (index, (field, value)) in
                    fields.schema().fields.iter().zip(fields.values()).enumerate()
                {
                    out.extend((index > 0).then_some(b','));
                    write_string(&field.name, out);
                    out.push(b':');
                    write(value, out);
                }
                out.push(b'}');
            }
            _ => out.extend_from_slice(b"null"),
        }
    }
    let expanded = Expansion::default().expand("payload", text).ok()?;
    let mut out = Vec::new();
    write(&expanded.value, &mut out);
    String::from_utf8(out).ok()
}

/// Documents whose schema is beyond doubt, members without null and arrays whose elements are alike, and with each what
/// must become of it. Made side by side, so that nothing of ours reads them.
fn plain_document() -> impl Strategy<Value = (String, Option<String>)> {
    let same = |text: String| (text.clone(), Some(text));
    let number = |(whole, eighths): (i32, u8)| {
        // What a double has exactly, and Java writes in these digits.
        let text = format!(
            "{whole}.{}",
            ["125", "25", "375", "5", "625", "75", "875"][usize::from(eighths)]
        );
        (text.clone(), Some(text))
    };
    let scalar = prop_oneof![
        any::<bool>().prop_map(move |value| same(value.to_string())),
        any::<i64>().prop_map(move |value| same(value.to_string())),
        (-999_999..1_000_000_i32, 0..7_u8).prop_map(number),
        // Jackson escapes what is outside of the first 65,536.
        "[a-zé😀/ ]{0,6}".prop_map(|text| {
            let quoted = format!("\"{text}\"");
            (quoted.clone(), Some(quoted.replace('😀', "\\uD83D\\uDE00")))
        }),
        Just(("null".to_owned(), None)),
        Just(("[]".to_owned(), None)),
        Just(("{}".to_owned(), Some("{}".to_owned()))),
    ];
    let object = |members: Vec<(String, Option<String>)>| {
        let name = |index: usize| format!("\"m{index}\":");
        let text = members
            .iter()
            .enumerate()
            .map(|(index, (text, _))| format!(" {} {text} ", name(index)));
        let kept = members.iter().enumerate();
        let kept = kept
            .filter_map(|(index, (_, kept))| Some(format!("{}{}", name(index), kept.as_ref()?)));
        let joined = |parts: Vec<String>| format!("{{{}}}", parts.join(","));
        (joined(text.collect()), Some(joined(kept.collect())))
    };
    let value = scalar.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(object),
            (inner, 1..4_usize).prop_map(|((text, kept), count)| {
                let array = |element: String| format!("[{}]", vec![element; count].join(","));
                // An array of nothing but nulls or empty arrays has no type to tell: not in doubt-free documents.
                match kept {
                    Some(kept) => (array(text), Some(array(kept))),
                    None => ("[]".to_owned(), None),
                }
            }),
        ]
    });
    proptest::collection::vec(value, 1..5).prop_map(object)
}

proptest! {
    #[test]
    fn a_document_beyond_doubt_comes_out_without_its_nulls_and_empty_arrays((text, kept) in plain_document()) {
        let kept = kept.expect("an object");
        prop_assert_eq!(long_way(&text), Some(kept.clone()), "{}", text);
        let mut out = Vec::new();
        if write_directly(&Expansion::default(), &text, &mut out) {
            prop_assert_eq!(String::from_utf8(out).expect("UTF-8"), kept);
        }
    }

    #[test]
    fn the_short_way_writes_what_the_long_way_writes(text in json()) {
        let mut out = Vec::new();
        if write_directly(&Expansion::default(), &text, &mut out) {
            prop_assert_eq!(Some(String::from_utf8(out).expect("UTF-8")), long_way(&text));
        } else {
            prop_assert!(out.is_empty());
        }
    }

    #[test]
    fn no_text_makes_expansion_panic(text in "[\\[{][\\[\\]{}:,\"\\\\ua-f0-9.eE+-]{0,40}") {
        let _ = expand(&text);
        let _ = write_directly(&Expansion::default(), &text, &mut Vec::new());
    }
}

#[test]
fn the_short_way_takes_the_payloads_of_the_example() {
    let text = r#"{"id": 1, "lineItems": [{"id": 1, "item": "Debezium in Action", "totalPrice": 39.98}, {"id": 2, "item": "Debezium for Dummies", "totalPrice": 29.99}], "orderDate": "2019-01-31T12:13:01"}"#;
    let mut out = Vec::new();
    assert!(write_directly(&Expansion::default(), text, &mut out));
    assert_eq!(String::from_utf8(out).ok(), long_way(text));
}
