//! What the stream brings: from its frames to records.

use std::sync::Arc;
use std::time::Instant;

use pgoutput::frame::Frame;
use pgoutput::{LogicalMessage, Lsn, Message};

use super::commits::More;
use super::{Pipeline, PipelineError, Transaction};
use crate::canary;
use crate::events::{Attempt, RowChange, TableChange};
use crate::failpoint::{self, Step};
use crate::provenance::Provenance;
use crate::sink::Sink;
use crate::slot_identity::Mismatch;
use crate::source::SourceError;
use crate::source::wal::{WalStream, now_us};
use crate::source_offset::{Landmark, MESSAGE_KIND};

impl<S: Sink> Pipeline<'_, S> {
    /// Handles every frame that has arrived, until the sink is full or (when stopping) a new transaction begins.
    pub(super) async fn publish_received(
        &mut self,
        wal: &mut WalStream,
        stopping: bool,
    ) -> Result<(), PipelineError> {
        self.publish_held();
        while self.has_room() && !(stopping && self.transaction.is_none()) {
            match wal.next_frame()? {
                Some(Frame::WalData(data)) => {
                    failpoint::reached(Step::AfterReceive);
                    self.reporter.received(data.start_lsn);
                    match pgoutput::decode(data.payload).map_err(SourceError::from)? {
                        Message::Relation(relation) => {
                            self.relations.learn(&relation, self.config).await?;
                        }
                        message => {
                            self.handle(&message, data.start_lsn)?;
                            self.commit_where_due(More::MayFollow, stopping);
                        }
                    }
                }
                Some(Frame::Keepalive(keepalive)) => {
                    // Within a transaction the position could lie behind changes that are still to come.
                    if self.transaction.is_none() {
                        // Every transaction that was committed before has been sent.
                        self.check_past(keepalive.wal_end)?;
                        self.handled(keepalive.wal_end);
                    }
                    self.reply_requested |= keepalive.reply_requested;
                    self.requests_unanswered += u32::from(keepalive.reply_requested);
                }
                None => break,
            }
        }
        Ok(())
    }

    /// The stream has reached `lsn`.
    fn check_past(&self, lsn: Lsn) -> Result<(), PipelineError> {
        let Some(Landmark { xid, commit_lsn, .. }) = self.reporter.passed(lsn) else {
            return Ok(());
        };
        let slot = self.config.slot.clone();
        let mismatch = Mismatch::OtherPast { slot, position: commit_lsn, xid };
        Err(SourceError::from(Box::new(mismatch)).into())
    }

    fn handle(&mut self, message: &Message<'_>, lsn: Lsn) -> Result<(), PipelineError> {
        match message {
            Message::Begin(begin) => {
                let provenance = Provenance::of_transaction(begin, self.reporter.last_commit());
                let was_told = self.reporter.begin_transaction(begin);
                self.check_past(begin.commit_lsn)?;
                // Where the stream is taken up again within a transaction, its begin was told before.
                let is_new = self.position.advance(begin.commit_lsn, 0) && !was_told;
                let provenance = Provenance { lsn, ..provenance };
                self.transaction = Some(Transaction { provenance: provenance.clone(), changes: 0 });
                if is_new {
                    let made = self.events.transaction_begins(&provenance, &mut self.held);
                    self.publish_made(made, &provenance)?;
                }
            }
            Message::Origin(origin) => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.provenance.origin = Some(Arc::new(origin.into()));
                }
            }
            Message::Commit(commit) => {
                if let Some(Transaction { provenance, .. }) = &self.transaction
                    && self.position.advance(provenance.commit_lsn, u64::MAX)
                    && !self.reporter.is_covered()
                {
                    let provenance = Provenance { lsn, ..provenance.clone() };
                    let made = self.events.transaction_ends(&provenance, &mut self.held);
                    self.publish_made(made, &provenance)?;
                }
                self.ended_at = Some(commit.end_lsn);
                self.complete_transaction();
            }
            Message::Insert(insert) => {
                self.change(insert.relation_id, RowChange::Insert(insert.new), lsn)?;
            }
            Message::Update(update) => {
                self.change(update.relation_id, RowChange::Update(update.old, update.new), lsn)?;
            }
            Message::Delete(delete) => {
                self.change(delete.relation_id, RowChange::Delete(delete.old), lsn)?;
            }
            Message::Truncate(truncate) => {
                for relation_id in &truncate.relation_ids {
                    self.change(*relation_id, RowChange::Truncate, lsn)?;
                }
            }
            Message::LogicalMessage(message) => self.logical_message(message, lsn)?,
            // The catalogue tells more of a type than its name.
            Message::Type(_) | Message::Relation(_) => {}
        }
        Ok(())
    }

    fn change(
        &mut self,
        relation_id: u32,
        change: RowChange<'_>,
        lsn: Lsn,
    ) -> Result<(), PipelineError> {
        let Some(captured) = self.relations.captured(relation_id) else { return Ok(()) };
        let Some(provenance) = self.next_change(lsn, change.kind())? else { return Ok(()) };
        let (change, attempt) = (TableChange::of(&captured, change), Attempt::first(&provenance));
        let made = self.events.change(&change, attempt, &mut self.held);
        self.expect_answer(&change, attempt);
        self.publish_made(made, &provenance)
    }

    fn logical_message(
        &mut self,
        message: &LogicalMessage<'_>,
        lsn: Lsn,
    ) -> Result<(), PipelineError> {
        if canary::is_canary(message.prefix) {
            self.health.canary(|canary| canary.returned(message.content, Instant::now()));
            return Ok(());
        }
        if !self.config.events.passes_messages(message.prefix) {
            return Ok(());
        }
        let provenance = if message.transactional {
            self.next_change(lsn, MESSAGE_KIND)?
        } else {
            // It is no part of a transaction: Debezium counts it as a commit of its own.
            let commit_ts_us = now_us();
            let covered = self.reporter.lone_message(lsn, commit_ts_us);
            // PostgreSQL tells the end of a message's record, where the record of a commit may begin: positions of
            // records are multiples of 8, so that one less is the message's alone.
            let position = Lsn::new(lsn.as_u64().saturating_sub(1));
            let is_new = self.position.advance(position, 1) && !covered;
            is_new.then(|| Provenance::of_lone_message(lsn, commit_ts_us))
        };
        let Some(provenance) = provenance else { return Ok(()) };
        let attempt = Attempt::first(&provenance);
        let made = self.events.message(message, attempt, &mut self.held);
        self.publish_made(made, &provenance)
    }

    /// Counts a change of the transaction; none when it was published before.
    fn next_change(
        &mut self,
        lsn: Lsn,
        kind: &'static str,
    ) -> Result<Option<Provenance>, PipelineError> {
        let Some(transaction) = &mut self.transaction else {
            let reason = "a change came outside of a transaction".to_owned();
            return Err(SourceError::Protocol(reason).into());
        };
        transaction.changes += 1;
        let covered = self.reporter.change(kind);
        let is_new = self.position.advance(transaction.provenance.commit_lsn, transaction.changes);
        Ok((is_new && !covered).then(|| Provenance { lsn, ..transaction.provenance.clone() }))
    }
}
