//! Connect's converters of one primitive each: big-endian bytes.

use event_router::data::Value;

/// The primitive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberKind {
    Boolean,
    Short,
    Integer,
    Long,
    Float,
    Double,
}

impl NumberKind {
    pub(super) fn convert(self, value: Value<'_>) -> Result<Option<Vec<u8>>, String> {
        Ok(Some(match (self, value) {
            (_, Value::Null) => return Ok(None),
            (Self::Boolean, Value::Boolean(value)) => vec![u8::from(value)],
            (Self::Short, Value::Int16(value)) => value.to_be_bytes().to_vec(),
            (Self::Integer, Value::Int32(value)) => value.to_be_bytes().to_vec(),
            (Self::Long, Value::Int64(value)) => value.to_be_bytes().to_vec(),
            (Self::Float, Value::Float32(value)) => value.to_be_bytes().to_vec(),
            (Self::Double, Value::Float64(value)) => value.to_be_bytes().to_vec(),
            (kind, other) => {
                return Err(format!("a value of {} is not a {kind:?}", other.java_class()));
            }
        }))
    }
}
