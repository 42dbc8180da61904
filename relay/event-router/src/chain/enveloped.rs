//! Changes that come to a router as finished events, because another transform stood before it.

use std::sync::Arc;

use crate::change::{Change, Column, Operation, Row, Table};
use crate::data::{Schema, Struct, Value};
use crate::event::RoutedEvent;

/// Ends the name of every schema that a router takes for a change's.
const ENVELOPE_SUFFIX: &str = ".Envelope";

/// Remembers the table of the last change: a router knows tables by identity.
#[derive(Debug, Clone, Default)]
pub(super) struct Enveloped {
    last: Option<(Arc<Schema>, Arc<Table>)>,
}

/// A change that was taken out of its event.
pub(super) struct Unwrapped<'a> {
    table: Arc<Table>,
    operation: Operation,
    after: Option<Vec<Value<'a>>>,
    event_ts_ms: i64,
    event: Box<RoutedEvent<'a>>,
}

impl Enveloped {
    /// Takes the change out of an event; an event that is none comes back.
    pub(super) fn unwrap<'a>(
        &mut self,
        event: Box<RoutedEvent<'a>>,
    ) -> Result<Unwrapped<'a>, Box<RoutedEvent<'a>>> {
        let Value::Struct(envelope) = &event.value else { return Err(event) };
        let name = envelope.schema().name.as_deref().unwrap_or_default();
        let (Some(operation), Some(after)) = (operation(envelope), field(envelope, "after")) else {
            return Err(event);
        };
        if !name.ends_with(ENVELOPE_SUFFIX) {
            return Err(event);
        }
        let after = match after {
            Value::Struct(after) => Some(after),
            _ => None,
        };
        let schema = match (after, envelope.schema().index_of("after")) {
            (Some(after), _) => Arc::clone(after.schema()),
            (None, Some(index)) => Arc::clone(&envelope.schema().fields[index].schema),
            (None, None) => return Err(event),
        };
        let event_ts_ms = match field(envelope, "ts_ms") {
            Some(Value::Int64(milliseconds)) => *milliseconds,
            _ => 0,
        };
        let after = after.map(|after| after.values().to_vec());
        let table = self.table(&schema, field(envelope, "source"));
        Ok(Unwrapped { table, operation, after, event_ts_ms, event })
    }

    fn table(&mut self, schema: &Arc<Schema>, source: Option<&Value<'_>>) -> Arc<Table> {
        if let Some((known, table)) = &self.last
            && (Arc::ptr_eq(known, schema) || known == schema)
        {
            return Arc::clone(table);
        }
        let text = |name: &str| match source {
            Some(Value::Struct(source)) => field(source, name).map(Value::to_java_text),
            _ => None,
        };
        let columns = schema.fields.iter().map(|field| Column {
            name: field.name.clone(),
            schema: Arc::clone(&field.schema),
            key: false,
        });
        let table = Arc::new(Table {
            schema: text("schema").unwrap_or_default(),
            name: text("table").unwrap_or_default(),
            value_schema_name: schema.name.clone().unwrap_or_default(),
            columns: columns.collect(),
        });
        self.last = Some((Arc::clone(schema), Arc::clone(&table)));
        table
    }
}

impl<'a> Unwrapped<'a> {
    /// The change, with the headers of its event.
    pub(super) fn change(&mut self) -> Change<'_, 'a> {
        Change {
            table: &self.table,
            operation: self.operation,
            after: self.after.as_ref().map(|row| row as &dyn Row<'a>),
            event_ts_ms: self.event_ts_ms,
            headers: std::mem::take(&mut self.event.headers),
        }
    }
}

fn operation(envelope: &Struct<'_>) -> Option<Operation> {
    let Some(Value::String(code)) = field(envelope, "op") else { return None };
    Some(match &**code {
        "c" => Operation::Create,
        "r" => Operation::Read,
        "u" => Operation::Update,
        "d" => Operation::Delete,
        "t" => Operation::Truncate,
        _ => return None,
    })
}

fn field<'s, 'a>(structure: &'s Struct<'a>, name: &str) -> Option<&'s Value<'a>> {
    structure.schema().index_of(name).and_then(|index| structure.values().get(index))
}
