//! A struct value and the checks that Connect makes when a field is set.

use std::sync::Arc;

use super::{Schema, Type, Value, logical};

/// Connect's `DataException`: a value does not fit its schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DataError(pub String);

/// Values by field, in the order of the schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Struct<'a> {
    schema: Arc<Schema>,
    values: Vec<Value<'a>>,
}

impl<'a> Struct<'a> {
    /// A struct with all fields null.
    ///
    /// # Errors
    /// When the schema is not that of a struct.
    pub fn new(schema: &Arc<Schema>) -> Result<Self, DataError> {
        if schema.kind != Type::Struct {
            return Err(DataError(format!("Not a struct schema: {}", describe(schema))));
        }
        let values = vec![Value::Null; schema.fields.len()];
        Ok(Self { schema: Arc::clone(schema), values })
    }

    /// A struct of values that are known to fit.
    #[must_use]
    pub fn from_parts(schema: Arc<Schema>, mut values: Vec<Value<'a>>) -> Self {
        values.resize(schema.fields.len(), Value::Null);
        Self { schema, values }
    }

    /// The schema.
    #[must_use]
    pub const fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// The same values under a schema that has the same fields.
    #[must_use]
    pub fn with_schema(self, schema: Arc<Schema>) -> Self {
        Self::from_parts(schema, self.values)
    }

    /// The values as they are set: nulls are not replaced by defaults.
    #[must_use]
    pub fn values(&self) -> &[Value<'a>] {
        &self.values
    }

    /// A field's value; the default stands for null, as in Connect.
    #[must_use]
    pub fn get(&self, index: usize) -> &Value<'a> {
        const NULL: &Value<'static> = &Value::Null;
        match (self.values.get(index), self.schema.fields.get(index)) {
            (Some(Value::Null), Some(field)) => field.schema.default.as_ref().unwrap_or(NULL),
            (Some(value), _) => value,
            (None, _) => NULL,
        }
    }

    /// Sets a field.
    ///
    /// # Errors
    /// When there is no such field or the value does not fit its schema.
    pub fn put(&mut self, name: &str, value: Value<'a>) -> Result<(), DataError> {
        let index = self
            .schema
            .index_of(name)
            .ok_or_else(|| DataError(format!("{name} is not a valid field name")))?;
        self.put_at(index, value)
    }

    /// Sets a field by its position.
    ///
    /// # Errors
    /// When there is no such field or the value does not fit its schema.
    pub fn put_at(&mut self, index: usize, value: Value<'a>) -> Result<(), DataError> {
        let field = self
            .schema
            .fields
            .get(index)
            .ok_or_else(|| DataError(format!("no field at position {index}")))?;
        validate(&field.name, &field.schema, &value)?;
        if let Some(slot) = self.values.get_mut(index) {
            *slot = value;
        }
        Ok(())
    }

    pub(super) fn into_owned(self) -> Struct<'static> {
        let values = self.values.into_iter().map(Value::into_owned).collect();
        Struct { schema: self.schema, values }
    }

    pub(super) fn write_java_text(&self, out: &mut String) {
        out.push_str("Struct{");
        let mut first = true;
        for (field, value) in self.schema.fields.iter().zip(&self.values) {
            if value.is_null() {
                continue;
            }
            if !std::mem::take(&mut first) {
                out.push(',');
            }
            out.push_str(&field.name);
            out.push('=');
            value.write_java_text(out);
        }
        out.push('}');
    }
}

/// How Connect prints a schema in messages.
pub(super) fn describe(schema: &Schema) -> String {
    schema.name.as_ref().map_or_else(
        || format!("Schema{{{}}}", schema.kind.java_name()),
        |name| format!("Schema{{{name}:{}}}", schema.kind.java_name()),
    )
}

/// Checks a value as Connect's `ConnectSchema.validateValue` does.
fn validate(name: &str, schema: &Arc<Schema>, value: &Value<'_>) -> Result<(), DataError> {
    if value.is_null() {
        if schema.optional {
            return Ok(());
        }
        return Err(DataError(format!(
            "Invalid value: null used for required field: \"{name}\", schema type: {}",
            schema.kind.java_name()
        )));
    }
    if !fits(schema, value) {
        return Err(DataError(format!(
            "Invalid Java object for schema with type {}: class {} for field: \"{name}\"",
            schema.kind.java_name(),
            value.java_class()
        )));
    }
    match value {
        // Most structs are built with the very schema of the field; comparing deeply is the rare case.
        Value::Struct(fields)
            if !Arc::ptr_eq(fields.schema(), schema) && fields.schema() != schema =>
        {
            Err(DataError("Struct schemas do not match.".to_owned()))
        }
        Value::Array(elements) => match &schema.values {
            Some(element_schema) => {
                elements.iter().try_for_each(|element| validate(name, element_schema, element))
            }
            None => Ok(()),
        },
        Value::Map(entries) => match (&schema.keys, &schema.values) {
            (Some(keys), Some(values)) => entries.iter().try_for_each(|(key, value)| {
                validate(name, keys, key)?;
                validate(name, values, value)
            }),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

fn fits(schema: &Schema, value: &Value<'_>) -> bool {
    match value {
        Value::Decimal(_) => schema.name.as_deref() == Some(logical::DECIMAL),
        Value::Date(_) => matches!(
            schema.name.as_deref(),
            Some(logical::DATE | logical::TIME | logical::TIMESTAMP)
        ),
        // Expanded JSON was written for the schema that it would have had.
        Value::Json(_) => true,
        other => other.kind() == Some(schema.kind),
    }
}
