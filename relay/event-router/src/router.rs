//! The decision: from a change to an event, in Debezium's order, so that the same mistake gives the same error.

mod envelope;
mod row;

use std::sync::Arc;

use envelope::EnvelopeSchemas;
use row::OutboxRow;

use crate::chain::Address;
use crate::change::{Change, Operation, Row, Table};
use crate::data::{Schema, Struct, Value};
use crate::event::{Header, Outcome, RouteError, RoutedEvent, Skipped, Warning};
use crate::expand::{ExpandError, Expansion, write_directly};
use crate::options::{self, InvalidOperation, Placement, RouterOptions};
use crate::plan::{Plans, TablePlan};
use crate::topic::TopicRouter;
use crate::tracing::{RandomBits, trace};

/// Name of the header with the event's id, whatever its column is called.
const ID_HEADER: &str = "id";

/// Name of the payload's field in the envelope.
const ENVELOPE_PAYLOAD: &str = "payload";

/// A configured event router.
///
/// It remembers where tables have their columns, the topics of aggregate types and the schemas of envelopes: the last
/// of these can be seen from outside, as Debezium's envelope keeps the name it got first.
#[derive(Debug, Clone)]
pub struct Router {
    options: RouterOptions,
    topics: TopicRouter,
    plans: Plans,
    envelopes: EnvelopeSchemas,
    has_envelope: bool,
    write_json: bool,
    tracing: Option<RandomBits>,
    warnings: Vec<Warning>,
}

/// The payload with its schema, expanded or not.
struct Payload<'a> {
    schema: Option<Arc<Schema>>,
    value: Value<'a>,
}

impl Router {
    /// A router with these options.
    #[must_use]
    pub fn new(options: RouterOptions) -> Self {
        Self {
            topics: TopicRouter::new(options.topic_regex.clone(), &options.topic_replacement),
            has_envelope: options.has_envelope(),
            options,
            plans: Plans::default(),
            envelopes: EnvelopeSchemas::default(),
            write_json: false,
            tracing: None,
            warnings: Vec::new(),
        }
    }

    /// Lets expanded payloads be written as JSON at once ([`Value::Json`]) where that is all that will be made of
    /// them. Only for a value converter that is `JsonConverter` without schemas, with no transform in between.
    #[must_use]
    pub const fn write_json(mut self, write_json: bool) -> Self {
        self.write_json = write_json;
        self
    }

    /// See [`Self::write_json`].
    pub(crate) const fn set_write_json(&mut self, write_json: bool) {
        self.write_json = write_json;
    }

    /// Lets the router write tracing headers, as Debezium does where OpenTelemetry's SDK is there.
    pub(crate) const fn set_tracing(&mut self, random: RandomBits) {
        self.tracing = Some(random);
    }

    /// The options.
    #[must_use]
    pub const fn options(&self) -> &RouterOptions {
        &self.options
    }

    /// What was to be logged of a change that then failed. (Of a change that was routed, the outcome has it.)
    pub fn take_warnings(&mut self) -> Vec<Warning> {
        std::mem::take(&mut self.warnings)
    }

    /// Routes a change.
    ///
    /// # Errors
    /// When Debezium would stop the task: an update with `table.op.invalid.behavior=fatal`, a column that is missing
    /// or of the wrong type, a value that does not fit.
    pub fn route<'a>(&mut self, change: Change<'_, 'a>) -> Result<Outcome<'a>, RouteError> {
        match change.operation {
            Operation::Delete => return Ok(Outcome::Skipped(Skipped::Delete)),
            Operation::Update => return self.update(change.table).map(Outcome::Skipped),
            Operation::Read | Operation::Create | Operation::Truncate => {}
        }
        let Some(after) = change.after else {
            return Err(RouteError::NoRow { table: full_name(change.table) });
        };
        let plan = self.plans.of(change.table, &self.options);
        let row = OutboxRow { table: change.table, row: after };
        self.warnings.clear();
        let event = self.event(&row, &plan, change.event_ts_ms, change.headers)?;
        Ok(Outcome::Routed(Box::new(event), self.take_warnings()))
    }

    /// Topic and key of a change's event, though other parts of the row may be wrong; none where the key cannot be
    /// read.
    pub fn address<'a>(&mut self, change: &Change<'_, 'a>) -> Option<Address<'a>> {
        let plan = self.plans.of(change.table, &self.options);
        let row = OutboxRow { table: change.table, row: change.after? };
        let (column, schema) =
            row.column(plan.key, options::FIELD_EVENT_KEY, &self.options.key_column).ok()?;
        let key = row.value_or_default(column).ok()?;
        let routed_by = row.text(plan.route, options::ROUTE_BY_FIELD, &self.options.route_column);
        let topic = routed_by.ok().flatten().and_then(|text| self.topics.topic(&text).ok());
        Some(Address { topic, key_schema: Some(schema), key })
    }

    fn update(&self, table: &Table) -> Result<Skipped, RouteError> {
        match self.options.invalid_operation {
            InvalidOperation::Warn => Ok(Skipped::UpdateWarned),
            InvalidOperation::Error => Ok(Skipped::UpdateReported),
            InvalidOperation::Fatal => {
                Err(RouteError::UnexpectedUpdate { table: full_name(table) })
            }
        }
    }

    fn event<'a>(
        &mut self,
        row: &OutboxRow<'_, 'a>,
        plan: &TablePlan,
        event_ts_ms: i64,
        mut headers: Vec<Header<'a>>,
    ) -> Result<RoutedEvent<'a>, RouteError> {
        self.trace(row, plan, &mut headers)?;
        let (payload_column, _) =
            row.column(plan.payload, options::FIELD_EVENT_PAYLOAD, &self.options.payload_column)?;
        let timestamp = self.timestamp(row, plan, event_ts_ms)?;
        let (id_column, id_schema) =
            row.column(plan.id, options::FIELD_EVENT_ID, &self.options.id_column)?;
        headers.push(Header {
            name: ID_HEADER.into(),
            schema: Some(id_schema),
            value: row.value_or_default(id_column)?,
        });
        let payload = self.payload(row, payload_column)?;
        let is_empty = is_empty(&payload.value);
        let mut envelope = self.envelope(row, plan, &payload)?;
        let mut value = if self.has_envelope { Value::Null } else { payload.value };
        let partition = self.place(row, plan, &mut headers, &mut envelope)?;
        let (key_column, key_schema) =
            row.column(plan.key, options::FIELD_EVENT_KEY, &self.options.key_column)?;
        let key = row.value_or_default(key_column)?;
        let routed_by =
            row.text(plan.route, options::ROUTE_BY_FIELD, &self.options.route_column)?;
        let mut value_schema = payload.schema;
        if is_empty && self.options.tombstone_on_empty_payload {
            (value, value_schema) = (Value::Null, None);
        } else if let Some(envelope) = envelope {
            value_schema = Some(Arc::clone(envelope.schema()));
            value = Value::Struct(Box::new(envelope));
        }
        let routed_by = routed_by
            .ok_or_else(|| RouteError::NullTopic { column: self.options.route_column.clone() })?;
        Ok(RoutedEvent {
            topic: self.topics.topic(&routed_by)?,
            partition,
            key_schema: Some(key_schema),
            key,
            value_schema,
            value,
            headers,
            timestamp: Some(timestamp),
        })
    }

    fn trace(
        &self,
        row: &OutboxRow<'_, '_>,
        plan: &TablePlan,
        headers: &mut Vec<Header<'_>>,
    ) -> Result<(), RouteError> {
        let Some(random) = self.tracing else { return Ok(()) };
        let options = &self.options.tracing;
        let context = match plan.tracing {
            Some(_) => row.text(plan.tracing, options::TRACING_FIELD, &options.column)?,
            None => None,
        };
        if context.is_some() || !options.column_only {
            trace(context.as_deref(), random, headers)?;
        }
        Ok(())
    }

    fn timestamp(
        &self,
        row: &OutboxRow<'_, '_>,
        plan: &TablePlan,
        event_ts_ms: i64,
    ) -> Result<i64, RouteError> {
        let Some(name) = &self.options.timestamp_column else { return Ok(event_ts_ms) };
        let (index, schema) = row.column(plan.timestamp, options::FIELD_EVENT_TIMESTAMP, name)?;
        row.timestamp(index, &schema, name, event_ts_ms)
    }

    fn payload<'a>(
        &mut self,
        row: &OutboxRow<'_, 'a>,
        column: usize,
    ) -> Result<Payload<'a>, RouteError> {
        let value = row.value_or_default(column)?;
        let schema = row.schema(column);
        let Some(expansion) = &self.options.expansion else { return Ok(Payload { schema, value }) };
        match value {
            Value::String(text) => {
                if self.write_json && !self.has_envelope {
                    let mut json = Vec::new();
                    if write_directly(expansion, &text, &mut json) {
                        return Ok(Payload { schema, value: Value::Json(json) });
                    }
                }
                Ok(expand(
                    expansion,
                    &self.options.payload_column,
                    text,
                    schema,
                    &mut self.warnings,
                ))
            }
            // A null is left for the tombstone to decide, without a warning.
            Value::Null => Ok(Payload { schema, value }),
            value => {
                self.warnings.push(Warning::PayloadIsNotText);
                Ok(Payload { schema, value })
            }
        }
    }

    /// The envelope with the payload in it, if columns are placed there.
    fn envelope<'a>(
        &mut self,
        row: &OutboxRow<'_, 'a>,
        plan: &TablePlan,
        payload: &Payload<'a>,
    ) -> Result<Option<Struct<'a>>, RouteError> {
        if !self.has_envelope {
            return Ok(None);
        }
        let version = match &self.options.version_column {
            None => None,
            Some(column) => Some(row.int32(plan.version, options::FIELD_SCHEMA_VERSION, column)?),
        };
        let routed_by =
            row.text(plan.route, options::ROUTE_BY_FIELD, &self.options.route_column)?;
        let schema = self.envelopes.schema(
            &self.options,
            row,
            plan,
            payload.schema.as_ref(),
            version,
            routed_by.as_deref(),
        )?;
        let mut envelope = Struct::new(&schema)?;
        envelope.put(ENVELOPE_PAYLOAD, payload.value.clone())?;
        Ok(Some(envelope))
    }

    /// Puts the additional columns where they belong; gives the partition.
    fn place<'a>(
        &self,
        row: &OutboxRow<'_, 'a>,
        plan: &TablePlan,
        headers: &mut Vec<Header<'a>>,
        envelope: &mut Option<Struct<'a>>,
    ) -> Result<Option<i32>, RouteError> {
        let mut partition = None;
        for (field, column) in self.options.additional.iter().zip(&plan.additional) {
            if self.options.ignore_missing && column.is_none() {
                continue;
            }
            let Some(placement) = field.placement else {
                return Err(RouteError::UnknownPlacement { column: field.column.clone() });
            };
            let option = options::FIELDS_ADDITIONAL_PLACEMENT;
            if placement == Placement::Partition {
                partition = row.int32(*column, option, &field.column)?;
                continue;
            }
            let (index, schema) = row.column(*column, option, &field.column)?;
            let value = row.value_or_default(index)?;
            match (placement, envelope.as_mut()) {
                (Placement::Envelope, Some(envelope)) => envelope.put(&field.alias, value)?,
                _ => headers.push(Header {
                    name: field.alias.clone().into(),
                    schema: Some(schema),
                    value,
                }),
            }
        }
        Ok(partition)
    }
}

fn expand<'a>(
    expansion: &Expansion,
    column: &str,
    text: std::borrow::Cow<'a, str>,
    schema: Option<Arc<Schema>>,
    warnings: &mut Vec<Warning>,
) -> Payload<'a> {
    match expansion.expand(column, &text) {
        Ok(expanded) => Payload { schema: Some(expanded.schema), value: expanded.value },
        Err(error) => {
            warnings.push(Warning::ExpansionFailed(error.reason().to_owned()));
            let schema = match error {
                ExpandError::Unchanged(_) => schema,
                ExpandError::SchemaReplaced(replaced, _) => replaced,
            };
            Payload { schema, value: Value::String(text) }
        }
    }
}

/// Whether a payload counts as empty: null, or text of nothing but characters up to U+0020 (Java's `trim`).
fn is_empty(payload: &Value<'_>) -> bool {
    match payload {
        Value::Null => true,
        Value::String(text) => text.bytes().all(|byte| byte <= b' '),
        _ => false,
    }
}

fn full_name(table: &Table) -> String {
    format!("{}.{}", table.schema, table.name)
}

#[cfg(test)]
mod tests;
