//! A schema in the JSON form that `JsonConverter` puts beside each value.

use event_router::data::{Schema, Type};
use event_router::json_text::{write_integer, write_string};

use super::json::JsonConverter;

/// Writes a schema; `field` is its name inside a struct.
pub(super) fn write_schema(
    converter: &JsonConverter,
    schema: &Schema,
    field: Option<&str>,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    out.extend_from_slice(b"{\"type\":");
    write_string(type_name(schema.kind), out);
    match schema.kind {
        Type::Array => write_part(converter, b",\"items\":", schema.values.as_deref(), out)?,
        Type::Map => {
            write_part(converter, b",\"keys\":", schema.keys.as_deref(), out)?;
            write_part(converter, b",\"values\":", schema.values.as_deref(), out)?;
        }
        Type::Struct => {
            out.extend_from_slice(b",\"fields\":[");
            for (index, field) in schema.fields.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_schema(converter, &field.schema, Some(&field.name), out)?;
            }
            out.push(b']');
        }
        _ => {}
    }
    out.extend_from_slice(b",\"optional\":");
    out.extend_from_slice(if schema.optional { b"true" } else { b"false" });
    write_text(b",\"name\":", schema.name.as_deref(), out);
    if let Some(version) = schema.version {
        out.extend_from_slice(b",\"version\":");
        write_integer(i64::from(version), out);
    }
    write_text(b",\"doc\":", schema.doc.as_deref(), out);
    write_parameters(schema, out);
    if let Some(default) = &schema.default {
        out.extend_from_slice(b",\"default\":");
        converter.write(Some(schema), default, out)?;
    }
    write_text(b",\"field\":", field, out);
    out.push(b'}');
    Ok(())
}

const fn type_name(kind: Type) -> &'static str {
    match kind {
        Type::Int8 => "int8",
        Type::Int16 => "int16",
        Type::Int32 => "int32",
        Type::Int64 => "int64",
        Type::Float32 => "float",
        Type::Float64 => "double",
        Type::Boolean => "boolean",
        Type::String => "string",
        Type::Bytes => "bytes",
        Type::Array => "array",
        Type::Map => "map",
        Type::Struct => "struct",
    }
}

fn write_part(
    converter: &JsonConverter,
    key: &[u8],
    schema: Option<&Schema>,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let schema = schema.ok_or("an array or map without a schema of its elements")?;
    out.extend_from_slice(key);
    write_schema(converter, schema, None, out)
}

fn write_text(key: &[u8], text: Option<&str>, out: &mut Vec<u8>) {
    if let Some(text) = text {
        out.extend_from_slice(key);
        write_string(text, out);
    }
}

fn write_parameters(schema: &Schema, out: &mut Vec<u8>) {
    if schema.parameters.is_empty() {
        return;
    }
    out.extend_from_slice(b",\"parameters\":{");
    for (index, (name, value)) in schema.parameters.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(name, out);
        out.push(b':');
        write_string(value, out);
    }
    out.push(b'}');
}
