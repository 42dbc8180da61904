//! `JsonConverter`, with and without schemas.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use event_router::data::{Schema, Struct, Type, Value, logical};
use event_router::json_text::{
    write_double, write_float, write_integer, write_string, write_utf16,
};

use super::schema_json::write_schema;

/// How decimals are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DecimalFormat {
    /// The bytes of the unscaled number.
    Base64,
    /// A JSON number.
    Numeric,
}

/// The converter and its options.
#[derive(Debug, Clone)]
pub(super) struct JsonConverter {
    schemas_enabled: bool,
    replace_null_with_default: bool,
    decimal_format: DecimalFormat,
}

impl JsonConverter {
    pub(super) const fn new(
        schemas_enabled: bool,
        replace_null_with_default: bool,
        decimal_format: DecimalFormat,
    ) -> Self {
        Self { schemas_enabled, replace_null_with_default, decimal_format }
    }

    pub(super) const fn schemas_enabled(&self) -> bool {
        self.schemas_enabled
    }

    pub(super) fn convert(
        &self,
        schema: Option<&Arc<Schema>>,
        value: Value<'_>,
    ) -> Result<Option<Vec<u8>>, String> {
        if !self.schemas_enabled {
            return match (schema, value) {
                (None, Value::Null) => Ok(None),
                (_, Value::Json(text)) => Ok(Some(text)),
                (schema, value) => {
                    let mut out = Vec::new();
                    self.write(schema.map(Arc::as_ref), &value, &mut out)?;
                    Ok(Some(out))
                }
            };
        }
        if schema.is_none() && value.is_null() {
            return Ok(None);
        }
        let mut out = b"{\"schema\":".to_vec();
        match schema {
            Some(schema) => write_schema(self, schema, None, &mut out)?,
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"payload\":");
        self.write(schema.map(Arc::as_ref), &value, &mut out)?;
        out.push(b'}');
        Ok(Some(out))
    }

    /// Writes a value by its schema, as Connect's `convertToJson` does.
    pub(super) fn write(
        &self,
        schema: Option<&Schema>,
        value: &Value<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        if value.is_null() {
            return self.write_null(schema, out);
        }
        if let Some(name) = schema.and_then(|schema| schema.name.as_deref())
            && let Some(result) = self.write_logical(name, schema, value, out)
        {
            return result;
        }
        let kind = schema.map(|schema| schema.kind).or_else(|| value.kind());
        match (kind, value) {
            (Some(Type::Boolean), Value::Boolean(value)) => {
                out.extend_from_slice(if *value { b"true" } else { b"false" });
            }
            (Some(Type::Int8), Value::Int8(value)) => write_integer(i64::from(*value), out),
            (Some(Type::Int16), Value::Int16(value)) => write_integer(i64::from(*value), out),
            (Some(Type::Int32), Value::Int32(value)) => write_integer(i64::from(*value), out),
            (Some(Type::Int64), Value::Int64(value)) => write_integer(*value, out),
            (Some(Type::Float32), Value::Float32(value)) => write_float(*value, out),
            (Some(Type::Float64), Value::Float64(value)) => write_double(*value, out),
            (Some(Type::String), Value::String(text)) => write_string(text, out),
            (Some(Type::String), Value::Utf16(units)) => write_utf16(units, out),
            (Some(Type::Bytes), Value::Bytes(bytes)) => write_base64(bytes, out),
            (Some(Type::Array), Value::Array(elements)) => {
                self.write_array(schema, elements, out)?;
            }
            (Some(Type::Map), Value::Map(entries)) => self.write_map(schema, entries, out)?,
            (Some(Type::Struct), Value::Struct(fields)) => {
                self.write_struct(schema, fields, out)?;
            }
            (_, Value::Json(text)) => out.extend_from_slice(text),
            (kind, value) => {
                let kind = kind.map_or("unknown schema", Type::java_name);
                return Err(format!("Invalid type for {kind}: class {}", value.java_class()));
            }
        }
        Ok(())
    }

    fn write_null(&self, schema: Option<&Schema>, out: &mut Vec<u8>) -> Result<(), String> {
        let Some(schema) = schema else {
            out.extend_from_slice(b"null");
            return Ok(());
        };
        if let Some(default) = schema.default.as_ref().filter(|_| self.replace_null_with_default) {
            return self.write(Some(schema), default, out);
        }
        if schema.optional {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        Err("Conversion error: null value for field that is required and has no default value"
            .to_owned())
    }

    /// Connect's own logical types; none for other names.
    fn write_logical(
        &self,
        name: &str,
        schema: Option<&Schema>,
        value: &Value<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Result<(), String>> {
        /// Milliseconds of a day.
        const DAY: i64 = 86_400_000;
        match (name, value) {
            (logical::DECIMAL, Value::Decimal(decimal)) => {
                if self.decimal_format == DecimalFormat::Numeric {
                    out.extend_from_slice(decimal.to_string().as_bytes());
                    return Some(Ok(()));
                }
                let scale = schema.and_then(|schema| schema.parameter("scale"));
                if scale.and_then(|scale| scale.parse().ok()) != Some(decimal.scale()) {
                    let message = "Decimal value has mismatching scale for given Decimal schema";
                    return Some(Err(message.to_owned()));
                }
                write_base64(&decimal.unscaled_bytes(), out);
            }
            (logical::DATE, Value::Date(milliseconds)) => {
                write_integer(milliseconds.div_euclid(DAY), out);
            }
            (logical::TIME | logical::TIMESTAMP, Value::Date(milliseconds)) => {
                write_integer(*milliseconds, out);
            }
            (logical::DECIMAL | logical::DATE | logical::TIME | logical::TIMESTAMP, other) => {
                let class = other.java_class();
                return Some(Err(format!("Invalid type for {name}: class {class}")));
            }
            _ => return None,
        }
        Some(Ok(()))
    }

    fn write_array(
        &self,
        schema: Option<&Schema>,
        elements: &[Value<'_>],
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let element_schema = schema.and_then(|schema| schema.values.as_deref());
        out.push(b'[');
        for (index, element) in elements.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            self.write(element_schema, element, out)?;
        }
        out.push(b']');
        Ok(())
    }

    /// An object where the keys are text, otherwise an array of pairs.
    fn write_map(
        &self,
        schema: Option<&Schema>,
        entries: &[(Value<'_>, Value<'_>)],
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let keys = schema.and_then(|schema| schema.keys.as_deref());
        let values = schema.and_then(|schema| schema.values.as_deref());
        let is_object = match keys {
            Some(keys) => keys.kind == Type::String,
            None => entries.iter().all(|(key, _)| key.kind() == Some(Type::String)),
        };
        out.push(if is_object { b'{' } else { b'[' });
        for (index, (key, value)) in entries.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            if is_object {
                write_string(&key.to_java_text(), out);
                out.push(b':');
                self.write(values, value, out)?;
            } else {
                out.push(b'[');
                self.write(keys, key, out)?;
                out.push(b',');
                self.write(values, value, out)?;
                out.push(b']');
            }
        }
        out.push(if is_object { b'}' } else { b']' });
        Ok(())
    }

    fn write_struct(
        &self,
        schema: Option<&Schema>,
        fields: &Struct<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let own = fields.schema().as_ref();
        if schema.is_some_and(|schema| !std::ptr::eq(schema, own) && schema != own) {
            return Err("Mismatching schema.".to_owned());
        }
        out.push(b'{');
        for (index, (field, value)) in own.fields.iter().zip(fields.values()).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_string(&field.name, out);
            out.push(b':');
            self.write(Some(&field.schema), value, out)?;
        }
        out.push(b'}');
        Ok(())
    }
}

/// Appends bytes as a JSON string of base64 with padding.
fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    out.push(b'"');
}
