//! Request bodies: JSON as Kafka Connect's reader takes it, with its status code for what it does not take. Pure.

use serde_json::{Map, Value};

use super::super::error::ConnectError;
use super::super::offsets::OffsetChange;
use super::super::storage::{Properties, TargetState};

/// The body of `POST /connectors`.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::connect) struct CreateRequest {
    pub(in crate::connect) name: String,
    pub(in crate::connect) config: Properties,
    pub(in crate::connect) initial_state: Option<TargetState>,
}

pub(in crate::connect) fn create_request(body: &[u8]) -> Result<CreateRequest, ConnectError> {
    let what = "{\"name\": ..., \"config\": {...}}";
    let mut fields = object(json(body, what)?, what)?;
    let name = fields.remove("name").map(|name| text(name, "name")).transpose()?.flatten();
    let config = fields.remove("config").filter(|config| !config.is_null());
    let initial_state = fields.remove("initial_state").filter(|state| !state.is_null());
    check_known(&fields, &["name", "config", "initial_state"])?;
    let config = config.ok_or_else(|| {
        ConnectError::internal(
            "The request has no \"config\"; send {\"name\": ..., \"config\": {...}}",
        )
    })?;
    Ok(CreateRequest {
        name: name.unwrap_or_default().trim().to_owned(),
        config: options(config, "config")?,
        initial_state: initial_state.map(|state| target_state(&state)).transpose()?,
    })
}

/// The body of `PUT` and `PATCH .../config`, and of `validate`.
pub(super) fn properties(body: &[u8]) -> Result<Properties, ConnectError> {
    let what = "an object of options";
    options(json(body, what)?, what)
}

/// The body of `PATCH .../offsets`.
pub(super) fn offsets(body: &[u8]) -> Result<Vec<OffsetChange>, ConnectError> {
    let what = "{\"offsets\": [{\"partition\": {...}, \"offset\": {...}}]}";
    let mut fields = object(json(body, what)?, what)?;
    let offsets = fields.remove("offsets").filter(|offsets| !offsets.is_null());
    check_known(&fields, &["offsets"])?;
    let entries = match offsets {
        None => Vec::new(),
        Some(Value::Array(entries)) => entries,
        Some(other) => return Err(mismatch("offsets", "an array", &other)),
    };
    if entries.is_empty() {
        return Err(ConnectError::bad_request(
            "Partitions / offsets need to be provided for an alter offsets request",
        ));
    }
    entries.into_iter().map(offset).collect()
}

/// The body of `PUT /admin/loggers/{name}`.
pub(super) fn level(body: &[u8]) -> Result<String, ConnectError> {
    let what = "{\"level\": ...}";
    let mut fields = match json(body, what)? {
        Value::Null => Map::new(),
        other => object(other, what)?,
    };
    let level = fields.remove("level").map(|level| text(level, "level")).transpose()?.flatten();
    level.ok_or_else(|| {
        ConnectError::bad_request("Desired 'level' parameter was not specified in request.")
    })
}

fn offset(entry: Value) -> Result<OffsetChange, ConnectError> {
    let mut fields = object(entry, "{\"partition\": {...}, \"offset\": {...}}")?;
    let mut part = |name: &str| match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(object @ Value::Object(_)) => Ok(Some(object)),
        Some(other) => Err(mismatch(name, "an object", &other)),
    };
    let (partition, offset) = (part("partition")?, part("offset")?);
    check_known(&fields, &["partition", "offset"])?;
    Ok((partition.unwrap_or(Value::Null), offset))
}

/// An empty body reads as null, which no request is.
fn json(body: &[u8], what: &str) -> Result<Value, ConnectError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(ConnectError::internal(format!("The request body is empty; send {what}")));
    }
    serde_json::from_slice(body)
        .map_err(|error| ConnectError::internal(format!("The request body is not JSON: {error}")))
}

fn object(value: Value, what: &str) -> Result<Map<String, Value>, ConnectError> {
    match value {
        Value::Object(fields) => Ok(fields),
        other => Err(mismatch("The request body", what, &other)),
    }
}

fn options(value: Value, what: &str) -> Result<Properties, ConnectError> {
    let fields = match value {
        Value::Object(fields) => fields,
        other => return Err(mismatch(what, "an object", &other)),
    };
    fields.into_iter().map(|(option, value)| Ok((option.clone(), text(value, &option)?))).collect()
}

/// Numbers and booleans become text, as in Kafka Connect; null stays null.
fn text(value: Value, name: &str) -> Result<Option<String>, ConnectError> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Bool(_) | Value::Number(_) => Ok(Some(value.to_string())),
        Value::Array(_) | Value::Object(_) => Err(mismatch(name, "a text", &value)),
    }
}

fn target_state(state: &Value) -> Result<TargetState, ConnectError> {
    let text = state.as_str().unwrap_or_default();
    match text.to_ascii_uppercase().as_str() {
        "RUNNING" => Ok(TargetState::Started),
        "PAUSED" => Ok(TargetState::Paused),
        "STOPPED" => Ok(TargetState::Stopped),
        _ => Err(ConnectError::internal(format!(
            "initial_state {state} is unknown; it is RUNNING, PAUSED or STOPPED"
        ))),
    }
}

fn check_known(left: &Map<String, Value>, known: &[&str]) -> Result<(), ConnectError> {
    match left.keys().next() {
        None => Ok(()),
        Some(stranger) => Err(ConnectError::internal(format!(
            "Unrecognized field \"{stranger}\"; known are \"{}\"",
            known.join("\", \"")
        ))),
    }
}

fn mismatch(name: &str, wanted: &str, found: &Value) -> ConnectError {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    ConnectError::internal(format!("{name} must be {wanted}, not {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_become_text_and_names_are_trimmed() {
        let body =
            br#"{"name":"  padded ","config":{"a":1,"b":true,"c":null},"initial_state":"stopped"}"#;
        let request = create_request(body).unwrap();
        assert_eq!(request.name, "padded");
        assert_eq!(request.config["a"].as_deref(), Some("1"));
        assert_eq!(request.config["b"].as_deref(), Some("true"));
        assert_eq!(request.config["c"], None);
        assert_eq!(request.initial_state, Some(TargetState::Stopped));
        assert_eq!(create_request(br#"{"name":7,"config":{}}"#).unwrap().name, "7");
    }

    #[test]
    fn bodies_of_another_shape_answer_500_as_kafka_connect_does() {
        for body in [
            "{nope",
            "",
            "null",
            "[]",
            "\"x\"",
            r#"{"name":"x","config":{},"more":1}"#,
            r#"{"name":"x","config":"a"}"#,
            r#"{"name":"x","config":[]}"#,
            r#"{"name":"x","config":{"a":{"b":1}}}"#,
            r#"{"name":"x","config":{},"initial_state":"SLEEPING"}"#,
            r#"{"name":"x"}"#,
        ] {
            assert_eq!(create_request(body.as_bytes()).unwrap_err().status, 500, "{body}");
        }
    }

    #[test]
    fn offsets_need_entries_but_not_whole_ones() {
        assert_eq!(offsets(b"{}").unwrap_err().status, 400);
        assert_eq!(offsets(br#"{"offsets":[]}"#).unwrap_err().status, 400);
        assert_eq!(offsets(br#"{"offset":[]}"#).unwrap_err().status, 500);
        assert_eq!(offsets(br#"{"offsets":[{"partition":"x"}]}"#).unwrap_err().status, 500);
        assert_eq!(offsets(br#"{"offsets":[{}]}"#).unwrap(), [(Value::Null, None)]);
    }
}
