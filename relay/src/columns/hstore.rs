//! PostgreSQL's text form of hstore: `"a"=>"1", "b"=>NULL`.

use std::borrow::Cow;

use event_router::data::Value;
use event_router::json_text::write_string;

use super::modes::HstoreMode;

/// The value in either mode.
pub(super) fn value(text: &str, mode: HstoreMode) -> Option<Value<'static>> {
    let mut entries = parse(text)?;
    let buckets = bucket_count(entries.len());
    // Debezium reads into a Java hash map, whose order is that of the keys' hashes.
    entries.sort_by_key(|(key, _)| bucket(key, buckets));
    Some(match mode {
        HstoreMode::Json => Value::String(Cow::Owned(json(&entries)?)),
        HstoreMode::Map => {
            let text = |text: String| Value::String(Cow::Owned(text));
            let entries = entries.into_iter();
            Value::Map(
                entries.map(|(key, value)| (text(key), value.map_or(Value::Null, text))).collect(),
            )
        }
    })
}

/// Entries of one map as JSON.
pub(super) fn json(entries: &[(String, Option<String>)]) -> Option<String> {
    let mut out = vec![b'{'];
    for (index, (key, value)) in entries.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_plain(key, &mut out);
        out.push(b':');
        match value {
            Some(value) => write_plain(value, &mut out),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
    String::from_utf8(out).ok()
}

/// A JSON string as Jackson writes it into text (not bytes): characters beyond U+FFFF stay as they are.
fn write_plain(text: &str, out: &mut Vec<u8>) {
    if text.chars().all(|character| character <= '\u{ffff}') {
        return write_string(text, out);
    }
    out.push(b'"');
    for character in text.chars() {
        if character > '\u{ffff}' {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            event_router::json_text::write_escaped(character.encode_utf8(&mut [0; 4]), out);
        }
    }
    out.push(b'"');
}

fn parse(text: &str) -> Option<Vec<(String, Option<String>)>> {
    let mut entries = Vec::new();
    let mut rest = text.chars().peekable();
    while rest.peek().is_some() {
        let key = quoted(&mut rest)?;
        if rest.next() != Some('=') || rest.next() != Some('>') {
            return None;
        }
        let value = if rest.peek() == Some(&'"') {
            Some(quoted(&mut rest)?)
        } else {
            // The only word that is not quoted is NULL.
            while rest.next_if(|next| *next != ',').is_some() {}
            None
        };
        entries.push((key, value));
        while rest.next_if(|next| matches!(next, ',' | ' ')).is_some() {}
    }
    Some(entries)
}

fn quoted(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    if rest.next() != Some('"') {
        return None;
    }
    let mut text = String::new();
    loop {
        match rest.next()? {
            '"' => return Some(text),
            '\\' => text.push(rest.next()?),
            other => text.push(other),
        }
    }
}

/// Size of a Java hash map after so many insertions.
fn bucket_count(entries: usize) -> u32 {
    let mut buckets: u32 = 16;
    while entries as u64 > u64::from(buckets) * 3 / 4 {
        buckets *= 2;
    }
    buckets
}

/// Where a Java hash map puts a text.
fn bucket(key: &str, buckets: u32) -> u32 {
    let hash = key
        .encode_utf16()
        .fold(0_u32, |hash, unit| hash.wrapping_mul(31).wrapping_add(u32::from(unit)));
    (hash ^ hash >> 16) & (buckets - 1)
}
