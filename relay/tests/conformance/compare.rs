//! Compares what was made with what was recorded, as bytes.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use relay::record::Record;
use serde_json::Value;

use crate::case::{Case, ExpectedRecord};
use crate::play::{EVENT_TS_MS, Played};

/// The first difference; none where there is none.
pub(crate) fn difference(case: &Case, played: &Played) -> Option<String> {
    let kind = case.compare.as_deref();
    let expected_stage = case.expected.error.as_ref().map(|error| error.stage.as_str());
    if played.error.as_ref().map(|(stage, _)| *stage) != expected_stage {
        return Some(format!(
            "stage of the error: {:?}, expected {expected_stage:?}",
            played.error
        ));
    }
    let mut variants = vec![&case.expected.records];
    variants.extend(&case.alternatives);
    let as_json = kind == Some("json");
    let differences: Vec<_> = variants
        .iter()
        .filter_map(|records| records_differ(records, &played.records, as_json))
        .collect();
    if differences.len() == variants.len() {
        return differences.into_iter().next();
    }
    let levels: Vec<&str> = case.expected.logs.iter().map(|log| log.level.as_str()).collect();
    (levels != played.logs).then(|| format!("log levels {:?}, expected {levels:?}", played.logs))
}

fn records_differ(expected: &[ExpectedRecord], actual: &[Record], as_json: bool) -> Option<String> {
    for (index, pair) in expected.iter().zip(actual).enumerate() {
        if let Some(difference) = record_differs(pair.0, pair.1, as_json) {
            return Some(format!("record {index}: {difference}"));
        }
    }
    (expected.len() != actual.len())
        .then(|| format!("{} records, expected {}", actual.len(), expected.len()))
}

fn record_differs(expected: &ExpectedRecord, actual: &Record, as_json: bool) -> Option<String> {
    if expected.topic != actual.topic {
        return Some(format!("topic {:?}, expected {:?}", actual.topic, expected.topic));
    }
    if expected.partition != actual.partition {
        return Some(format!(
            "partition {:?}, expected {:?}",
            actual.partition, expected.partition
        ));
    }
    let expected_timestamp = match &expected.timestamp {
        Value::String(_) => Some(EVENT_TS_MS),
        timestamp => timestamp.as_i64(),
    };
    if expected_timestamp != actual.timestamp {
        return Some(format!("timestamp {:?}, expected {expected_timestamp:?}", actual.timestamp));
    }
    for (part, expected, actual) in
        [("key", &expected.key, &actual.key), ("value", &expected.value, &actual.value)]
    {
        if bytes_differ(expected, actual.as_deref(), as_json) {
            return Some(format!("{part} {}, expected {expected}", show(actual.as_deref())));
        }
    }
    headers_differ(&expected.headers, &actual.headers)
}

fn headers_differ(
    expected: &[(String, Value)],
    actual: &[(String, Option<Vec<u8>>)],
) -> Option<String> {
    for ((expected_name, expected_value), (name, value)) in expected.iter().zip(actual) {
        let header = |name: &str, value: &str| format!("header {name}={value}");
        if expected_name != name || bytes_differ(expected_value, value.as_deref(), false) {
            return Some(format!(
                "{}, expected {}",
                header(name, &show(value.as_deref())),
                header(expected_name, &expected_value.to_string())
            ));
        }
    }
    (expected.len() != actual.len()).then(|| {
        let names: BTreeSet<_> = actual.iter().map(|(name, _)| name).collect();
        format!("headers {names:?}, expected {} of them", expected.len())
    })
}

/// A text with placeholders against one with values: each placeholder stands for what its kind looks like.
fn matches_placeholders(expected: &str, actual: &str) -> bool {
    let Some((front, rest)) = expected.split_once("<<") else { return expected == actual };
    let (Some((name, expected)), Some(actual)) =
        (rest.split_once(">>"), actual.strip_prefix(front))
    else {
        return false;
    };
    let is_part: fn(char) -> bool = match name {
        "SEQUENCE" => |next| "[]\\\",null0123456789".contains(next),
        "RUN_ID" | "TRACE_ID" | "SPAN_ID" => |next| next.is_ascii_hexdigit() || next == '-',
        _ => |next| next.is_ascii_digit(),
    };
    let longest = actual.find(|next| !is_part(next)).unwrap_or(actual.len());
    (1..=longest).rev().any(|length| matches_placeholders(expected, &actual[length..]))
}

fn bytes_differ(expected: &Value, actual: Option<&[u8]>, as_json: bool) -> bool {
    match (expected, actual) {
        (Value::String(text), Some(actual)) if text.contains("<<") => {
            !std::str::from_utf8(actual).is_ok_and(|actual| matches_placeholders(text, actual))
        }
        (Value::Null, actual) => actual.is_some(),
        (_, None) => true,
        (Value::String(text), Some(actual)) if as_json => {
            let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
            parse(text.as_bytes()) != parse(actual)
        }
        (Value::String(text), Some(actual)) => text.as_bytes() != actual,
        (Value::Object(form), Some(actual)) => match form.get("base64").and_then(Value::as_str) {
            Some(base64) => STANDARD.decode(base64).ok().as_deref() != Some(actual),
            // Too long to be recorded: the length stands for the hash, which needs a crate for nothing else.
            None => form.get("length").and_then(Value::as_u64) != Some(actual.len() as u64),
        },
        _ => true,
    }
}

fn show(bytes: Option<&[u8]>) -> String {
    bytes.map_or("null".to_owned(), |bytes| format!("{:?}", String::from_utf8_lossy(bytes)))
}
