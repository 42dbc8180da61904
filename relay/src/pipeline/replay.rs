//! Dead letters again: each is routed with the connector's options of now, published, confirmed and marked as replayed.
//!
//! The stream waits meanwhile, so that no later event of a key comes between its dead letters.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use pgoutput::LogicalMessage;
use tokio_util::sync::CancellationToken;

use super::{Pipeline, PipelineError};
use crate::columns::TupleRow;
use crate::connector_config::ConnectorConfig;
use crate::dead_letter::ErrorCounts;
use crate::dead_letter::desk::{Desk, ReplayRequest, ReplaySummary};
use crate::dead_letter::parked::At;
use crate::dead_letter::stored::{RowValue, StoredChange, Subject};
use crate::dead_letter::topic::Found;
use crate::events::{Attempt, EventError, Stage, TableChange};
use crate::failpoint::{self, Step};
use crate::sink::Sink;
use crate::source::relations::{CapturedTable, Relations};
use crate::source::table_shape::TableShape;
use crate::source::wal::WalStream;

/// Letters between two marks: what a crash repeats at the most.
const LETTERS_PER_MARK: u32 = 100;

/// Shapes of tables that a replay remembers.
const SHAPES_MAX: usize = 100;

/// Tables as letters tell of them.
type Tables = HashMap<TableShape, Option<Arc<CapturedTable>>>;

/// Waits for somebody who asks for a replay; for ever where there are no dead letters.
pub(super) async fn asked(desk: Option<&Desk>) -> ReplayRequest {
    match desk {
        Some(desk) => desk.asked().await,
        None => std::future::pending().await,
    }
}

impl<S: Sink> Pipeline<'_, S> {
    /// Takes the desk of the connector's dead letters.
    pub fn keep_dead_letters(&mut self, desk: Option<Arc<Desk>>) {
        self.desk = desk;
    }

    /// Makes the dead letter topic ready, once, and reads which keys are parked, for a snapshot that may follow.
    ///
    /// # Errors
    /// When the topic cannot be used or does not answer.
    pub async fn prepare_dead_letters(&mut self) -> Result<(), PipelineError> {
        let Some(desk) = &self.desk else { return Ok(()) };
        if !self.dead_letters_ready {
            desk.ensure().await?;
            self.dead_letters_ready = true;
        }
        self.find_parked().await
    }

    /// Reads which keys are parked. Once more when the slot is ours: another relay may have parked some until then.
    ///
    /// # Errors
    /// When the topic does not answer.
    pub async fn find_parked(&mut self) -> Result<(), PipelineError> {
        let Some(desk) = &self.desk else { return Ok(()) };
        if let (Some(parked), Some(letters)) = (desk.parked().await?, self.events.dead_letters()) {
            letters.restore(parked);
        }
        Ok(())
    }

    /// Replays the letters that are there now, and answers who asked.
    pub(super) async fn replay(
        &mut self,
        wal: &mut WalStream,
        request: ReplayRequest,
        stop: &CancellationToken,
    ) -> Result<(), PipelineError> {
        let Some(desk) = self.desk.clone() else { return Ok(()) };
        if let Some(letters) = self.events.dead_letters() {
            letters.begin_replay();
        }
        let replayed = self.replay_open(&desk, wal, stop).await;
        let is_whole = replayed.as_ref().is_ok_and(|summary| summary.complete);
        if let Some(letters) = self.events.dead_letters() {
            letters.end_replay(is_whole);
        }
        if let Ok(summary) = &replayed {
            tracing::info!(
                connector.name = self.config.name,
                replayed = summary.replayed,
                dead_again = summary.dead_again,
                complete = summary.complete,
                "dead letters replayed"
            );
        }
        // Who asked may have gone; the replay counts all the same.
        let _ = request.send(replayed.as_ref().map(Clone::clone).map_err(ToString::to_string));
        replayed.map(|_| ())
    }

    async fn replay_open(
        &mut self,
        desk: &Desk,
        wal: &mut WalStream,
        stop: &CancellationToken,
    ) -> Result<ReplaySummary, PipelineError> {
        // What is on its way may be letters, too, which nobody can read before they are confirmed.
        self.all_confirmed(wal).await?;
        let mut letters = desk.open_letters();
        let mut tables = Tables::new();
        let mut through = BTreeMap::new();
        let mut unmarked = 0;
        let mut summary = ReplaySummary::default();
        loop {
            let found = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(self.acknowledgement_due()) => {
                    self.acknowledge(wal).await?;
                    continue;
                }
                found = letters.recv() => found,
            };
            let Some(found) = found.transpose()? else {
                summary.complete = true;
                break;
            };
            self.replay_one(&found, &mut tables, &mut summary).await?;
            self.publish_all(wal).await?;
            through.insert(found.at.partition, found.at.offset);
            unmarked += 1;
            if unmarked >= LETTERS_PER_MARK {
                self.mark(desk, &mut through, wal).await?;
                unmarked = 0;
            }
        }
        self.mark(desk, &mut through, wal).await?;
        Ok(summary)
    }

    /// Makes the records of one letter.
    async fn replay_one(
        &mut self,
        found: &Found,
        tables: &mut Tables,
        summary: &mut ReplaySummary,
    ) -> Result<(), PipelineError> {
        let letter = &found.letter;
        let provenance = letter.position.provenance();
        let attempt = Attempt { provenance: &provenance, number: letter.attempt.saturating_add(1) };
        let made = match &letter.subject {
            Subject::Message(message) => {
                let content = message.content();
                let message = LogicalMessage {
                    transactional: message.transactional,
                    message_lsn: provenance.lsn,
                    prefix: &message.prefix,
                    content: &content,
                };
                self.events.message(&message, attempt, &mut self.held)
            }
            Subject::Change(change) => match captured(self.config, &change.table, tables).await? {
                Some(table) => self.change_again(&table, change, attempt),
                None => {
                    let table = format!("{}.{}", change.table.schema, change.table.name);
                    let reason = format!("table {table} is not captured any more");
                    Err(EventError { table, stage: Stage::Poll, reason })
                }
            },
        };
        let made = made.or_else(|error| {
            // It stays a dead letter, whatever the reason: nothing is dropped here.
            let again = self.events.dead_again(letter, found.key.clone(), attempt, &error)?;
            self.held.push_back(again);
            Ok(())
        });
        let topic = self.config.errors.dead_letters.as_ref().map(|letters| &letters.topic);
        match self.held.front() {
            None => summary.without_event += 1,
            Some(record) if Some(&record.topic) == topic => summary.dead_again += 1,
            Some(_) => {
                ErrorCounts::count(&self.error_counts.replayed);
                summary.replayed += 1;
            }
        }
        self.publish_made(made, &provenance)
    }

    fn change_again(
        &mut self,
        table: &CapturedTable,
        change: &StoredChange,
        attempt: Attempt<'_>,
    ) -> Result<(), EventError> {
        let before = change.before.as_ref().map(|row| row.values(&change.table));
        let after = change.after.as_ref().map(|row| row.values(&change.table));
        let before = before.as_deref().map(|values| tuple_row(table, values));
        let after = after.as_deref().map(|values| tuple_row(table, values));
        let Some(operation) = change.operation() else {
            let reason = format!("its operation \"{}\" is not known", change.operation);
            return Err(EventError { table: table.full_name.clone(), stage: Stage::Poll, reason });
        };
        let change = TableChange::again(table, operation, before, after);
        let made = self.events.change(&change, attempt, &mut self.held);
        self.expect_answer(&change, attempt);
        made
    }

    /// Waits until all that is held was handed to the sink.
    async fn publish_all(&mut self, wal: &mut WalStream) -> Result<(), PipelineError> {
        loop {
            self.take_confirmations()?;
            self.publish_held();
            if self.held.is_empty() && self.unanswered.is_none() {
                return Ok(());
            }
            self.wait_for_sink(wal).await?;
        }
    }

    /// When everything is confirmed, or in the same transaction, says in the topic how far the letters were replayed.
    async fn mark(
        &mut self,
        desk: &Desk,
        through: &mut BTreeMap<i32, i64>,
        wal: &mut WalStream,
    ) -> Result<(), PipelineError> {
        if !self.commits() {
            self.all_confirmed(wal).await?;
        }
        failpoint::reached(Step::BeforeReplayMark);
        for (partition, offset) in std::mem::take(through) {
            self.held.push_back(desk.topic().mark(At { partition, offset }));
        }
        self.publish_all(wal).await?;
        self.all_confirmed(wal).await?;
        failpoint::reached(Step::AfterReplayMark);
        Ok(())
    }

    async fn all_confirmed(&mut self, wal: &mut WalStream) -> Result<(), PipelineError> {
        loop {
            self.take_confirmations()?;
            self.commit_published();
            if self.in_flight() == 0 {
                return Ok(());
            }
            self.wait_for_sink(wal).await?;
        }
    }

    async fn wait_for_sink(&mut self, wal: &mut WalStream) -> Result<(), PipelineError> {
        let due = self.acknowledgement_due();
        tokio::select! {
            () = tokio::time::sleep_until(due) => self.acknowledge(wal).await,
            () = self.sink_moved() => Ok(()),
        }
    }
}

fn tuple_row<'c, 'r>(table: &'c CapturedTable, values: &'r [RowValue<'r>]) -> TupleRow<'c, 'r> {
    TupleRow { columns: &table.columns, tuple: values.iter().map(RowValue::column).collect() }
}

/// A table in the shape that a letter tells of, with what the catalogue says of it now.
async fn captured(
    config: &ConnectorConfig,
    shape: &TableShape,
    tables: &mut Tables,
) -> Result<Option<Arc<CapturedTable>>, PipelineError> {
    if let Some(known) = tables.get(shape) {
        return Ok(known.clone());
    }
    let mut relations = Relations::default();
    relations.learn(&shape.relation(), config).await?;
    let table = relations.captured(shape.oid);
    if tables.len() >= SHAPES_MAX {
        tables.clear();
    }
    tables.insert(shape.clone(), table.clone());
    Ok(table)
}
