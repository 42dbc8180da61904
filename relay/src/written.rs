//! What a task tells of its work while it runs: the source offset to store, and the topics that it wrote to.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgoutput::Begin;
use pgoutput::Lsn;
use tokio::sync::Notify;

use crate::progress::{Progress, Sequence};
use crate::slot_identity::SlotIdentity;
use crate::source::wal::{POSTGRES_EPOCH_US, now_us};
use crate::source_offset::{Landmark, MESSAGE_KIND, OffsetTracker, Resumption, SourceOffset, Told};

/// Topics that wait to be taken; one that finds no room is told with its next record.
const TOPICS_MAX: usize = 1_000;

/// Shared by a task, which tells, and the worker, which stores.
#[derive(Debug, Default)]
pub struct Written {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    told: Option<Told>,
    topics: BTreeSet<String>,
}

impl Written {
    /// The offset of the last record that Kafka confirmed.
    pub fn tell_offset(&self, told: Told) {
        let mut state = self.lock();
        if state.told.as_ref() != Some(&told) {
            state.told = Some(told);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Topics that records were written to.
    pub fn tell_topics(&self, topics: Vec<String>) {
        if topics.is_empty() {
            return;
        }
        let mut state = self.lock();
        let room = TOPICS_MAX.saturating_sub(state.topics.len());
        state.topics.extend(topics.into_iter().take(room));
        drop(state);
        self.changed.notify_one();
    }

    /// Waits until something is told; for one who waits at a time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The offset that was told last.
    #[must_use]
    pub fn told(&self) -> Option<Told> {
        self.lock().told.clone()
    }

    /// The same, as far as the position goes: what another pipeline of this task goes on from.
    #[must_use]
    pub fn offset(&self) -> Option<SourceOffset> {
        self.lock().told.as_ref().map(|told| told.moved.as_ref().unwrap_or(&told.offset).clone())
    }

    /// Takes the topics that were told since the last call.
    #[must_use]
    pub fn take_topics(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.lock().topics)
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pipeline's end: follows the stream, and tells what Kafka has confirmed of it.
#[derive(Debug)]
pub struct Reporter {
    connector: String,
    tracker: OffsetTracker,
    written: Arc<Written>,
    /// Positions are committed with the records; what is told here are topics alone.
    commits: bool,
    /// Position of the message that is being handled.
    message_lsn: Lsn,
}

impl Reporter {
    /// What `stored` covers is not published again; what is published is told to `written`.
    #[must_use]
    pub fn new(connector: &str, stored: Option<SourceOffset>, written: Arc<Written>) -> Self {
        let (connector, tracker) = (connector.to_owned(), OffsetTracker::resuming(stored));
        Self { connector, tracker, written, commits: false, message_lsn: Lsn::ZERO }
    }

    /// Goes on from the position that was committed last: it is read back when no other producer can move it any more.
    /// From now on positions are for the sink to commit, and none is told.
    pub fn resume_committed(&mut self, committed: Option<SourceOffset>) {
        self.commits = true;
        self.tracker = OffsetTracker::resuming(committed);
    }

    /// The stored offset is of no use any more.
    pub fn forget_stored(&mut self) {
        self.tracker = OffsetTracker::resuming(None);
    }

    /// The offset that was told last.
    #[must_use]
    pub fn told(&self) -> Option<SourceOffset> {
        self.written.offset()
    }

    /// Compares the stored offset with the slot that a stream is about to begin from, and says what follows.
    pub fn begin_stream(
        &mut self,
        slot_lsn: Option<Lsn>,
        wal_end: Lsn,
        identity: Option<SlotIdentity>,
    ) {
        report(self.tracker.begin(slot_lsn, wal_end, identity), &self.connector);
    }

    /// The position to commit where no transaction is open and everything before `lsn` is handled.
    #[must_use]
    pub fn position_at(&self, lsn: Lsn) -> SourceOffset {
        self.tracker.position_at(lsn, now_us())
    }

    /// The position to commit within the transaction that is being read; none before a change of it was published.
    #[must_use]
    pub fn position_within(&self, lsn: Lsn) -> Option<SourceOffset> {
        self.tracker.position_within(lsn)
    }

    /// A message is about to be handled.
    pub fn received(&mut self, lsn: Lsn) {
        self.message_lsn = lsn;
    }

    /// A transaction begins. True: its begin was told before.
    pub fn begin_transaction(&mut self, begin: &Begin) -> bool {
        let commit_time_us = begin.commit_time_us.saturating_add(POSTGRES_EPOCH_US);
        self.tracker.begin_transaction(Some(begin.xid.into()), begin.commit_lsn, commit_time_us)
    }

    /// Whether a slot at `slot_lsn` has to send again what was published last.
    #[must_use]
    pub fn comes_again(&self, slot_lsn: Option<Lsn>) -> bool {
        self.tracker.comes_again(slot_lsn).is_some()
    }

    /// Whether the stream may be of another history than what was published last: then nothing is acknowledged.
    #[must_use]
    pub const fn is_unproven(&self) -> bool {
        self.tracker.is_unproven()
    }

    /// The transaction that should have come again before the stream reached `lsn`.
    #[must_use]
    pub fn passed(&self, lsn: Lsn) -> Option<Landmark> {
        self.tracker.passed(lsn)
    }

    /// Whether the whole transaction that is being read was published before.
    #[must_use]
    pub fn is_covered(&self) -> bool {
        self.tracker.is_covered()
    }

    /// A transaction was read to its end.
    pub fn end_transaction(&mut self, end_lsn: Lsn) {
        if let Some(changes) = self.tracker.end_transaction(end_lsn) {
            tracing::info!(
                connector.name = self.connector,
                changes,
                lsn = %end_lsn,
                "skipped the changes that the stored source offset covers; everything from here on is new"
            );
        }
    }

    /// A captured change was read; true: the stored offset covers it, it was published before.
    /// `kind` is what source offsets name it.
    pub fn change(&mut self, kind: &'static str) -> bool {
        self.tracker.change(self.message_lsn, kind)
    }

    /// A message outside of transactions was read; true: it was published before.
    pub fn lone_message(&mut self, lsn: Lsn, now_us: i64) -> bool {
        self.tracker.begin_transaction(None, lsn, now_us);
        let covered = self.tracker.change(lsn, MESSAGE_KIND);
        self.end_transaction(lsn);
        covered
    }

    /// Where the last transaction ended.
    #[must_use]
    pub const fn last_commit(&self) -> Option<Lsn> {
        self.tracker.last_commit()
    }

    /// A record of the change that was read last was published.
    pub fn published(&mut self, sequence: Sequence, topic: &str, is_last: bool) {
        self.tracker.published(sequence, topic, is_last);
    }

    /// Takes in what is confirmed.
    pub fn confirm(&mut self, progress: &Progress) {
        self.tracker.confirm(progress.oldest_unconfirmed());
    }

    /// Tells what is confirmed.
    pub fn tell(&mut self, progress: &Progress) {
        let told = self.tracker.told(progress.confirmed_lsn()).filter(|_| !self.commits);
        if let Some(told) = told {
            self.written.tell_offset(told);
        }
        self.written.tell_topics(self.tracker.take_topics(progress.oldest_unconfirmed()));
    }

    /// Tells that a snapshot as of `lsn`, which found rows, is published and confirmed.
    pub fn tell_snapshot(&mut self, progress: &Progress, lsn: Lsn, transaction_id: Option<u64>) {
        self.tell(progress);
        let offset = SourceOffset::of_snapshot(lsn, transaction_id, now_us());
        self.written.tell_offset(Told {
            offset,
            moved: None,
            records: progress.oldest_unconfirmed(),
        });
    }
}

/// Says in the log how the stored offset and the slot agree, where they do not.
fn report(resumption: Resumption, connector: &str) {
    match resumption {
        Resumption::AtSlot => {}
        Resumption::AheadOfSlot { stored, slot } => tracing::info!(
            connector.name = connector,
            offset.lsn = %stored,
            slot.confirmed_lsn = %slot,
            "the stored source offset is ahead of the slot: changes that it covers were published before and are skipped"
        ),
        Resumption::BehindSlot { stored, slot } => tracing::info!(
            connector.name = connector,
            offset.lsn = %stored,
            slot.confirmed_lsn = %slot,
            "the stored source offset is behind the slot: going on at the slot, since PostgreSQL sends nothing again \
             that was acknowledged"
        ),
        Resumption::OfAnotherServer { stored } => tracing::warn!(
            connector.name = connector,
            offset.lsn = %stored,
            "the stored source offset is beyond the end of the server's WAL, so it is of another server or history: \
             it is left aside, and everything that the slot holds is published"
        ),
    }
}
