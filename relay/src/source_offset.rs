//! The source offset: how far a connector has published, as Debezium writes it and reads it again; pure.
//!
//! Two rules of PostgreSQL's logical decoding stand behind all of it: transactions come in the order of their commits,
//! and positions of changes grow within one transaction only.

use std::collections::BTreeMap;

use pgoutput::Lsn;
use serde::{Deserialize, Serialize};

use crate::progress::Sequence;

/// Topics that may wait to be told; a connector that writes to more tells the rest with their next records.
const TOPICS_MAX: usize = 1_000;

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
    skipped: u64,
    transaction: Transaction,
    last_commit: Option<Lsn>,
    /// Position of the last change that was read, and how many there were at it.
    at_lsn: (Lsn, u64),
    change: Option<Change>,
    confirmed: Option<Change>,
    waiting: Option<(Sequence, Change)>,
    latest: Option<(Sequence, Change)>,
    last_topic: String,
    topics: BTreeMap<String, Sequence>,
}

impl OffsetTracker {
    /// Goes on from a stored offset: what it covers is not published again.
    #[must_use]
    pub fn resuming(stored: Option<SourceOffset>) -> Self {
        let last_commit = stored.as_ref().and_then(|stored| stored.lsn_commit).map(Lsn::new);
        Self { stored, last_commit, ..Self::default() }
    }

    /// A stream begins, of a server whose WAL ends at `wal_end`, from a slot that stands at `slot_lsn`.
    pub fn begin(&mut self, slot_lsn: Option<Lsn>, wal_end: Lsn) -> Resumption {
        self.transaction = Transaction::default();
        self.at_lsn = (Lsn::ZERO, 0);
        self.change = None;
        let Some(furthest) = self.stored.as_ref().and_then(SourceOffset::furthest) else {
            return Resumption::AtSlot;
        };
        if furthest > wal_end {
            self.stored = None;
            self.last_commit = None;
            return Resumption::OfAnotherServer { stored: furthest };
        }
        match slot_lsn {
            Some(slot) if slot > furthest => Resumption::BehindSlot { stored: furthest, slot },
            Some(slot) if slot < furthest => Resumption::AheadOfSlot { stored: furthest, slot },
            _ => Resumption::AtSlot,
        }
    }

    /// A transaction begins.
    pub fn begin_transaction(&mut self, xid: Option<u64>, commit_lsn: Lsn, commit_time_us: i64) {
        self.transaction = Transaction { xid, commit_lsn, commit_time_us, end_lsn: None };
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
        self.change = Some(change);
        let covered = self.is_covered() || self.is_covered_within(&change);
        self.skipped += u64::from(covered);
        covered
    }

    /// Whether the transaction that is being read was committed before the stored offset's.
    fn is_covered(&self) -> bool {
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
        let offset = change.offset();
        let moved = change.transaction.end_lsn.filter(|end| *end < confirmed_lsn);
        let moved = moved.map(|_| offset.moved_to(confirmed_lsn));
        Some(Told { offset, moved })
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
mod tests {
    use serde_json::json;

    use super::*;

    /// Reads a transaction with changes at these positions; gives those that are new.
    fn transaction(
        tracker: &mut OffsetTracker,
        xid: u32,
        commit: u64,
        changes: &[u64],
    ) -> Vec<u64> {
        tracker.begin_transaction(Some(xid.into()), Lsn::new(commit), 5);
        let new = changes.iter().copied().filter(|lsn| !tracker.change(Lsn::new(*lsn), "INSERT"));
        let new = new.collect();
        tracker.end_transaction(Lsn::new(commit + 8));
        new
    }

    fn resuming(stored: serde_json::Value) -> OffsetTracker {
        OffsetTracker::resuming(Some(SourceOffset::from_json(&stored).unwrap()))
    }

    #[test]
    fn offsets_are_written_byte_for_byte_as_debezium_does() {
        let mut tracker = OffsetTracker::default();
        transaction(&mut tracker, 7, 200, &[100]);
        tracker.published(0, "t", true);
        tracker.confirm(1);
        let text = |told: Told| serde_json::to_string(&told.offset).unwrap();
        assert_eq!(
            text(tracker.told(Lsn::new(208)).unwrap()),
            r#"{"lsn_proc":100,"lsn_events_processed":1,"messageType":"INSERT","lsn":100,"txId":7,"ts_usec":5}"#
        );
        transaction(&mut tracker, 8, 400, &[300, 300]);
        tracker.published(1, "t", true);
        tracker.confirm(2);
        assert_eq!(
            text(tracker.told(Lsn::new(408)).unwrap()),
            r#"{"lsn_proc":300,"lsn_events_processed":2,"messageType":"INSERT","lsn_commit":208,"lsn":300,"txId":8,"ts_usec":5}"#
        );
        let snapshot = SourceOffset::of_snapshot(Lsn::new(9), Some(3), 4);
        assert_eq!(
            serde_json::to_string(&snapshot).unwrap(),
            r#"{"last_snapshot_record":true,"lsn":9,"txId":3,"ts_usec":4,"snapshot":"INITIAL","snapshot_completed":true}"#
        );
    }

    #[test]
    fn an_offset_is_told_when_all_records_up_to_it_are_confirmed() {
        let mut tracker = OffsetTracker::default();
        for (sequence, lsn) in (0..5).zip([10, 20, 30, 40, 50]) {
            tracker.begin_transaction(Some(1), Lsn::new(100), 0);
            tracker.change(Lsn::new(lsn), "INSERT");
            tracker.published(sequence, "t", true);
        }
        let told =
            |tracker: &OffsetTracker| tracker.told(Lsn::ZERO).and_then(|told| told.offset.lsn);
        assert_eq!(told(&tracker), None);
        tracker.confirm(1);
        assert_eq!(told(&tracker), Some(10));
        tracker.confirm(4);
        assert_eq!(
            told(&tracker),
            Some(10),
            "one that is told early is wrong, one that is late is not"
        );
        tracker.confirm(5);
        assert_eq!(told(&tracker), Some(50));
    }

    #[test]
    fn a_change_with_several_records_is_told_when_its_last_one_is_confirmed() {
        let mut tracker = OffsetTracker::default();
        transaction(&mut tracker, 7, 200, &[100]);
        tracker.published(0, "t", false);
        tracker.published(1, "t", true);
        tracker.confirm(1);
        assert!(tracker.told(Lsn::ZERO).is_none());
        tracker.confirm(2);
        assert!(tracker.told(Lsn::ZERO).is_some());
    }

    #[test]
    fn an_idle_slot_moves_the_offset_and_keeps_what_it_names() {
        let mut tracker = OffsetTracker::default();
        transaction(&mut tracker, 7, 200, &[100]);
        tracker.published(0, "t", true);
        tracker.confirm(1);
        assert_eq!(tracker.told(Lsn::new(208)).unwrap().moved, None);
        let moved = tracker.told(Lsn::new(1_000)).unwrap().moved.unwrap();
        assert_eq!((moved.lsn_proc, moved.lsn, moved.lsn_commit), (Some(999), Some(100), None));
        let mut resumed = OffsetTracker::resuming(Some(moved));
        assert_eq!(transaction(&mut resumed, 7, 200, &[100]), [0; 0]);
        assert_eq!(
            transaction(&mut resumed, 8, 1_000, &[900]),
            [900],
            "it began before and ended after"
        );
    }

    #[test]
    fn what_debezium_has_published_beyond_the_slot_is_skipped() {
        let stored = json!({"lsn_proc": 300, "lsn_events_processed": 1, "messageType": "INSERT",
            "lsn_commit": 208, "lsn": 300, "txId": 8, "ts_usec": 5});
        let mut tracker = resuming(stored);
        let resumption = tracker.begin(Some(Lsn::new(208)), Lsn::new(9_999));
        let expected = Resumption::AheadOfSlot { stored: Lsn::new(300), slot: Lsn::new(208) };
        assert_eq!(resumption, expected);
        assert_eq!(transaction(&mut tracker, 7, 200, &[100]), [0; 0], "committed before");
        assert_eq!(transaction(&mut tracker, 8, 400, &[250, 300, 310]), [310], "the one it names");
        // This one wrote before the stored change, and was committed after it.
        assert_eq!(transaction(&mut tracker, 6, 500, &[90, 260, 450]), [90, 260, 450]);
    }

    #[test]
    fn rows_that_share_a_position_are_counted() {
        let mut tracker = resuming(json!({"lsn_proc": 300, "lsn_events_processed": 2,
            "messageType": "INSERT", "lsn": 300, "txId": 8}));
        assert_eq!(transaction(&mut tracker, 8, 400, &[300, 300, 300]), [300]);
    }

    #[test]
    fn an_offset_by_hand_is_honoured_by_commits() {
        let mut tracker = resuming(json!({"lsn": 300}));
        assert_eq!(transaction(&mut tracker, 7, 200, &[100]), [0; 0]);
        assert_eq!(transaction(&mut tracker, 8, 400, &[250, 350]), [250, 350]);
    }

    #[test]
    fn an_offset_that_cannot_be_of_this_server_skips_nothing() {
        let mut tracker = resuming(json!({"lsn": 5_000, "lsn_commit": 5_000}));
        let resumption = tracker.begin(Some(Lsn::new(10)), Lsn::new(1_000));
        assert_eq!(resumption, Resumption::OfAnotherServer { stored: Lsn::new(5_000) });
        assert_eq!(transaction(&mut tracker, 7, 200, &[100]), [100]);
    }

    #[test]
    fn an_offset_from_the_middle_of_a_snapshot_is_known() {
        let within = |stored| SourceOffset::from_json(&stored).unwrap().is_within_snapshot();
        assert!(within(json!({"lsn": 1, "snapshot": "INITIAL", "last_snapshot_record": false})));
        assert!(within(json!({"lsn": 1, "snapshot": true})));
        assert!(!within(json!({"lsn": 1, "snapshot": "INITIAL", "last_snapshot_record": true})));
        assert!(!within(json!({"lsn": 1})));
    }

    #[test]
    fn a_topic_is_told_once_it_is_confirmed_and_again_when_it_is_written_to_again() {
        let mut tracker = OffsetTracker::default();
        tracker.published(0, "a", true);
        tracker.published(1, "b", true);
        tracker.published(2, "a", true);
        assert_eq!(tracker.take_topics(1), ["a"]);
        assert_eq!(tracker.take_topics(3), ["b"]);
        tracker.published(3, "b", true);
        assert_eq!(tracker.take_topics(4), ["b"]);
        assert_eq!(tracker.take_topics(4), [""; 0]);
    }
}
