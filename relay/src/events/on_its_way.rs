//! One change on its way, and what its envelope tells of it.

use event_router::Header;
use event_router::change::{Change, Operation, Row, ValueError};
use event_router::data::Value;
use event_router::envelope::{Envelope, Key, RawChange, Source, TransactionBlock};

use crate::columns::{KeyChange, TupleRow};
use crate::connector_config::ConnectorConfig;
use crate::dead_letter::stored::{StoredChange, StoredRow};
use crate::provenance::Provenance;
use crate::source::relations::CapturedTable;

/// One change on its way.
#[derive(Clone)]
pub(super) struct OnItsWay<'c, 'r> {
    pub(super) config: &'c ConnectorConfig,
    pub(super) table: &'c CapturedTable,
    pub(super) operation: Operation,
    pub(super) before: Option<&'c TupleRow<'c, 'r>>,
    pub(super) after: Option<&'c TupleRow<'c, 'r>>,
    pub(super) provenance: &'c Provenance,
    pub(super) event_ts_us: i64,
    pub(super) transaction: Option<TransactionBlock>,
}

impl<'r> OnItsWay<'_, 'r> {
    pub(super) fn key_change(&self) -> Result<Option<KeyChange<'r>>, ValueError> {
        let (Some(before), Some(after)) = (self.before, self.after) else { return Ok(None) };
        let key_schema = self.table.key_schema.as_ref();
        self.table.columns.key_change(key_schema, &before.tuple, &after.tuple)
    }

    /// As it enters the chain of transforms.
    pub(super) fn raw(&self, headers: Vec<Header<'r>>) -> RawChange<'_, 'r> {
        RawChange {
            change: Change {
                table: &self.table.table,
                operation: self.operation,
                after: self.after.map(|row| row as &dyn Row<'r>),
                event_ts_ms: self.event_ts_us.div_euclid(1000),
                headers,
            },
            before: self.before.map(|row| row as &dyn Row<'r>),
            envelope: self,
        }
    }

    /// As a dead letter keeps it.
    pub(super) fn stored(&self) -> StoredChange {
        let shape = &self.table.shape;
        let row = |row: Option<&TupleRow<'_, 'r>>| row.map(|row| StoredRow::of(shape, &row.tuple));
        StoredChange {
            operation: StoredChange::letter(self.operation).to_owned(),
            table: shape.clone(),
            before: row(self.before),
            after: row(self.after),
        }
    }
}

impl<'r> Envelope<'r> for OnItsWay<'_, 'r> {
    fn topic(&self) -> &str {
        &self.table.topic
    }

    fn key(&self) -> Result<Key<'r>, ValueError> {
        let row = self.after.or(self.before);
        let Some((schema, row)) = self.table.key_schema.as_ref().zip(row) else {
            return Ok(Key { schema: None, value: Value::Null });
        };
        let key = self.table.columns.key(schema, &row.tuple)?;
        Ok(Key { schema: Some(schema.clone()), value: Value::Struct(Box::new(key)) })
    }

    fn source(&self) -> Source<'_> {
        let table = &self.table.table;
        self.provenance.source(self.config, &table.schema, &table.name)
    }

    fn transaction(&self) -> Option<TransactionBlock> {
        self.transaction.clone()
    }

    fn event_ts_us(&self) -> i64 {
        self.event_ts_us
    }
}
