//! What stands for a value that PostgreSQL did not send, because it is stored out of line and did not change.

use std::borrow::Cow;

use event_router::data::Value;

use super::hstore;
use super::kind::Kind;
use super::modes::{BinaryMode, HstoreMode, ValueModes};

/// The placeholder in the form of a column.
pub(super) fn placeholder(kind: &Kind, modes: &ValueModes) -> Value<'static> {
    let text = || Value::String(Cow::Owned(modes.placeholder.clone()));
    let bytes = || Value::Bytes(Cow::Owned(modes.placeholder.clone().into_bytes()));
    match kind {
        Kind::Bytea | Kind::Opaque if modes.binary == BinaryMode::Bytes => bytes(),
        Kind::Hstore => {
            let entry = (modes.placeholder.clone(), Some(modes.placeholder.clone()));
            match modes.hstore {
                HstoreMode::Json => hstore::json(&[entry])
                    .map_or(Value::Null, |json| Value::String(Cow::Owned(json))),
                HstoreMode::Map => Value::Map(vec![(text(), text())]),
            }
        }
        Kind::Array(element) => Value::Array(match element.as_ref() {
            Kind::Bytea => vec![bytes()],
            // Each byte of the placeholder is an element.
            Kind::Int32 | Kind::Date => {
                modes.placeholder.bytes().map(|byte| Value::Int32(i32::from(byte as i8))).collect()
            }
            Kind::Int64 => {
                modes.placeholder.bytes().map(|byte| Value::Int64(i64::from(byte as i8))).collect()
            }
            _ => vec![text()],
        }),
        _ => text(),
    }
}
