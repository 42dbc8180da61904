//! `SimpleHeaderConverter`: text as it is, everything else in a form close to JSON (Connect's `Values`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use event_router::data::{Value, double_to_java, float_to_java};

/// Bytes of a header.
pub(super) fn convert(value: Value<'_>) -> Option<Vec<u8>> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.into_owned().into_bytes()),
        other => {
            let mut out = String::new();
            append(&other, false, &mut out);
            Some(out.into_bytes())
        }
    }
}

fn append(value: &Value<'_>, embedded: bool, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Float32(number) => out.push_str(&float_to_java(*number)),
        Value::Float64(number) => out.push_str(&double_to_java(*number)),
        Value::String(_) | Value::Utf16(_) => append_text(value, embedded, out),
        Value::Bytes(bytes) => {
            let text = STANDARD.encode(bytes);
            append_text(&Value::text(&text), embedded, out);
        }
        Value::Date(milliseconds) => out.push_str(&date(*milliseconds)),
        Value::Array(elements) => {
            append_list(elements.iter(), '[', ']', out, |element, out| append(element, true, out));
        }
        Value::Map(entries) => append_list(entries.iter(), '{', '}', out, |(key, value), out| {
            append(key, true, out);
            out.push(':');
            append(value, true, out);
        }),
        Value::Struct(fields) => {
            let entries = fields.schema().fields.iter().enumerate();
            append_list(entries, '{', '}', out, |(index, field), out| {
                append(&Value::text(&field.name), true, out);
                out.push(':');
                append(fields.get(index), true, out);
            });
        }
        other => other.write_java_text(out),
    }
}

fn append_text(value: &Value<'_>, embedded: bool, out: &mut String) {
    if !embedded {
        value.write_java_text(out);
        return;
    }
    let text = value.to_java_text().replace('\\', "\\\\").replace('"', "\\\"");
    out.push('"');
    out.push_str(&text);
    out.push('"');
}

fn append_list<T>(
    items: impl Iterator<Item = T>,
    open: char,
    close: char,
    out: &mut String,
    mut append: impl FnMut(T, &mut String),
) {
    out.push(open);
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(',');
        }
        append(item, out);
    }
    out.push(close);
}

/// A date, a time of day or both, by what the number looks like: less than a day is a time (before 1970 too), whole
/// days are a date.
fn date(milliseconds: i64) -> String {
    const DAY: i64 = 86_400_000;
    let Some(time) = chrono::DateTime::from_timestamp_millis(milliseconds) else {
        return milliseconds.to_string();
    };
    let format = if milliseconds < DAY {
        "%H:%M:%S%.3fZ"
    } else if milliseconds % DAY == 0 {
        "%Y-%m-%d"
    } else {
        "%Y-%m-%dT%H:%M:%S%.3fZ"
    };
    time.format(format).to_string()
}
