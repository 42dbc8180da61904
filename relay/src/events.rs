//! From a change to records: the chain of transforms, the converters, and what to do where one of them refuses.

mod on_its_way;
mod settle;
mod stage;
mod transform_log;

use std::collections::VecDeque;
use std::sync::Arc;

use event_router::chain::{Chain, Input};
use event_router::change::{Operation, ValueError};
use event_router::envelope::{
    Envelope, MessageSchemas, TransactionBlock, heartbeat, tombstone, transaction_boundary,
};
use event_router::{Header, RouteError, RoutedEvent};
use pgoutput::{LogicalMessage, OldTuple, Tuple};

use crate::columns::TupleRow;
use crate::connector_config::{ConnectorConfig, is_legal_topic};
use crate::context_headers::ContextHeaders;
use crate::dead_letter::stored::{StoredMessage, Subject};
use crate::dead_letter::{DeadLetters, ErrorCounts};
use crate::provenance::Provenance;
use crate::record::Record;
use crate::source::relations::CapturedTable;
use crate::source::wal::now_us;

use on_its_way::OnItsWay;
use transform_log::TransformLog;

pub use settle::{Attempt, Refusable};
pub use stage::Stage;
pub use transform_log::TRANSFORMS_LOG;

/// Ends the topic of logical decoding messages. Debezium takes the dot whatever `topic.delimiter` says.
const MESSAGE_TOPIC_SUFFIX: &str = ".message";

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
    /// Where the connector has a dead letter topic.
    dead_letters: Option<DeadLetters<'c>>,
    error_counts: Arc<ErrorCounts>,
}

/// What happened to a row of a table.
#[derive(Debug)]
pub struct TableChange<'t, 'r> {
    table: &'t CapturedTable,
    operation: Operation,
    before: Option<TupleRow<'t, 'r>>,
    after: Option<TupleRow<'t, 'r>>,
}

impl<'t, 'r> TableChange<'t, 'r> {
    /// A change that the stream has.
    #[must_use]
    pub fn of(table: &'t CapturedTable, change: RowChange<'r>) -> Self {
        let (operation, before, after) = match change {
            RowChange::Insert(new) => (Operation::Create, None, Some(new)),
            RowChange::Update(old, new) => (Operation::Update, old.map(tuple), Some(new)),
            RowChange::Delete(old) => (Operation::Delete, Some(tuple(old)), None),
            RowChange::Truncate => (Operation::Truncate, None, None),
        };
        let row = |row: Tuple<'r>| table.row(row);
        Self { table, operation, before: before.map(row), after: after.map(row) }
    }

    /// A row that a snapshot found.
    #[must_use]
    pub fn read(table: &'t CapturedTable, row: &'r [Option<String>]) -> Self {
        let after = Some(table.text_row(row));
        Self { table, operation: Operation::Read, before: None, after }
    }

    /// A change of which a dead letter tells.
    #[must_use]
    pub fn again(
        table: &'t CapturedTable,
        operation: Operation,
        before: Option<TupleRow<'t, 'r>>,
        after: Option<TupleRow<'t, 'r>>,
    ) -> Self {
        Self { table, operation, before, after }
    }
}

impl<'c> Events<'c> {
    /// The events of one start of a task.
    pub fn new(config: &'c ConnectorConfig, error_counts: Arc<ErrorCounts>) -> Self {
        Self {
            dead_letters: DeadLetters::new(config, Arc::clone(&error_counts)),
            error_counts,
            config,
            chain: config.chain.clone().write_json(config.converters.writes_plain_json()),
            context_headers: ContextHeaders::new(config),
            messages: MessageSchemas::new(config.value_modes.content_schema()),
            counts: Vec::new(),
        }
    }

    /// Appends the records of a change, or that of its dead letter; without a dead letter topic, what was appended
    /// before an error goes out.
    ///
    /// # Errors
    /// When the change cannot become a record and nothing in the connector's options lets it be left out or kept.
    pub fn change(
        &mut self,
        change: &TableChange<'_, '_>,
        attempt: Attempt<'_>,
        records: &mut VecDeque<Record>,
    ) -> Result<(), EventError> {
        let change = self.on_its_way(change, attempt.provenance);
        let begun = records.len();
        let made = self.split(&change, records);
        let subject = || Subject::Change(change.stored());
        self.settle((made, begun), attempt, records, &subject, |events| events.address(&change))
    }

    fn on_its_way<'t, 'r>(
        &self,
        change: &'t TableChange<'t, 'r>,
        provenance: &'t Provenance,
    ) -> OnItsWay<'t, 'r>
    where
        'c: 't,
    {
        OnItsWay {
            config: self.config,
            table: change.table,
            operation: change.operation,
            before: change.before.as_ref(),
            after: change.after.as_ref(),
            provenance,
            event_ts_us: now_us(),
            transaction: None,
        }
    }

    /// An update of the key counts as a delete, its tombstone and a create.
    fn split(
        &mut self,
        change: &OnItsWay<'_, '_>,
        records: &mut VecDeque<Record>,
    ) -> Result<(), EventError> {
        match change.key_change() {
            Ok(None) => self.emit(change, None, records),
            Ok(Some(keys)) => {
                let delete =
                    OnItsWay { operation: Operation::Delete, after: None, ..change.clone() };
                self.emit(&delete, Some(keys.new_key), records)?;
                let create =
                    OnItsWay { operation: Operation::Create, before: None, ..change.clone() };
                self.emit(&create, Some(keys.old_key), records)
            }
            Err(error) => self.tolerate(
                Err(unreadable(&change.table.full_name, &error)),
                change.provenance,
                Some(&|| Subject::Change(change.stored())),
            ),
        }
    }

    /// Appends the record of a logical decoding message, or that of its dead letter.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub fn message(
        &mut self,
        message: &LogicalMessage<'_>,
        attempt: Attempt<'_>,
        records: &mut VecDeque<Record>,
    ) -> Result<(), EventError> {
        let provenance = attempt.provenance;
        let begun = records.len();
        let event = self.message_event(message, provenance);
        let subject = || Subject::Message(StoredMessage::of(message));
        let table = "(logical decoding messages)";
        let sent = self.send(Input::Event(event), table, provenance, records);
        let made = self.tolerate(sent, provenance, Some(&subject));
        self.settle((made, begun), attempt, records, &subject, |events| {
            let event = events.message_event(message, provenance);
            events.address_of(*event)
        })
    }

    fn message_event<'m>(
        &self,
        message: &LogicalMessage<'m>,
        provenance: &Provenance,
    ) -> Box<RoutedEvent<'m>> {
        let topic = format!("{}{MESSAGE_TOPIC_SUFFIX}", self.config.topic_prefix);
        let source = provenance.source(self.config, "", "");
        let content = self.config.value_modes.content(message.content);
        let now_ms = now_us() / 1000;
        Box::new(self.messages.event(topic, &source, message.prefix, content, now_ms))
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
        let provenance = Provenance::default();
        let sent = self.send(input, "(heartbeats)", &provenance, records);
        self.tolerate(sent, &provenance, None)
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
        let input = Input::Event(Box::new(event));
        let sent = self.send(input, "(transactions)", provenance, records);
        self.tolerate(sent, provenance, None)
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
        let (table, provenance) = (&change.table.full_name, change.provenance);
        let subject = || Subject::Change(change.stored());
        let sent = self.send(Input::Change(change.raw(headers)), table, provenance, records);
        self.tolerate(sent, provenance, Some(&subject))?;
        let Some(headers) = of_tombstone else { return Ok(()) };
        let sent = match change.key() {
            Ok(key) => {
                let event = tombstone(change.table.topic.clone(), key, headers);
                self.send(Input::Event(Box::new(event)), table, provenance, records)
            }
            Err(error) => Err(unreadable(table, &error)),
        };
        self.tolerate(sent, provenance, Some(&subject))
    }

    /// Route and convert.
    fn send(
        &mut self,
        input: Input<'_, '_>,
        table: &str,
        provenance: &Provenance,
        records: &mut VecDeque<Record>,
    ) -> Result<(), EventError> {
        let refused = |stage: Stage, reason: String| {
            Err(EventError { table: table.to_owned(), stage, reason })
        };
        let log = TransformLog { connector: &self.config.name, table, provenance };
        let output = match self.chain.apply(input) {
            Ok(output) => output,
            Err(error) => {
                log.warnings(&self.chain.take_warnings());
                return match error {
                    RouteError::Value(error) => Err(unreadable(table, &error)),
                    error => refused(Stage::Transformation, error.to_string()),
                };
            }
        };
        log.warnings(&output.warnings);
        if let Some(skipped) = output.skipped {
            log.skipped(skipped);
        }
        let Some(event) = output.event else { return Ok(()) };
        match self.config.converters.convert(*event) {
            // Kafka would refuse it, and what stands behind it in the sink would overtake its dead letter.
            Ok(record) if self.dead_letters.is_some() && !is_legal_topic(&record.topic) => {
                let reason = format!("\"{}\" is no legal name of a topic", record.topic);
                refused(Stage::Produce, reason)
            }
            Ok(record) => {
                records.push_back(record);
                Ok(())
            }
            Err(error) => refused(error.stage.into(), error.to_string()),
        }
    }
}

/// A value that is not in the form of its type.
fn unreadable(table: &str, error: &ValueError) -> EventError {
    EventError { table: table.to_owned(), stage: Stage::Poll, reason: error.to_string() }
}

const fn tuple<'r>(old: OldTuple<'r>) -> Tuple<'r> {
    match old {
        OldTuple::Key(tuple) | OldTuple::Full(tuple) => tuple,
    }
}
