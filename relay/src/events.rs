//! From a change to records: the chain of transforms, the converters, and what to do where one of them refuses.

use std::collections::VecDeque;
use std::fmt;

use event_router::chain::{Chain, Input};
use event_router::change::{Change, Operation, Row, ValueError};
use event_router::data::Value;
use event_router::envelope::{
    Envelope, Key, MessageSchemas, RawChange, Source, TransactionBlock, heartbeat, tombstone,
    transaction_boundary,
};
use event_router::{Header, RouteError, Skipped, Warning};
use pgoutput::{LogicalMessage, OldTuple, Tuple};

use crate::columns::TupleRow;
use crate::connector_config::{ConnectorConfig, Unreadable};
use crate::context_headers::ContextHeaders;
use crate::convert;
use crate::provenance::Provenance;
use crate::record::Record;
use crate::source::relations::CapturedTable;
use crate::source::wal::now_us;

/// The log's target for what Debezium's transforms log, so that it can be told apart and switched by itself.
pub const TRANSFORMS_LOG: &str = "relay::transforms";

/// Ends the topic of logical decoding messages. Debezium takes the dot whatever `topic.delimiter` says.
const MESSAGE_TOPIC_SUFFIX: &str = ".message";

/// Where a change failed on its way, as Kafka Connect names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The connector could not read it.
    Poll,
    /// A transform refused it.
    Transformation,
    /// A converter refused a header.
    HeaderConverter,
    /// A converter refused the key.
    KeyConverter,
    /// A converter refused the value.
    ValueConverter,
    /// Kafka's producer takes no such record: its partition or timestamp is negative.
    Produce,
}

impl fmt::Display for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Poll => "TASK_POLL",
            Self::Transformation => "TRANSFORMATION",
            Self::HeaderConverter => "HEADER_CONVERTER",
            Self::KeyConverter => "KEY_CONVERTER",
            Self::ValueConverter => "VALUE_CONVERTER",
            Self::Produce => "KAFKA_PRODUCE",
        })
    }
}

/// A change that cannot become a record, in a connector that stops there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventError {
    /// Schema and name of the table, or what it is instead of a row.
    pub table: String,
    /// Where it failed.
    pub stage: Stage,
    /// What is wrong.
    pub reason: String,
}

/// A change of a row, as the stream has it.
#[derive(Debug, Clone, Copy)]
pub enum RowChange<'r> {
    /// A new row.
    Insert(Tuple<'r>),
    /// A changed row; of what it was, only what the table's replica identity tells.
    Update(Option<OldTuple<'r>>, Tuple<'r>),
    /// A deleted row.
    Delete(OldTuple<'r>),
    /// All rows were removed.
    Truncate,
}

impl RowChange<'_> {
    /// As source offsets name it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Insert(_) => "INSERT",
            Self::Update(..) => "UPDATE",
            Self::Delete(_) => "DELETE",
            Self::Truncate => "TRUNCATE",
        }
    }
}

/// Makes events of changes, and records of events.
#[derive(Debug)]
pub struct Events<'c> {
    config: &'c ConnectorConfig,
    chain: Chain,
    context_headers: ContextHeaders,
    messages: MessageSchemas,
    /// Events of the transaction so far, by table, in the order in which the tables came.
    counts: Vec<(String, i64)>,
}

/// One change on its way.
struct OnItsWay<'c, 'r> {
    config: &'c ConnectorConfig,
    table: &'c CapturedTable,
    operation: Operation,
    before: Option<&'c TupleRow<'c, 'r>>,
    after: Option<&'c TupleRow<'c, 'r>>,
    provenance: &'c Provenance,
    event_ts_us: i64,
    transaction: Option<TransactionBlock>,
}

impl<'c> Events<'c> {
    /// The events of one start of a task.
    pub fn new(config: &'c ConnectorConfig) -> Self {
        Self {
            config,
            chain: config.chain.clone().write_json(config.converters.writes_plain_json()),
            context_headers: ContextHeaders::new(config),
            messages: MessageSchemas::new(config.value_modes.content_schema()),
            counts: Vec::new(),
        }
    }

    /// Appends the records of a change; what was appended before an error goes out.
    ///
    /// # Errors
    /// When the change cannot become a record and nothing in the connector's options lets it be left out.
    pub fn change(
        &mut self,
        table: &CapturedTable,
        change: RowChange<'_>,
        provenance: &Provenance,
        records: &mut VecDeque<Record>,
    ) -> Result<(), EventError> {
        let (operation, before, after) = match change {
            RowChange::Insert(new) => (Operation::Create, None, Some(new)),
            RowChange::Update(old, new) => (Operation::Update, old.map(tuple), Some(new)),
            RowChange::Delete(old) => (Operation::Delete, Some(tuple(old)), None),
            RowChange::Truncate => (Operation::Truncate, None, None),
        };
        let before = before.map(|old| table.row(old));
        let after = after.map(|new| table.row(new));
        let change = OnItsWay {
            config: self.config,
            table,
            operation,
            before: before.as_ref(),
            after: after.as_ref(),
            provenance,
            event_ts_us: now_us(),
            transaction: None,
        };
        // An update of the key counts as a delete, its tombstone and a create.
        match change.key_change() {
            Ok(None) => self.emit(&change, None, records),
            Ok(Some(keys)) => {
                let delete = OnItsWay {
                    operation: Operation::Delete,
                    after: None,
                    transaction: None,
                    ..change
                };
                self.emit(&delete, Some(keys.new_key), records)?;
                let create = OnItsWay {
                    operation: Operation::Create,
                    before: None,
                    transaction: None,
                    ..change
                };
                self.emit(&create, Some(keys.old_key), records)
            }
            Err(error) => self.unreadable(&table.full_name, &error),
        }
    }

    /// Appends the record of a row that a snapshot found.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub fn read(
        &mut self,
        table: &CapturedTable,
        row: &[Option<String>],
        provenance: &Provenance,
        records: &mut VecDeque<Record>,
    ) -> Result<(), EventError> {
        let row = table.text_row(row);
        let change = OnItsWay {
            config: self.config,
            table,
            operation: Operation::Read,
            before: None,
            after: Some(&row),
            provenance,
            event_ts_us: now_us(),
            transaction: None,
        };
        self.emit(&change, None, records)
    }

    /// Appends the record of a logical decoding message.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub fn message(
        &mut self,
        message: &LogicalMessage<'_>,
        provenance: &Provenance,
        records: &mut VecDeque<Record>,
    ) -> Result<(), EventError> {
        let topic = format!("{}{MESSAGE_TOPIC_SUFFIX}", self.config.topic_prefix);
        let source = provenance.source(self.config, "", "");
        let content = self.config.value_modes.content(message.content);
        let now_ms = now_us() / 1000;
        let event = self.messages.event(topic, &source, message.prefix, content, now_ms);
        self.send(Input::Event(Box::new(event)), "(logical decoding messages)", provenance, records)
    }

    /// Appends a heartbeat.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub fn heartbeat(&mut self, records: &mut VecDeque<Record>) -> Result<(), EventError> {
        let metadata = &self.config.metadata;
        let topic = metadata.heartbeat_topic.clone();
        let event = heartbeat(topic, &self.config.topic_prefix, now_us() / 1000);
        let input = Input::Event(Box::new(event));
        self.send(input, "(heartbeats)", &Provenance::default(), records)
    }

    /// Appends the begin of a transaction, if that is told.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub fn transaction_begins(
        &mut self,
        provenance: &Provenance,
        records: &mut VecDeque<Record>,
    ) -> Result<(), EventError> {
        self.counts.clear();
        self.boundary(false, provenance, records)
    }

    /// Appends the end of a transaction, if that is told.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub fn transaction_ends(
        &mut self,
        provenance: &Provenance,
        records: &mut VecDeque<Record>,
    ) -> Result<(), EventError> {
        self.boundary(true, provenance, records)
    }

    fn boundary(
        &mut self,
        is_end: bool,
        provenance: &Provenance,
        records: &mut VecDeque<Record>,
    ) -> Result<(), EventError> {
        let Some(topic) = self.config.metadata.transaction_topic.clone() else { return Ok(()) };
        let counts = is_end.then_some(self.counts.as_slice());
        let commit_ts_ms = provenance.commit_ts_us.div_euclid(1000);
        let event = transaction_boundary(topic, &provenance.transaction_id(), counts, commit_ts_ms);
        self.send(Input::Event(Box::new(event)), "(transactions)", provenance, records)
    }

    /// Counts a change in its transaction, if that is told. What a snapshot reads is in none.
    fn count(&mut self, change: &OnItsWay<'_, '_>) -> Option<TransactionBlock> {
        self.config.metadata.transaction_topic.as_ref()?;
        change.provenance.xid?;
        let table = &change.table.full_name;
        let at = self.counts.iter().position(|(name, _)| name == table).unwrap_or_else(|| {
            self.counts.push((table.clone(), 0));
            self.counts.len() - 1
        });
        let (_, count) = self.counts.get_mut(at)?;
        *count += 1;
        let collection_order = *count;
        let total_order = self.counts.iter().map(|(_, count)| count).sum();
        Some(TransactionBlock {
            id: change.provenance.transaction_id(),
            total_order,
            collection_order,
        })
    }

    fn emit<'r>(
        &mut self,
        change: &OnItsWay<'_, 'r>,
        key_header: Option<Header<'r>>,
        records: &mut VecDeque<Record>,
    ) -> Result<(), EventError> {
        let is_delete = change.operation == Operation::Delete;
        if self.config.events.skips(change.operation) {
            return Ok(());
        }
        let transaction = self.count(change);
        if is_delete && self.chain.begins_with_router() {
            return Ok(());
        }
        let change = &OnItsWay { transaction, ..*change };
        let mut headers: Vec<Header<'r>> = key_header.into_iter().collect();
        self.context_headers.append_to(&mut headers);
        let of_tombstone = (is_delete && self.config.events.tombstones).then(|| headers.clone());
        let raw = RawChange {
            change: Change {
                table: &change.table.table,
                operation: change.operation,
                after: change.after.map(|row| row as &dyn Row<'r>),
                event_ts_ms: change.event_ts_us.div_euclid(1000),
                headers,
            },
            before: change.before.map(|row| row as &dyn Row<'r>),
            envelope: change,
        };
        let table = &change.table.full_name;
        self.send(Input::Change(raw), table, change.provenance, records)?;
        let Some(headers) = of_tombstone else { return Ok(()) };
        match change.key() {
            Ok(key) => {
                let event = tombstone(change.table.topic.clone(), key, headers);
                let input = Input::Event(Box::new(event));
                self.send(input, table, change.provenance, records)
            }
            Err(error) => self.unreadable(&change.table.full_name, &error),
        }
    }

    /// Route and convert.
    fn send(
        &mut self,
        input: Input<'_, '_>,
        table: &str,
        provenance: &Provenance,
        records: &mut VecDeque<Record>,
    ) -> Result<(), EventError> {
        let log = TransformLog { connector: &self.config.name, table, provenance };
        let output = match self.chain.apply(input) {
            Ok(output) => output,
            Err(error) => {
                log.warnings(&self.chain.take_warnings());
                return match error {
                    RouteError::Value(error) => self.unreadable(table, &error),
                    error => self.refused(table, Stage::Transformation, &error.to_string()),
                };
            }
        };
        log.warnings(&output.warnings);
        if let Some(skipped) = output.skipped {
            log.skipped(skipped);
        }
        let Some(event) = output.event else { return Ok(()) };
        match self.config.converters.convert(*event) {
            Ok(record) => {
                records.push_back(record);
                Ok(())
            }
            Err(error) => self.refused(table, error.stage.into(), &error.to_string()),
        }
    }

    /// Connect's `errors.tolerance` is about transforms and converters; the producer's own refusal always stops.
    fn refused(&self, table: &str, stage: Stage, reason: &str) -> Result<(), EventError> {
        if self.config.events.tolerates_errors && stage != Stage::Produce {
            tracing::warn!(
                connector.name = self.config.name,
                table,
                "left out, as errors.tolerance says (stage '{stage}'): {reason}"
            );
            return Ok(());
        }
        Err(EventError { table: table.to_owned(), stage, reason: reason.to_owned() })
    }

    fn unreadable(&self, table: &str, error: &ValueError) -> Result<(), EventError> {
        let (stage, reason) = (Stage::Poll, error.to_string());
        match self.config.events.unreadable {
            Unreadable::Fail => Err(EventError { table: table.to_owned(), stage, reason }),
            Unreadable::Warn => {
                tracing::warn!(
                    connector.name = self.config.name,
                    table,
                    "left out, as event.processing.failure.handling.mode says: {reason}"
                );
                Ok(())
            }
            Unreadable::Skip => Ok(()),
        }
    }
}

impl<'r> OnItsWay<'_, 'r> {
    fn key_change(&self) -> Result<Option<crate::columns::KeyChange<'r>>, ValueError> {
        let (Some(before), Some(after)) = (self.before, self.after) else { return Ok(None) };
        let key_schema = self.table.key_schema.as_ref();
        self.table.columns.key_change(key_schema, &before.tuple, &after.tuple)
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

/// What Debezium's transforms log of a change.
struct TransformLog<'l> {
    connector: &'l str,
    table: &'l str,
    provenance: &'l Provenance,
}

impl TransformLog<'_> {
    fn warnings(&self, warnings: &[Warning]) {
        for warning in warnings {
            let (lsn, message) = (self.provenance.commit_lsn, warning.message());
            tracing::warn!(
                target: TRANSFORMS_LOG, { connector.name = self.connector, %lsn, table = self.table }, "{message}"
            );
        }
    }

    /// As Debezium: a delete is what an outbox does, an update is not.
    fn skipped(&self, skipped: Skipped) {
        let (connector, table, lsn) = (self.connector, self.table, self.provenance.commit_lsn);
        let message = "Unexpected update message received and ignored";
        match skipped {
            Skipped::Delete => {}
            Skipped::UpdateWarned => {
                tracing::warn!(target: TRANSFORMS_LOG, { connector.name = connector, %lsn, table }, "{message}");
            }
            Skipped::UpdateReported => {
                tracing::error!(target: TRANSFORMS_LOG, { connector.name = connector, %lsn, table }, "{message}");
            }
        }
    }
}

impl From<convert::Stage> for Stage {
    fn from(stage: convert::Stage) -> Self {
        match stage {
            convert::Stage::Header => Self::HeaderConverter,
            convert::Stage::Key => Self::KeyConverter,
            convert::Stage::Value => Self::ValueConverter,
            convert::Stage::Record => Self::Produce,
        }
    }
}

const fn tuple<'r>(old: OldTuple<'r>) -> Tuple<'r> {
    match old {
        OldTuple::Key(tuple) | OldTuple::Full(tuple) => tuple,
    }
}
