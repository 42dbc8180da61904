//! Compares what was made with what was recorded, as bytes.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use relay::record::Record;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::case::{Case, ExpectedRecord};
use crate::run::Outcome;

/// What is compared of records, beside themselves.
struct Comparison<'o> {
    outcome: &'o Outcome,
    /// Keys and values are compared as JSON, without regard to the order of fields.
    as_json: bool,
}

/// The first difference; none where there is none.
pub(crate) fn difference(case: &Case, outcome: &Outcome) -> Option<String> {
    let expected_stage = case.expected.error.as_ref().map(|error| error.stage.as_str());
    let stage = outcome.failure.as_ref().map(|failure| failure.stage);
    // Whether a connector fails at its start or at its first poll is a matter of its threads.
    let expected_stage = expected_stage.map(|stage| if stage == "start" { "poll" } else { stage });
    if stage != expected_stage {
        let failure = outcome.failure.as_ref().map(|failure| failure.reason.as_str());
        let failure = failure.unwrap_or("no failure");
        return Some(format!("failed at {stage:?}, expected {expected_stage:?}: {failure}"));
    }
    let kind = case.compare.as_deref();
    if kind == Some("error-class") {
        return None;
    }
    let comparison = Comparison { outcome, as_json: kind == Some("json") };
    let mut variants = vec![&case.expected.records];
    variants.extend(&case.alternatives);
    let differences: Vec<_> =
        variants.iter().filter_map(|records| comparison.records(records)).collect();
    if differences.len() == variants.len() {
        return differences.into_iter().next();
    }
    let levels: Vec<&str> = case.expected.logs.iter().map(|log| log.level.as_str()).collect();
    (levels != outcome.logs).then(|| format!("log levels {:?}, expected {levels:?}", outcome.logs))
}

impl Comparison<'_> {
    fn records(&self, expected: &[ExpectedRecord]) -> Option<String> {
        let (repeating, expected): (Vec<_>, Vec<_>) =
            expected.iter().partition(|expected| expected.repeats);
        let is_repeated = |record: &&Record| {
            repeating.iter().any(|expected| self.record(expected, record).is_none())
        };
        let (repeated, actual): (Vec<&Record>, Vec<&Record>) =
            self.outcome.records.iter().partition(is_repeated);
        for (index, (expected, actual)) in expected.iter().zip(&actual).enumerate() {
            if let Some(difference) = self.record(expected, actual) {
                return Some(format!("record {index}: {difference}"));
            }
        }
        if expected.len() != actual.len() {
            return Some(format!("{} records, expected {}", actual.len(), expected.len()));
        }
        (repeated.len() < repeating.len()).then(|| {
            format!("{} records that repeat, expected {}", repeated.len(), repeating.len())
        })
    }

    fn record(&self, expected: &ExpectedRecord, actual: &Record) -> Option<String> {
        if expected.topic != actual.topic {
            return Some(format!("topic {:?}, expected {:?}", actual.topic, expected.topic));
        }
        if expected.partition != actual.partition {
            let (actual, expected) = (actual.partition, expected.partition);
            return Some(format!("partition {actual:?}, expected {expected:?}"));
        }
        let (from, to) = self.outcome.time;
        let is_expected = match &expected.timestamp {
            Value::String(_) => {
                actual.timestamp.is_some_and(|actual| (from..=to).contains(&actual))
            }
            timestamp => timestamp.as_i64() == actual.timestamp,
        };
        if !is_expected {
            let (actual, expected) = (actual.timestamp, &expected.timestamp);
            return Some(format!("timestamp {actual:?}, expected {expected}"));
        }
        for (part, expected, actual) in
            [("key", &expected.key, &actual.key), ("value", &expected.value, &actual.value)]
        {
            let expected = self.in_this_database(expected);
            if bytes_differ(&expected, actual.as_deref(), self.as_json) {
                return Some(format!("{part} {}, expected {expected}", show(actual.as_deref())));
            }
        }
        headers_differ(&expected.headers, &actual.headers)
    }

    /// The recorded database was called `golden`; each case has its own here.
    fn in_this_database(&self, expected: &Value) -> Value {
        match expected {
            Value::String(text) if text.contains("<<") => {
                let name = format!("\"db\":\"{}\"", self.outcome.database);
                Value::String(text.replace("\"db\":\"golden\"", &name))
            }
            expected => expected.clone(),
        }
    }
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
            // Too long to be recorded.
            None => {
                let hash = Sha256::digest(actual).iter().fold(String::new(), |mut text, byte| {
                    let _ = write!(text, "{byte:02x}");
                    text
                });
                form.get("length").and_then(Value::as_u64) != Some(actual.len() as u64)
                    || form.get("sha256").and_then(Value::as_str) != Some(hash.as_str())
            }
        },
        _ => true,
    }
}

fn show(bytes: Option<&[u8]>) -> String {
    bytes.map_or("null".to_owned(), |bytes| format!("{:?}", String::from_utf8_lossy(bytes)))
}
