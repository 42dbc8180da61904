//! A value, borrowed from the receive buffer where it can be, and its Java text.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::{Decimal, Struct, Type, double_to_java, float_to_java};

/// A value of Connect's data model.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// No value.
    Null,
    /// True or false.
    Boolean(bool),
    /// 8 bit integer.
    Int8(i8),
    /// 16 bit integer.
    Int16(i16),
    /// 32 bit integer.
    Int32(i32),
    /// 64 bit integer.
    Int64(i64),
    /// 32 bit floating point number.
    Float32(f32),
    /// 64 bit floating point number.
    Float64(f64),
    /// Text.
    String(Cow<'a, str>),
    /// Text that is not Unicode: it holds half of a surrogate pair, which JSON escapes can make and Java keeps.
    Utf16(Vec<u16>),
    /// Bytes (Java's `ByteBuffer` or `byte[]`).
    Bytes(Cow<'a, [u8]>),
    /// Java's `BigDecimal`.
    Decimal(Decimal),
    /// Java's `Date`: milliseconds since 1970, the value of Connect's logical dates and times.
    Date(i64),
    /// Elements in order.
    Array(Vec<Value<'a>>),
    /// Entries in order.
    Map(Vec<(Value<'a>, Value<'a>)>),
    /// Named fields.
    Struct(Box<Struct<'a>>),
    /// JSON text that `JsonConverter` without schemas would write for an expanded payload. Only made where
    /// [`crate::Router::write_json`] was asked for.
    Json(Vec<u8>),
}

impl Value<'_> {
    /// Borrowed text.
    #[must_use]
    pub const fn text(text: &str) -> Value<'_> {
        Value::String(Cow::Borrowed(text))
    }

    /// Whether this is null.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The value with everything it borrowed copied.
    #[must_use]
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Boolean(value) => Value::Boolean(value),
            Self::Int8(value) => Value::Int8(value),
            Self::Int16(value) => Value::Int16(value),
            Self::Int32(value) => Value::Int32(value),
            Self::Int64(value) => Value::Int64(value),
            Self::Float32(value) => Value::Float32(value),
            Self::Float64(value) => Value::Float64(value),
            Self::String(text) => Value::String(Cow::Owned(text.into_owned())),
            Self::Utf16(units) => Value::Utf16(units),
            Self::Bytes(bytes) => Value::Bytes(Cow::Owned(bytes.into_owned())),
            Self::Decimal(value) => Value::Decimal(value),
            Self::Date(value) => Value::Date(value),
            Self::Array(elements) => {
                Value::Array(elements.into_iter().map(Value::into_owned).collect())
            }
            Self::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| (key.into_owned(), value.into_owned()))
                    .collect(),
            ),
            Self::Struct(fields) => Value::Struct(Box::new(fields.into_owned())),
            Self::Json(text) => Value::Json(text),
        }
    }

    /// The kind of a value that has no schema; none for null and for Java objects that Connect gives no kind.
    #[must_use]
    pub const fn kind(&self) -> Option<Type> {
        Some(match self {
            Self::Null | Self::Decimal(_) | Self::Date(_) => return None,
            Self::Boolean(_) => Type::Boolean,
            Self::Int8(_) => Type::Int8,
            Self::Int16(_) => Type::Int16,
            Self::Int32(_) => Type::Int32,
            Self::Int64(_) => Type::Int64,
            Self::Float32(_) => Type::Float32,
            Self::Float64(_) => Type::Float64,
            Self::String(_) | Self::Utf16(_) => Type::String,
            Self::Bytes(_) => Type::Bytes,
            Self::Array(_) => Type::Array,
            Self::Map(_) => Type::Map,
            Self::Struct(_) | Self::Json(_) => Type::Struct,
        })
    }

    /// The name of the value's Java class, as error messages show it.
    #[must_use]
    pub const fn java_class(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "java.lang.Boolean",
            Self::Int8(_) => "java.lang.Byte",
            Self::Int16(_) => "java.lang.Short",
            Self::Int32(_) => "java.lang.Integer",
            Self::Int64(_) => "java.lang.Long",
            Self::Float32(_) => "java.lang.Float",
            Self::Float64(_) => "java.lang.Double",
            Self::String(_) | Self::Utf16(_) => "java.lang.String",
            Self::Bytes(_) => "java.nio.HeapByteBuffer",
            Self::Decimal(_) => "java.math.BigDecimal",
            Self::Date(_) => "java.util.Date",
            Self::Array(_) => "java.util.ArrayList",
            Self::Map(_) => "java.util.HashMap",
            Self::Struct(_) | Self::Json(_) => "org.apache.kafka.connect.data.Struct",
        }
    }

    /// Appends what Java's `toString` gives, as `StringConverter` writes it. Half a surrogate pair becomes `?`, as in
    /// Java's UTF-8 encoder.
    pub fn write_java_text(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Boolean(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Int8(value) => push_display(out, value),
            Self::Int16(value) => push_display(out, value),
            Self::Int32(value) => push_display(out, value),
            Self::Int64(value) => push_display(out, value),
            Self::Float32(value) => out.push_str(&float_to_java(*value)),
            Self::Float64(value) => out.push_str(&double_to_java(*value)),
            Self::String(text) => out.push_str(text),
            Self::Utf16(units) => {
                out.extend(
                    char::decode_utf16(units.iter().copied()).map(|unit| unit.unwrap_or('?')),
                );
            }
            Self::Bytes(bytes) => {
                let length = bytes.len();
                push_display(
                    out,
                    &format_args!("java.nio.HeapByteBuffer[pos=0 lim={length} cap={length}]"),
                );
            }
            Self::Decimal(value) => push_display(out, value),
            Self::Date(milliseconds) => super::java_text::write_date(*milliseconds, out),
            Self::Array(elements) => write_list(elements, out),
            Self::Map(entries) => write_map(entries, out),
            Self::Struct(fields) => fields.write_java_text(out),
            Self::Json(text) => out.push_str(&String::from_utf8_lossy(text)),
        }
    }

    /// What Java's `toString` gives.
    #[must_use]
    pub fn to_java_text(&self) -> String {
        let mut text = String::new();
        self.write_java_text(&mut text);
        text
    }
}

fn push_display(out: &mut String, value: &impl std::fmt::Display) {
    // Writing to a string cannot fail.
    let _ = write!(out, "{value}");
}

fn write_list(elements: &[Value<'_>], out: &mut String) {
    out.push('[');
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        element.write_java_text(out);
    }
    out.push(']');
}

fn write_map(entries: &[(Value<'_>, Value<'_>)], out: &mut String) {
    out.push('{');
    for (index, (key, value)) in entries.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        key.write_java_text(out);
        out.push('=');
        value.write_java_text(out);
    }
    out.push('}');
}
