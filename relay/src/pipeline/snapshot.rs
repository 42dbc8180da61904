//! What a snapshot brings: rows that are read one by one, each published before the next.

use pgoutput::{Lsn, Relation};

use super::{Pipeline, PipelineError};
use crate::events::{Attempt, TableChange};
use crate::failpoint::{self, Step};
use crate::provenance::Provenance;
use crate::sink::Sink;
use crate::source::connection::Connection;
use crate::source::wal::now_us;

impl<S: Sink> Pipeline<'_, S> {
    /// Takes note of a table's shape, before rows of it are [read](Self::read).
    ///
    /// # Errors
    /// When the catalogue cannot be read.
    pub async fn learn(
        &mut self,
        relation: &Relation<'_>,
        connection: &mut Connection,
    ) -> Result<(), PipelineError> {
        Ok(self.relations.learn_with(relation, self.config, connection).await?)
    }

    /// Publishes a row that a snapshot found, when there is room.
    ///
    /// # Errors
    /// When the row or the sink fails.
    pub async fn read(
        &mut self,
        relation_id: u32,
        row: &[Option<String>],
    ) -> Result<(), PipelineError> {
        let Some(captured) = self.relations.captured(relation_id) else { return Ok(()) };
        let provenance = Provenance { commit_ts_us: now_us(), ..Provenance::default() };
        let (change, attempt) = (TableChange::read(&captured, row), Attempt::first(&provenance));
        let read = self.events.change(&change, attempt, &mut self.held);
        self.expect_answer(&change, attempt);
        self.publish_made(read, &provenance)?;
        self.take_confirmations()?;
        while !self.held.is_empty() || self.unanswered.is_some() {
            self.sink_moved().await;
            self.take_confirmations()?;
            self.publish_held();
        }
        failpoint::reached(Step::AfterSnapshotRow);
        if self.is_commit_of_rows_due() {
            self.settle().await?;
        }
        Ok(())
    }

    /// A snapshot that found rows is published and confirmed.
    pub fn snapshot_completed(&mut self, lsn: Lsn, transaction_id: Option<u64>) {
        if self.commits() && self.config.snapshot.mode.streams() {
            // The stream that follows commits its own positions, and one that is told could come after them.
            return;
        }
        self.reporter.tell_snapshot(&self.progress, lsn, transaction_id);
    }

    /// Takes note of a snapshot that is published and confirmed.
    pub const fn note_snapshot(&mut self) {
        self.snapshot_taken = true;
    }

    /// Whether a snapshot was taken: a lost connection is no reason for another one.
    pub const fn has_snapshot(&self) -> bool {
        self.snapshot_taken
    }
}
