//! Fills a struct of an inferred schema with the document's values.

use std::borrow::Cow;
use std::sync::Arc;

use super::tree::Node;
use crate::data::{DataError, Decimal, Schema, Struct, Value};

/// A struct of the document's members that the schema has.
pub(super) fn structure(node: &Node, schema: &Arc<Schema>) -> Result<Value<'static>, DataError> {
    let mut structure = Struct::new(schema)?;
    for (index, field) in schema.fields.iter().enumerate() {
        if let Some(member) = node.member(&field.name) {
            structure.put_at(index, value(member, &field.schema)?)?;
        }
    }
    Ok(Value::Struct(Box::new(structure)))
}

fn value(node: &Node, schema: &Arc<Schema>) -> Result<Value<'static>, DataError> {
    Ok(match node {
        Node::Null => Value::Null,
        Node::Boolean(value) => Value::Boolean(*value),
        Node::Int(value) => Value::Int32(*value),
        Node::Long(value) => Value::Int64(*value),
        Node::Double(value) => Value::Float64(*value),
        // The schema says 64 bit floating point, so this never fits: Debezium cannot expand such numbers.
        Node::BigInteger(digits) => digits
            .parse::<Decimal>()
            .map(Value::Decimal)
            .map_err(|error| DataError(error.to_string()))?,
        Node::Text(text) => Value::String(Cow::Owned(text.clone())),
        Node::Utf16(units) => Value::Utf16(units.clone()),
        Node::Array(elements) => array(elements, schema)?,
        Node::Object(_) => structure(node, schema)?,
    })
}

fn array(elements: &[Node], schema: &Schema) -> Result<Value<'static>, DataError> {
    if elements.is_empty() {
        return Ok(Value::Array(Vec::new()));
    }
    let element_schema = schema.values.as_ref().ok_or_else(|| {
        DataError("Cannot look up value schema on non-array and non-map type".to_owned())
    })?;
    elements
        .iter()
        .map(|element| value(element, element_schema))
        .collect::<Result<_, _>>()
        .map(Value::Array)
}
