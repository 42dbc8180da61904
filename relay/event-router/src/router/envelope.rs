//! Schemas of envelopes. Debezium makes one per payload schema (or per version) and keeps it, with the name and the
//! fields that the first event gave it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::ENVELOPE_PAYLOAD;
use super::row::OutboxRow;
use crate::data::{DataError, Schema, Type};
use crate::event::RouteError;
use crate::options::{FIELDS_ADDITIONAL_PLACEMENT, Placement, RouterOptions};
use crate::plan::TablePlan;

/// Most schemas that are kept, as in Debezium; then all are forgotten.
const SCHEMAS_MAX: usize = 10_000;

/// Payload schema and envelope schema.
type SchemaPair = (Arc<Schema>, Arc<Schema>);

/// The schemas made so far.
#[derive(Debug, Clone, Default)]
pub(super) struct EnvelopeSchemas {
    /// Payload schema and envelope schema, by the hash of the first.
    by_payload: HashMap<u64, Vec<SchemaPair>>,
    by_version: HashMap<Option<i32>, Arc<Schema>>,
    /// The last pair: most tables have one payload schema.
    last: Option<SchemaPair>,
    count: usize,
}

impl EnvelopeSchemas {
    /// The schema for a payload; `version` is none where no column has it, and none inside where it is null.
    pub(super) fn schema(
        &mut self,
        options: &RouterOptions,
        row: &OutboxRow<'_, '_>,
        plan: &TablePlan,
        payload: Option<&Arc<Schema>>,
        version: Option<Option<i32>>,
        routed_by: Option<&str>,
    ) -> Result<Arc<Schema>, RouteError> {
        let payload = payload.ok_or_else(|| {
            DataError(
                "an empty array as payload has no schema, so no envelope can hold it".to_owned(),
            )
        })?;
        let build = || build(options, row, plan, payload, version.flatten(), routed_by);
        if let Some(version) = version {
            if let Some(schema) = self.by_version.get(&version) {
                return Ok(Arc::clone(schema));
            }
            let schema = build()?;
            self.make_room();
            self.by_version.insert(version, Arc::clone(&schema));
            return Ok(schema);
        }
        if let Some((known, schema)) = &self.last
            && Arc::ptr_eq(known, payload)
        {
            return Ok(Arc::clone(schema));
        }
        let hash = hash(payload);
        let known = self.by_payload.get(&hash).and_then(|pairs| {
            pairs.iter().find(|(known, _)| known == payload).map(|(_, schema)| Arc::clone(schema))
        });
        let schema = match known {
            Some(schema) => schema,
            None => {
                let schema = build()?;
                self.make_room();
                let pair = (Arc::clone(payload), Arc::clone(&schema));
                self.by_payload.entry(hash).or_default().push(pair);
                schema
            }
        };
        self.last = Some((Arc::clone(payload), Arc::clone(&schema)));
        Ok(schema)
    }

    fn make_room(&mut self) {
        if self.count == SCHEMAS_MAX {
            *self = Self::default();
        }
        self.count += 1;
    }
}

fn build(
    options: &RouterOptions,
    row: &OutboxRow<'_, '_>,
    plan: &TablePlan,
    payload: &Arc<Schema>,
    version: Option<i32>,
    routed_by: Option<&str>,
) -> Result<Arc<Schema>, RouteError> {
    let mut schema = Schema::new(Type::Struct).with_field(ENVELOPE_PAYLOAD, Arc::clone(payload));
    schema.name = Some(name(&row.table.value_schema_name, routed_by));
    schema.version = version;
    for (field, column) in options.additional.iter().zip(&plan.additional) {
        if field.placement != Some(Placement::Envelope)
            || (column.is_none() && options.ignore_missing)
        {
            continue;
        }
        let (_, column_schema) = row.column(*column, FIELDS_ADDITIONAL_PLACEMENT, &field.column)?;
        if schema.index_of(&field.alias).is_some() {
            let message = format!("the envelope would have two fields named {}", field.alias);
            return Err(DataError(message).into());
        }
        if field.alias.is_empty() {
            return Err(DataError("a field of the envelope has an empty name".to_owned()).into());
        }
        schema = schema.with_field(&field.alias, column_schema);
    }
    Ok(Arc::new(schema))
}

/// The routed value before the last part of the row's schema name: `server.schema.table.<routed by>.Value`.
fn name(row_schema: &str, routed_by: Option<&str>) -> String {
    // Java prints a null so.
    let routed_by = routed_by.unwrap_or("null");
    match row_schema.rsplit_once('.') {
        Some((front, last)) => format!("{front}.{routed_by}.{last}"),
        None => format!("{routed_by}.{row_schema}"),
    }
}

/// A hash of the parts that usually differ; equality is checked in full.
fn hash(schema: &Schema) -> u64 {
    let mut hasher = DefaultHasher::new();
    hash_into(schema, &mut hasher);
    hasher.finish()
}

fn hash_into(schema: &Schema, hasher: &mut DefaultHasher) {
    (schema.kind, schema.optional, &schema.name, schema.version).hash(hasher);
    for field in &schema.fields {
        field.name.hash(hasher);
        hash_into(&field.schema, hasher);
    }
    if let Some(values) = &schema.values {
        hash_into(values, hasher);
    }
}
