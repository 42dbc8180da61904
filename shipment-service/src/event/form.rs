//! Takes the wrappers off a JSON value: quotes around JSON, the schema envelope, the envelope of the 2019 example. Pure.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Poison;

/// Converters wrap once or twice; a value wrapped more often than this was made to keep us busy.
const WRAPPERS_MAX: usize = 8;

/// A value without its wrappers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    /// The event type, where a wrapper carries it.
    pub(super) event_type: Option<String>,
    /// A JSON object on one line, its fields in the order in which they came.
    pub(super) payload: String,
}

/// Any object with a field `payload` is a wrapper: no event of the order service has a field of that name.
#[derive(Deserialize)]
struct Wrapper<'a> {
    #[serde(borrow, rename = "eventType")]
    event_type: Option<&'a RawValue>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

/// Opens a record value down to the JSON object of the event.
pub(super) fn open(value: &[u8]) -> Result<Opened, Poison> {
    let mut text = Cow::Borrowed(
        std::str::from_utf8(value).map_err(|error| Poison::UnreadableValue(error.to_string()))?,
    );
    let unreadable = |error: serde_json::Error| Poison::UnreadableValue(error.to_string());
    let mut event_type = None;
    for _ in 0..=WRAPPERS_MAX {
        match text.trim_start().chars().next() {
            Some('"') => text = Cow::Owned(serde_json::from_str(&text).map_err(unreadable)?),
            Some('{') => {
                let wrapper: Wrapper<'_> = serde_json::from_str(&text).map_err(unreadable)?;
                if let Some(inner) = wrapper.event_type {
                    event_type = serde_json::from_str(inner.get()).ok().or(event_type);
                }
                match wrapper.payload {
                    Some(inner) => text = Cow::Owned(inner.get().to_owned()),
                    None => return Ok(Opened { event_type, payload: on_one_line(&text) }),
                }
            }
            Some(_) => return Err(Poison::UnreadableValue("it is no object".to_owned())),
            None => return Err(Poison::UnreadableValue("it is empty".to_owned())),
        }
    }
    Err(Poison::UnreadableValue(format!("it is wrapped more than {WRAPPERS_MAX} times")))
}

/// Opens a key or a header: plain text, a JSON string, or a JSON string or number in the schema envelope.
/// `None` when the bytes are not text.
pub(super) fn open_text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    if text.starts_with('"') {
        return Some(serde_json::from_str(text).unwrap_or_else(|_| text.to_owned()));
    }
    if text.starts_with('{')
        && let Ok(Wrapper { payload: Some(inner), .. }) = serde_json::from_str(text)
    {
        return Some(serde_json::from_str(inner.get()).unwrap_or_else(|_| inner.get().to_owned()));
    }
    Some(text.to_owned())
}

/// The same JSON without whitespace between its tokens. Valid JSON has no line break inside a string, so the
/// result is one line of the log, and a sender can't write log lines of its own.
fn on_one_line(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for character in json.chars() {
        if in_string {
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
        } else if character == '"' {
            in_string = true;
        } else if character.is_ascii_whitespace() {
            continue;
        }
        line.push(character);
    }
    line
}
