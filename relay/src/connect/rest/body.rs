//! Request bodies: JSON as Kafka Connect's reader takes it, with its status code for what it does not take. Pure.
//!
//! Fields are kept as they were written until their type is known: a number that becomes a text keeps its digits.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

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
    let config = fields.remove("config").filter(|config| config.get() != NULL);
    let initial_state = fields.remove("initial_state").filter(|state| state.get() != NULL);
    check_known(&fields, &["name", "config", "initial_state"])?;
    let config = config.ok_or_else(|| {
        ConnectError::internal(
            "The request has no \"config\"; send {\"name\": ..., \"config\": {...}}",
        )
    })?;
    Ok(CreateRequest {
        name: name.unwrap_or_default().trim().to_owned(),
        config: options(config, "config")?,
        initial_state: initial_state.map(target_state).transpose()?,
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
    let offsets = fields.remove("offsets").filter(|offsets| offsets.get() != NULL);
    check_known(&fields, &["offsets"])?;
    let entries: Vec<&RawValue> = match offsets {
        None => Vec::new(),
        Some(offsets) => serde_json::from_str(offsets.get())
            .map_err(|_| mismatch("offsets", "an array", offsets))?,
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
    let body = json(body, what)?;
    let mut fields = if body.get() == NULL { Fields::new() } else { object(body, what)? };
    let level = fields.remove("level").map(|level| text(level, "level")).transpose()?.flatten();
    level.ok_or_else(|| {
        ConnectError::bad_request("Desired 'level' parameter was not specified in request.")
    })
}

fn offset(entry: &RawValue) -> Result<OffsetChange, ConnectError> {
    let mut fields = object(entry, "{\"partition\": {...}, \"offset\": {...}}")?;
    let mut part = |name: &str| {
        let Some(part) = fields.remove(name).filter(|part| part.get() != NULL) else {
            return Ok(None);
        };
        let Ok(Value::Object(values)) = serde_json::from_str(part.get()) else {
            return Err(mismatch(name, "an object", part));
        };
        match values.values().any(|value| value.is_array() || value.is_object()) {
            true => Err(ConnectError::internal(format!(
                "The values in {name} must be texts, numbers or booleans"
            ))),
            false => Ok(Some(Value::Object(values))),
        }
    };
    let (partition, offset) = (part("partition")?, part("offset")?);
    check_known(&fields, &["partition", "offset"])?;
    Ok((partition.unwrap_or(Value::Null), offset))
}

const NULL: &str = "null";

/// The fields of an object, as they were written; the last of several with one name.
type Fields<'b> = BTreeMap<String, &'b RawValue>;

/// The first value of the body: Kafka Connect's reader does not look at what comes after it. An empty body reads as
/// null, which no request is.
fn json<'b>(body: &'b [u8], what: &str) -> Result<&'b RawValue, ConnectError> {
    match serde_json::Deserializer::from_slice(body).into_iter::<&RawValue>().next() {
        None => Err(ConnectError::internal(format!("The request body is empty; send {what}"))),
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) => {
            Err(ConnectError::internal(format!("The request body is not JSON: {error}")))
        }
    }
}

fn object<'b>(value: &'b RawValue, what: &str) -> Result<Fields<'b>, ConnectError> {
    serde_json::from_str(value.get()).map_err(|_| mismatch("The request body", what, value))
}

fn options(value: &RawValue, what: &str) -> Result<Properties, ConnectError> {
    let fields: Fields<'_> =
        serde_json::from_str(value.get()).map_err(|_| mismatch(what, "an object", value))?;
    let option = |(option, value): (String, &RawValue)| {
        let text = text(value, &option)?;
        Ok((option, text))
    };
    fields.into_iter().map(option).collect()
}

/// Numbers and booleans become text, as they are written; null stays null.
fn text(value: &RawValue, name: &str) -> Result<Option<String>, ConnectError> {
    match value.get().as_bytes().first() {
        Some(b'[' | b'{') => Err(mismatch(name, "a text", value)),
        Some(b'"') => serde_json::from_str(value.get())
            .map_err(|error| ConnectError::internal(format!("{name} cannot be read: {error}"))),
        _ => Ok(Some(value.get()).filter(|text| *text != NULL).map(str::to_owned)),
    }
}

fn target_state(state: &RawValue) -> Result<TargetState, ConnectError> {
    let text: String = serde_json::from_str(state.get()).unwrap_or_default();
    match text.to_ascii_uppercase().as_str() {
        "RUNNING" => Ok(TargetState::Started),
        "PAUSED" => Ok(TargetState::Paused),
        "STOPPED" => Ok(TargetState::Stopped),
        _ => Err(ConnectError::internal(format!(
            "initial_state {state} is unknown; it is RUNNING, PAUSED or STOPPED"
        ))),
    }
}

fn check_known(left: &Fields<'_>, known: &[&str]) -> Result<(), ConnectError> {
    match left.keys().next() {
        None => Ok(()),
        Some(stranger) => Err(ConnectError::internal(format!(
            "Unrecognized field \"{stranger}\"; known are \"{}\"",
            known.join("\", \"")
        ))),
    }
}

fn mismatch(name: &str, wanted: &str, found: &RawValue) -> ConnectError {
    let found = match found.get().as_bytes().first() {
        Some(b'n') => "null",
        Some(b't' | b'f') => "a boolean",
        Some(b'"') => "a text",
        Some(b'[') => "an array",
        Some(b'{') => "an object",
        _ => "a number",
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
    fn numbers_keep_their_digits_and_what_follows_the_body_is_not_read() {
        let read = |body: &str| properties(body.as_bytes()).unwrap();
        let digits = read(r#"{"a":1.10,"b":1e3,"c":123456789012345678901234567890,"d":-0}"#);
        let texts: Vec<_> = digits.values().map(|value| value.as_deref().unwrap()).collect();
        assert_eq!(texts, ["1.10", "1e3", "123456789012345678901234567890", "-0"]);
        assert_eq!(read(r#" {"a":"1"} and more"#)["a"].as_deref(), Some("1"));
        assert_eq!(read(r#"{"a":"1","a":"\u00fc"}"#)["a"].as_deref(), Some("ü"));
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
        let nested = br#"{"offsets":[{"partition":{"a":"b"},"offset":{"a":{}}}]}"#;
        assert_eq!(offsets(nested).unwrap_err().status, 500);
    }
}
