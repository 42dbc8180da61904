//! The source offset: how far a connector has published, as Debezium writes it and reads it again; pure.
//!
//! Two rules of PostgreSQL's logical decoding stand behind all of it: transactions come in the order of their commits,
//! and positions of changes grow within one transaction only.

mod landmark;
mod position_to_commit;

use std::collections::BTreeMap;

use pgoutput::Lsn;
use serde::{Deserialize, Serialize};

use crate::progress::Sequence;
use crate::slot_identity::SlotIdentity;

pub use self::landmark::Landmark;

/// Topics that may wait to be told; a connector that writes to more tells the rest with their next records.
const TOPICS_MAX: usize = 1_000;

/// What source offsets call a logical decoding message.
pub const MESSAGE_KIND: &str = "MESSAGE";

/// A source offset, fields in the order in which Debezium's are stored.
///
/// Every field may be missing: an operator may have written the offset, and so may other versions of Debezium.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceOffset {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_snapshot_record: Option<bool>,
    /// Everything that stands in the stream up to this position was handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lsn_proc: Option<u64>,
    /// How many changes at `lsn_proc` were handled: rows that were written at once share a position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lsn_events_processed: Option<u64>,
    #[serde(default, rename = "messageType", skip_serializing_if = "Option::is_none")]
    message_type: Option<String>,
    /// End of the last commit that was seen before the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lsn_commit: Option<u64>,
    /// Position of the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lsn: Option<u64>,
    #[serde(default, rename = "txId", skip_serializing_if = "Option::is_none")]
    transaction_id: Option<u64>,
    /// Commit time, microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ts_usec: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snapshot: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snapshot_completed: Option<bool>,
    /// Where the transaction of the change was committed; the relay's own field, as those of the identity.
    #[serde(default, rename = "relay_lsn_published", skip_serializing_if = "Option::is_none")]
    published_commit: Option<u64>,
    /// What it is a position in; the relay's own fields, after Debezium's.
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    identity: Option<SlotIdentity>,
}

impl SourceOffset {
    /// Reads what the offset topic holds.
    ///
    /// # Errors
    /// Which field cannot be read.
    pub fn from_json(stored: &serde_json::Value) -> Result<Self, serde_json::Error> {
        Self::deserialize(stored)
    }

    /// The offset at the end of an initial snapshot that found rows.
    #[must_use]
    pub fn of_snapshot(lsn: Lsn, transaction_id: Option<u64>, now_us: i64) -> Self {
        Self {
            last_snapshot_record: Some(true),
            lsn: Some(lsn.as_u64()),
            transaction_id,
            ts_usec: Some(now_us),
            snapshot: Some("INITIAL".into()),
            snapshot_completed: Some(true),
            ..Self::default()
        }
    }

    /// The offset of a stream that begins at a slot's position, before anything was published from it.
    #[must_use]
    pub fn at(lsn: Lsn, now_us: i64) -> Self {
        let before = Some(lsn.as_u64().saturating_sub(1));
        Self { lsn_proc: before, lsn: before, ts_usec: Some(now_us), ..Self::default() }
    }

    /// The same position, as one in this slot.
    #[must_use]
    pub fn with_identity(self, identity: Option<SlotIdentity>) -> Self {
        // Without the one the other says nothing.
        let published_commit = self.published_commit.filter(|_| identity.is_some());
        Self { published_commit, identity, ..self }
    }

    /// What it is a position in, where that was stored.
    #[must_use]
    pub const fn identity(&self) -> Option<&SlotIdentity> {
        self.identity.as_ref()
    }

    /// Whether Debezium was stopped within its initial snapshot: it has made the slot, and not published every row.
    #[must_use]
    pub fn is_within_snapshot(&self) -> bool {
        let begun = self.snapshot.as_ref().is_some_and(|told| !told.is_null() && told != false);
        begun && self.last_snapshot_record != Some(true) && self.snapshot_completed != Some(true)
    }

    /// Where a reader goes on: transactions that were committed before this were handled.
    #[must_use]
    pub fn position(&self) -> Option<Lsn> {
        self.lsn_proc.or(self.lsn).map(Lsn::new)
    }

    /// The furthest position that it names.
    #[must_use]
    pub fn furthest(&self) -> Option<Lsn> {
        self.position().max(self.lsn_commit.map(Lsn::new))
    }

    /// The same offset, after which nothing that is published came up to `confirmed`.
    ///
    /// Debezium does not start when its slot may have given up WAL from `lsn_proc` on. The byte before `confirmed` is at
    /// the start of no record, so that Debezium cannot take a change for the one that the offset names.
    fn moved_to(&self, confirmed: Lsn) -> Self {
        Self { lsn_proc: Some(confirmed.as_u64().saturating_sub(1)), ..self.clone() }
    }
}

/// A change, as the offset of its record needs it.
#[derive(Debug, Clone, Copy)]
struct Change {
    lsn: Lsn,
    events_at_lsn: u64,
    message_type: &'static str,
    commit_before: Option<Lsn>,
    transaction: Transaction,
}

#[derive(Debug, Clone, Copy, Default)]
struct Transaction {
    /// None: a message outside of transactions.
    xid: Option<u64>,
    commit_lsn: Lsn,
    commit_time_us: i64,
    /// Known once it was read to its end.
    end_lsn: Option<Lsn>,
}

impl Change {
    fn offset(&self) -> SourceOffset {
        SourceOffset {
            lsn_proc: Some(self.lsn.as_u64()),
            lsn_events_processed: Some(self.events_at_lsn),
            message_type: Some(self.message_type.to_owned()),
            lsn_commit: self.commit_before.map(Lsn::as_u64),
            lsn: Some(self.lsn.as_u64()),
            transaction_id: self.transaction.xid,
            ts_usec: Some(self.transaction.commit_time_us),
            published_commit: Landmark::of_change(self).map(|known| known.commit_lsn.as_u64()),
            ..SourceOffset::default()
        }
    }
}

/// Follows a stream and tells the offset of the last change whose records are confirmed.
///
/// Its memory does not grow with the records in flight: of those it knows the last, and one before it.
#[derive(Debug, Default)]
pub struct OffsetTracker {
    stored: Option<SourceOffset>,
    /// The offset that was stored at the start, for as long as nothing newer was published.
    base: Option<SourceOffset>,
    identity: Option<SlotIdentity>,
    /// What the stream has to bring if it is of the history of what was published last.
    landmark: Option<Landmark>,
    skipped: u64,
    transaction: Transaction,
    last_commit: Option<Lsn>,
    /// Position of the last change that was read, and how many there were at it.
    at_lsn: (Lsn, u64),
    change: Option<Change>,
    confirmed: Option<Change>,
    waiting: Option<(Sequence, Change)>,
    latest: Option<(Sequence, Change)>,
    /// Records that were confirmed by the last look.
    records: Sequence,
    last_topic: String,
    topics: BTreeMap<String, Sequence>,
}

impl OffsetTracker {
    /// Goes on from a stored offset: what it covers is not published again.
    #[must_use]
    pub fn resuming(stored: Option<SourceOffset>) -> Self {
        let last_commit = stored.as_ref().and_then(|stored| stored.lsn_commit).map(Lsn::new);
        Self { base: stored.clone(), stored, last_commit, ..Self::default() }
    }

    /// A stream begins, of a server whose WAL ends at `wal_end`, from a slot that stands at `slot_lsn`; from now on
    /// offsets are positions in `identity`.
    pub fn begin(
        &mut self,
        slot_lsn: Option<Lsn>,
        wal_end: Lsn,
        identity: Option<SlotIdentity>,
    ) -> Resumption {
        self.transaction = Transaction::default();
        self.at_lsn = (Lsn::ZERO, 0);
        self.change = None;
        self.enter(identity, wal_end);
        self.landmark = self.comes_again(slot_lsn);
        let Some(furthest) = self.stored.as_ref().and_then(SourceOffset::furthest) else {
            return Resumption::AtSlot;
        };
        if furthest > wal_end {
            (self.stored, self.base, self.last_commit) = (None, None, None);
            self.landmark = None;
            return Resumption::OfAnotherServer { stored: furthest };
        }
        match slot_lsn {
            // An offset that followed an idle slot names the byte before its position.
            Some(slot) if slot.as_u64() > furthest.as_u64() + 1 => {
                Resumption::BehindSlot { stored: furthest, slot }
            }
            Some(slot) if slot < furthest => Resumption::AheadOfSlot { stored: furthest, slot },
            _ => Resumption::AtSlot,
        }
    }

    /// In another history of WAL, positions of the one before mean nothing. Everything of it is confirmed by then.
    fn enter(&mut self, identity: Option<SlotIdentity>, wal_end: Lsn) {
        let history = |identity: &SlotIdentity| (identity.system_id.clone(), identity.timeline);
        let is_other = self.identity.as_ref().map(history) != identity.as_ref().map(history);
        let was_set_back = self.last_commit.is_some_and(|commit| commit > wal_end);
        if self.identity.is_some() && (is_other || was_set_back) {
            (self.last_commit, self.confirmed) = (None, None);
            (self.waiting, self.latest) = (None, None);
        }
        self.identity = identity;
    }

    /// A transaction begins. True: its begin was told before, together with changes of it or all of them.
    pub fn begin_transaction(
        &mut self,
        xid: Option<u64>,
        commit_lsn: Lsn,
        commit_time_us: i64,
    ) -> bool {
        self.transaction = Transaction { xid, commit_lsn, commit_time_us, end_lsn: None };
        if self.landmark.is_some_and(|landmark| landmark.is(&self.transaction)) {
            self.landmark = None;
        }
        let of_stored = |stored: &SourceOffset| {
            stored.message_type.is_some() && stored.transaction_id == xid && xid.is_some()
        };
        self.is_covered() || self.stored.as_ref().is_some_and(of_stored)
    }

    /// The transaction that a slot at `slot_lsn` has to send again: that of the last published change.
    #[must_use]
    pub fn comes_again(&self, slot_lsn: Option<Lsn>) -> Option<Landmark> {
        let published = match &self.confirmed {
            Some(change) => Landmark::of_change(change),
            None => self.stored.as_ref().and_then(Landmark::of_offset),
        };
        published.filter(|landmark| slot_lsn.is_some_and(|slot| landmark.comes_again_from(slot)))
    }

    /// Whether the stream is not known yet to be of the history of what was published last: until it is, nothing may be
    /// acknowledged.
    #[must_use]
    pub const fn is_unproven(&self) -> bool {
        self.landmark.is_some()
    }

    /// The transaction that should have come again before the stream reached `lsn`: then the stream is of another history,
    /// and what was published would hide what never was.
    #[must_use]
    pub fn passed(&self, lsn: Lsn) -> Option<Landmark> {
        self.landmark.filter(|landmark| lsn > landmark.commit_lsn)
    }

    /// A transaction was read to its end. Gives the number of changes that the stored offset covered, once: with the
    /// first transaction that it does not cover.
    pub fn end_transaction(&mut self, end_lsn: Lsn) -> Option<u64> {
        let ended = self.transaction.commit_lsn;
        let in_flight = self.waiting.as_mut().into_iter().chain(self.latest.as_mut());
        let known = in_flight.map(|(_, change)| change);
        let known = known.chain(self.confirmed.as_mut()).chain(self.change.as_mut());
        for change in known.filter(|change| change.transaction.commit_lsn == ended) {
            change.transaction.end_lsn = Some(end_lsn);
        }
        // A message outside of transactions says nothing about the transactions that were open around it.
        let is_whole = self.transaction.xid.is_some();
        let resumed = is_whole && self.stored.is_some() && !self.is_covered();
        self.last_commit = self.last_commit.max(Some(end_lsn));
        if resumed {
            self.stored = None;
        }
        resumed.then(|| std::mem::take(&mut self.skipped)).filter(|skipped| *skipped > 0)
    }

    /// Where the last transaction ended.
    #[must_use]
    pub const fn last_commit(&self) -> Option<Lsn> {
        self.last_commit
    }

    /// A captured change was read at `lsn`; true: the stored offset covers it, it was published before.
    pub fn change(&mut self, lsn: Lsn, message_type: &'static str) -> bool {
        let count = if self.at_lsn.0 == lsn { self.at_lsn.1 + 1 } else { 1 };
        self.at_lsn = (lsn, count);
        let (commit_before, transaction) = (self.last_commit, self.transaction);
        let change = Change { lsn, events_at_lsn: count, message_type, commit_before, transaction };
        let covered = self.is_covered() || self.is_covered_within(&change);
        self.skipped += u64::from(covered);
        if !covered {
            // One that is covered stands before the stored offset, which must not be pulled back to it.
            self.change = Some(change);
        }
        covered
    }

    /// Whether the transaction that is being read was committed before the stored offset's.
    #[must_use]
    pub fn is_covered(&self) -> bool {
        let Some(stored) = &self.stored else { return false };
        let commit_lsn = self.transaction.commit_lsn;
        // The end of a commit record is at least its start: a later transaction is never taken for an earlier one.
        stored.position().is_some_and(|position| commit_lsn < position)
            || stored.lsn_commit.is_some_and(|commit| commit_lsn.as_u64() < commit)
    }

    /// Whether the change stands at or before the stored one in the same transaction.
    fn is_covered_within(&self, change: &Change) -> bool {
        let Some(stored) = &self.stored else { return false };
        let Some(position) = stored.position() else { return false };
        let same = stored.message_type.is_some() && stored.transaction_id == change.transaction.xid;
        let handled = stored.lsn_events_processed.unwrap_or(1).max(1);
        same && (change.lsn < position
            || (change.lsn == position && change.events_at_lsn <= handled))
    }

    /// A record of the change that was read last was published; a change stands in the offset when the last of its
    /// records is confirmed.
    pub fn published(&mut self, sequence: Sequence, topic: &str, is_last: bool) {
        if self.last_topic != topic && self.topics.len() < TOPICS_MAX {
            topic.clone_into(&mut self.last_topic);
            self.topics.entry(topic.to_owned()).or_insert(sequence);
        }
        let Some(change) = self.change.filter(|_| is_last) else { return };
        let slot = if self.waiting.is_none() { &mut self.waiting } else { &mut self.latest };
        *slot = Some((sequence, change));
    }

    /// All records below `oldest_unconfirmed` are confirmed.
    pub fn confirm(&mut self, oldest_unconfirmed: Sequence) {
        self.records = oldest_unconfirmed;
        while let Some((_, change)) =
            self.waiting.take_if(|(sequence, _)| *sequence < oldest_unconfirmed)
        {
            self.confirmed = Some(change);
            self.waiting = self.latest.take();
        }
    }

    /// The offset to store when everything up to `confirmed_lsn` is confirmed; `None`: nothing new was published.
    #[must_use]
    pub fn told(&self, confirmed_lsn: Lsn) -> Option<Told> {
        let change = self.confirmed?;
        let offset = change.offset().with_identity(self.identity.clone());
        let moved = change.transaction.end_lsn.filter(|end| *end < confirmed_lsn);
        let moved = moved.map(|_| offset.moved_to(confirmed_lsn));
        Some(Told { offset, moved, records: self.records })
    }

    /// Takes the topics that records were written to since the last call, as far as Kafka has confirmed them.
    pub fn take_topics(&mut self, oldest_unconfirmed: Sequence) -> Vec<String> {
        let written = self.topics.extract_if(.., |_, sequence| *sequence < oldest_unconfirmed);
        let written: Vec<String> = written.map(|(topic, _)| topic).collect();
        if written.contains(&self.last_topic) {
            self.last_topic.clear();
        }
        written
    }
}

/// An offset that may be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Of the last record that Kafka confirmed.
    pub offset: SourceOffset,
    /// The same, moved on to where an idle slot was acknowledged since.
    pub moved: Option<SourceOffset>,
    /// Records that Kafka had confirmed by then, over the life of the task's pipeline.
    pub records: Sequence,
}

/// How a stored offset and the slot agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumption {
    /// There is none, or it is where the slot is.
    AtSlot,
    /// What lies between was published before, and is skipped.
    AheadOfSlot {
        /// Position of the stored offset.
        stored: Lsn,
        /// Position of the slot.
        slot: Lsn,
    },
    /// What lies between was acknowledged and cannot be read again.
    BehindSlot {
        /// Position of the stored offset.
        stored: Lsn,
        /// Position of the slot.
        slot: Lsn,
    },
    /// The server's WAL does not reach that far: the offset says nothing about it.
    OfAnotherServer {
        /// Position of the stored offset.
        stored: Lsn,
    },
}

#[cfg(test)]
mod tests;
