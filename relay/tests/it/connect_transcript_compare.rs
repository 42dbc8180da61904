//! Compares an answer with a recorded one: placeholders, sets, and where the wording is Java's.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// Whether all conditions of an `until` hold: JSON pointer (`#`: the length there, `status`: the code) -> value.
pub(crate) fn holds(until: &Value, answer: &Value) -> bool {
    let Some(conditions) = until.as_object() else { return false };
    conditions.iter().all(|(pointer, wanted)| {
        if pointer == "status" {
            return answer["status"] == *wanted;
        }
        let body = &answer["json"];
        match pointer.strip_suffix('#') {
            None => body.pointer(pointer) == Some(wanted),
            Some(pointer) => {
                let length = body.pointer(pointer).and_then(|found| match found {
                    Value::Array(items) => Some(items.len()),
                    Value::Object(fields) => Some(fields.len()),
                    _ => None,
                });
                length.map(|length| json!(length)).as_ref() == Some(wanted)
            }
        }
    })
}

/// What differs, each with its JSON pointer.
pub(crate) fn differences(expected: &Value, actual: &Value, unordered: &Value) -> Vec<String> {
    let sets: Vec<String> = unordered
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|pointer| Some(format!("/json{}", pointer.as_str()?)))
        .collect();
    let mut found = Vec::new();
    let java = expected["status"] == 500;
    let context = Context { sets, java };
    context.compare("", expected, actual, &mut found);
    found
}

struct Context {
    sets: Vec<String>,
    /// Every recorded 500 has the text of a Java exception.
    java: bool,
}

impl Context {
    fn compare(&self, at: &str, expected: &Value, actual: &Value, found: &mut Vec<String>) {
        match (expected, actual) {
            (Value::Object(expected), Value::Object(actual)) => {
                let names: BTreeSet<&String> = expected.keys().chain(actual.keys()).collect();
                for name in names {
                    let at = format!("{at}/{name}");
                    match (expected.get(name), actual.get(name)) {
                        (Some(expected), Some(actual)) => {
                            self.compare(&at, expected, actual, found)
                        }
                        (Some(expected), None) => {
                            found.push(format!("{at} is missing: {expected}"))
                        }
                        (None, actual) => found.push(format!("{at} is too much: {actual:?}")),
                    }
                }
            }
            (Value::Array(expected), Value::Array(actual))
                if self.sets.iter().any(|set| set == at) =>
            {
                // Which plugins there are is a worker's own affair; it must not list what nobody knows.
                let plugins = expected.iter().any(|item| item["class"].is_string());
                let missing = expected.iter().filter(|item| !plugins && !self.has(actual, item));
                found.extend(missing.map(|item| format!("{at} lacks {item}")));
                let extra =
                    actual.iter().filter(|item| !expected.iter().any(|e| self.same(e, item)));
                found.extend(extra.map(|item| format!("{at} has {item} too much")));
            }
            (Value::Array(expected), Value::Array(actual)) if expected.len() == actual.len() => {
                for (index, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                    self.compare(&format!("{at}/{index}"), expected, actual, found);
                }
            }
            (Value::String(expected), actual) if self.matches(at, expected, actual) => {}
            (expected, actual) if expected == actual => {}
            (expected, actual) => found.push(format!("{at}: expected {expected}, got {actual}")),
        }
    }

    fn same(&self, expected: &Value, actual: &Value) -> bool {
        let mut found = Vec::new();
        self.compare("", expected, actual, &mut found);
        found.is_empty()
    }

    fn has(&self, actual: &[Value], item: &Value) -> bool {
        actual.iter().any(|found| self.same(item, found))
    }

    fn matches(&self, at: &str, expected: &str, actual: &Value) -> bool {
        match expected {
            // A status may have no version for a moment.
            "<<VERSION>>" => actual.is_string() || actual.is_null(),
            "<<COMMIT>>" | "<<CLUSTER_ID>>" => actual.is_string(),
            "<<LSN>>" | "<<TXID>>" | "<<TS_US>>" | "<<TS_MS>>" => actual.is_number(),
            _ if at.ends_with("/trace") => actual.as_str().is_some_and(|trace| !trace.is_empty()),
            _ if self.java && at == "/json/message" => {
                actual.as_str().is_some_and(|message| !message.is_empty())
            }
            _ => actual.as_str().is_some_and(|actual| same_text(expected, actual)),
        }
    }
}

/// Texts are equal, but for where plugins lie and for the order in which Java prints a map.
fn same_text(expected: &str, actual: &str) -> bool {
    if expected == actual {
        return true;
    }
    if let Some((before, _)) = expected.split_once("location='") {
        return actual.starts_with(before);
    }
    match (entries(expected), entries(actual)) {
        (Some(expected), Some(actual)) => expected == actual,
        _ => false,
    }
}

fn entries(text: &str) -> Option<(&str, BTreeSet<&str>, &str)> {
    let (before, rest) = text.split_once('{')?;
    let (map, after) = rest.rsplit_once('}')?;
    Some((before, map.split(", ").collect(), after))
}

/// The extract that was kept of an answer that was too large.
pub(crate) fn reduce(how: &str, request: &Value, answer: &mut Value) {
    if answer["status"] != 200 {
        return;
    }
    let body = answer["json"].take();
    answer["json"] = match how {
        "loggers" => json!({"root": body["root"]}),
        "logger-names" => logger_names(request, &body),
        "plugin-config" => body.as_array().into_iter().flatten().map(definition).collect(),
        "validate" => validation(&body),
        _ => body,
    };
}

fn logger_names(request: &Value, body: &Value) -> Value {
    let names: Vec<&str> =
        body.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let path = request["path"].as_str().unwrap_or_default();
    let asked = path.split('?').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let has: Vec<&str> = names.iter().copied().filter(|name| *name == asked).collect();
    json!({"sorted": names.is_sorted(), "has": has})
}

fn pick(from: &Value, names: &[&str]) -> Map<String, Value> {
    let pairs = names.iter().map(|name| ((*name).to_owned(), from[*name].clone()));
    pairs.collect()
}

fn definition(definition: &Value) -> Value {
    pick(definition, &["name", "type", "required", "default_value", "importance"]).into()
}

fn validation(body: &Value) -> Value {
    let configs: Vec<&Value> = body["configs"].as_array().into_iter().flatten().collect();
    let with_errors = configs.iter().filter(|config| {
        config["value"]["errors"].as_array().is_some_and(|errors| !errors.is_empty())
    });
    let with_errors: Vec<Value> = with_errors
        .map(|config| {
            json!({
                "name": config["definition"]["name"],
                "required": config["definition"]["required"],
                "value": config["value"]["value"],
                "errors": config["value"]["errors"],
            })
        })
        .collect();
    let name = |config: &Value| config["definition"]["name"].clone();
    let changed = configs.iter().filter(|config| {
        let value = &config["value"]["value"];
        !value.is_null() && *value != config["definition"]["default_value"]
    });
    let values: Map<String, Value> = changed
        .map(|config| {
            let name = name(config).as_str().unwrap_or_default().to_owned();
            (name, config["value"]["value"].clone())
        })
        .collect();
    let mut reduced = pick(body, &["name", "error_count", "groups"]);
    reduced.insert("configs_with_errors".to_owned(), with_errors.into());
    reduced.insert("first_config".to_owned(), configs.first().copied().cloned().into());
    reduced.insert("values".to_owned(), values.into());
    let names: Vec<Value> = configs.iter().map(|config| name(config)).collect();
    reduced.insert("config_names".to_owned(), names.into());
    reduced.into()
}

#[test]
fn a_difference_is_found_and_a_placeholder_is_none() {
    let expected = json!({"status": 200, "json": {"version": "<<VERSION>>", "set": [1, 2]}});
    let same = json!({"status": 200, "json": {"version": "1", "set": [2, 1]}});
    assert_eq!(differences(&expected, &same, &json!(["/set"])), [""; 0]);
    assert_eq!(differences(&expected, &same, &Value::Null).len(), 2);
    let other = json!({"status": 404, "json": {"version": 1, "set": [1, 2], "more": 1}});
    assert_eq!(differences(&expected, &other, &Value::Null).len(), 3);
}
