//! `SimpleHeaderConverter`: text as it is, everything else in a form close to JSON (Connect's `Values`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use event_router::data::{Value, double_to_java, float_to_java};

use crate::columns::iso_date;

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
    let (days, of_day) = (milliseconds.div_euclid(DAY), milliseconds.rem_euclid(DAY));
    // Unlike ISO's, the years of Java's pattern have no sign.
    let date = iso_date(days);
    let date = date.trim_start_matches('+');
    let seconds = of_day / 1000;
    let (hour, minute) = (seconds / 3600, seconds / 60 % 60);
    let time = format!("{hour:02}:{minute:02}:{:02}.{:03}Z", seconds % 60, of_day % 1000);
    match (milliseconds < DAY, of_day) {
        (true, _) => time,
        (false, 0) => date.to_owned(),
        (false, _) => format!("{date}T{time}"),
    }
}
