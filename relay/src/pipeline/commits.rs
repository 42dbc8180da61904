//! Exactly once: when the records that were published become visible, together with the position behind them.

use std::time::Duration;

use pgoutput::Lsn;
use tokio::time::Instant;

use super::{Pipeline, PipelineError};
use crate::connector_config::Boundary;
use crate::progress::Sequence;
use crate::sink::{Committed, Sink};
use crate::source_offset::SourceOffset;

/// Records of one Kafka transaction, where its end is for the relay to choose: a commit takes a few milliseconds, in
/// which nothing is published.
const RECORDS_MAX: u64 = 10_000;

/// The longest time that records wait for those that follow them closely. Without load they do not wait at all.
const GATHER_MAX: Duration = Duration::from_millis(50);

/// A database transaction that takes longer to arrive is published in parts.
const WHOLE_MAX: Duration = Duration::from_secs(1);

/// The shortest time between two commits of a position without records, which let an idle slot move.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// Whether more may follow at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum More {
    /// There may be more in the buffer.
    MayFollow,
    /// What has arrived is handled.
    NotNow,
}

/// Where a Kafka transaction ends in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    /// Between two database transactions.
    Whole,
    /// Behind a change of one.
    Within,
}

/// What is published and not committed.
#[derive(Debug)]
pub(super) struct Commits {
    boundary: Boundary,
    /// Whether the sink is open: before, nothing may be committed.
    is_open: bool,
    /// The slot is not known to the stored position yet.
    is_unknown: bool,
    /// Records since the last commit was asked for, and when the first of them was published.
    records: u64,
    since: Option<Instant>,
    /// Records of the commit that is under way.
    in_commit: u64,
    /// Everything before this is handled, and so was what a commit was asked for last.
    handled: Lsn,
    asked: Lsn,
    asked_at: Instant,
}

impl Commits {
    pub(super) fn new(boundary: Boundary) -> Self {
        Self {
            boundary,
            is_open: false,
            is_unknown: false,
            records: 0,
            since: None,
            in_commit: 0,
            handled: Lsn::ZERO,
            asked: Lsn::ZERO,
            asked_at: Instant::now(),
        }
    }

    pub(super) fn published(&mut self) {
        self.records += 1;
        self.since.get_or_insert_with(Instant::now);
    }

    /// Records that are not committed.
    pub(super) const fn uncommitted(&self) -> u64 {
        self.records + self.in_commit
    }

    /// Whether nothing is left that a commit would store.
    pub(super) fn is_settled(&self) -> bool {
        self.uncommitted() == 0 && !self.is_unknown && self.handled <= self.asked
    }

    /// Where to commit now, if at all; `is_whole`: no database transaction is open.
    fn due(&self, now: Instant, is_whole: bool, more: More, stopping: bool) -> Option<Point> {
        let at = self.due_at(is_whole, more, stopping)?;
        (at <= now).then_some(if is_whole { Point::Whole } else { Point::Within })
    }

    /// From when on a commit is due as things are.
    fn due_at(&self, is_whole: bool, more: More, stopping: bool) -> Option<Instant> {
        if !self.is_open {
            return None;
        }
        let Some(since) = self.since else {
            let has_position = is_whole && (self.is_unknown || self.handled > self.asked);
            let wait = if stopping || self.is_unknown { Duration::ZERO } else { IDLE_INTERVAL };
            return has_position.then_some(self.asked_at + wait);
        };
        if stopping && is_whole {
            return Some(since);
        }
        let is_full = self.records >= RECORDS_MAX;
        match self.boundary {
            Boundary::Connector => is_whole.then_some(since),
            Boundary::Interval(interval) => Some(since + interval),
            Boundary::Poll if is_full || (is_whole && more == More::NotNow) => Some(since),
            Boundary::Poll => Some(since + if is_whole { GATHER_MAX } else { WHOLE_MAX }),
        }
    }

    fn asked(&mut self, now: Instant) {
        self.is_unknown = false;
        self.in_commit = std::mem::take(&mut self.records);
        (self.since, self.asked, self.asked_at) = (None, self.handled, now);
    }
}

impl<S: Sink> Pipeline<'_, S> {
    /// Whether records and position are committed together.
    pub fn commits(&self) -> bool {
        self.commits.is_some()
    }

    /// Whether the sink is open: then what it has not committed cannot be taken up on another connection.
    pub fn is_open(&self) -> bool {
        self.commits.as_ref().is_some_and(|commits| commits.is_open)
    }

    /// Opens the sink, once: whoever wrote for this connector before cannot go on, and the position is what was
    /// committed last. For the one who has the slot; another one would end the work of that one.
    ///
    /// # Errors
    /// When the sink cannot be opened.
    pub async fn open(&mut self) -> Result<(), PipelineError> {
        if self.commits.as_ref().is_none_or(|commits| commits.is_open) {
            return Ok(());
        }
        let Some(Committed { position }) = self.sink.open().await? else {
            self.commits = None;
            return Ok(());
        };
        if let Some(commits) = &mut self.commits {
            commits.is_open = true;
        }
        self.stored.clone_from(&position);
        self.reporter.resume_committed(position);
        Ok(())
    }

    /// The position that was stored last, or will be next.
    pub fn stored(&self) -> Option<SourceOffset> {
        self.reporter.told().or_else(|| self.stored.clone())
    }

    /// The slot was just made, knowingly: no position of before says anything about it.
    pub fn begin_anew(&mut self) {
        self.stored = None;
        self.reporter.forget_stored();
    }

    /// A stream begins at a slot that stands at `slot_lsn`: that is committed before anything is acknowledged, if it is
    /// not in the stored position, so that a slot that takes its place will be noticed.
    pub(super) fn expect_slot(&mut self, slot_lsn: Option<Lsn>) {
        let is_moved = self.is_on_new_timeline();
        let Some(commits) = &mut self.commits else { return };
        let identity = self.stored.as_ref().and_then(SourceOffset::identity);
        let of_this = identity.filter(|identity| identity.slot == self.config.slot);
        let known = of_this.and_then(|identity| identity.acknowledged_max).map(Lsn::new);
        commits.handled = slot_lsn.max(known).unwrap_or(Lsn::ZERO);
        commits.asked = known.unwrap_or(Lsn::ZERO);
        commits.is_unknown = known.is_none() || is_moved;
    }

    fn is_on_new_timeline(&self) -> bool {
        let stored = self.stored.as_ref().and_then(SourceOffset::identity);
        stored.is_some_and(|stored| stored.timeline.to_string() != self.system.timeline)
    }

    /// Everything before `lsn` was published, or needs no record.
    pub(super) fn handled(&mut self, lsn: Lsn) {
        if self.reporter.is_unproven() {
            // In another history this position hides what was never published.
            return;
        }
        match &mut self.commits {
            Some(commits) => commits.handled = commits.handled.max(lsn),
            None => self.progress.complete(lsn),
        }
    }

    /// The number of the record that is published next.
    pub(super) fn number(&mut self) -> Sequence {
        match &mut self.commits {
            // All records of a commit are confirmed with it.
            Some(commits) => {
                commits.published();
                self.progress.upcoming()
            }
            None => self.progress.publish(),
        }
    }

    /// Records that are published and not confirmed.
    pub(super) fn in_flight(&self) -> usize {
        match &self.commits {
            Some(commits) => usize::try_from(commits.uncommitted()).unwrap_or(usize::MAX),
            None => self.progress.in_flight(),
        }
    }

    /// From when on something is to be committed, if nothing else happens.
    pub(super) fn commit_due_at(&self, stopping: bool) -> Option<Instant> {
        let commits = self.commits.as_ref().filter(|_| self.may_commit())?;
        let is_whole = self.transaction.is_none();
        if !is_whole && self.reporter.position_within(commits.handled).is_none() {
            return None;
        }
        commits.due_at(is_whole, More::NotNow, stopping)
    }

    /// Asks for a commit where one is due.
    pub(super) fn commit_where_due(&mut self, more: More, stopping: bool) {
        if !self.may_commit() {
            return;
        }
        let Some(commits) = &self.commits else { return };
        let (now, is_whole) = (Instant::now(), self.transaction.is_none());
        let position = match commits.due(now, is_whole, more, stopping) {
            None => return,
            Some(Point::Whole) => self.reporter.position_at(commits.handled),
            // What begins a transaction is committed with its first change.
            Some(Point::Within) => match self.reporter.position_within(commits.handled) {
                Some(position) => position,
                None => return,
            },
        };
        self.commit(Some(&position));
    }

    /// Asks for a commit of everything that was published, between two database transactions.
    pub(super) fn commit_published(&mut self) {
        let Some(commits) = self.commits.as_ref().filter(|_| self.may_commit()) else { return };
        if commits.records > 0 && self.transaction.is_none() {
            let position = self.reporter.position_at(commits.handled);
            self.commit(Some(&position));
        }
    }

    /// Rows of a snapshot become visible together, as far as [time allows](Self::is_commit_of_rows_due); the position comes
    /// with the stream.
    pub(super) fn commit_without_position(&mut self) {
        let has_records = self.commits.as_ref().is_some_and(|commits| commits.records > 0);
        if has_records && self.may_commit() {
            self.commit(None);
        }
    }

    /// Whether the rows of a snapshot have waited for their commit as long as is safe: half the time that Kafka gives a
    /// transaction.
    pub(super) fn is_commit_of_rows_due(&self) -> bool {
        let since = self.commits.as_ref().and_then(|commits| commits.since);
        let timeout = self.config.transactions.as_ref().map(|asked| asked.timeout);
        since.zip(timeout).is_some_and(|(since, timeout)| since.elapsed() >= timeout / 2)
    }

    /// A commit holds all records of the changes before it, and one is under way at a time.
    fn may_commit(&self) -> bool {
        self.held.is_empty() && self.progress.in_flight() == 0
    }

    fn commit(&mut self, position: Option<&SourceOffset>) {
        let Some(commits) = &mut self.commits else { return };
        self.sink.commit(self.progress.publish(), position);
        commits.asked(Instant::now());
        if position.is_some() {
            self.progress.complete(commits.handled);
        }
    }

    /// Takes note of what the sink confirmed.
    pub(super) fn note_commits(&mut self) {
        if let Some(commits) = &mut self.commits
            && self.progress.in_flight() == 0
        {
            commits.in_commit = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commits(boundary: Boundary, records: u64, age: Duration) -> Commits {
        let since = (records > 0).then(|| Instant::now() - age);
        Commits { is_open: true, records, since, ..Commits::new(boundary) }
    }

    fn due(commits: &Commits, is_whole: bool, more: More) -> Option<Point> {
        commits.due(Instant::now(), is_whole, more, false)
    }

    const NONE: Duration = Duration::ZERO;

    #[test]
    fn what_has_arrived_is_committed_as_soon_as_it_is_handled() {
        let one = commits(Boundary::Poll, 1, NONE);
        assert_eq!(due(&one, true, More::NotNow), Some(Point::Whole));
        assert_eq!(due(&one, true, More::MayFollow), None);
        assert_eq!(due(&one, false, More::NotNow), None, "the rest of it is on its way");
    }

    #[test]
    fn under_load_records_gather_up_to_a_limit() {
        let full = commits(Boundary::Poll, RECORDS_MAX, NONE);
        assert_eq!(due(&full, true, More::MayFollow), Some(Point::Whole));
        assert_eq!(due(&full, false, More::MayFollow), Some(Point::Within));
        let old = commits(Boundary::Poll, 1, GATHER_MAX);
        assert_eq!(due(&old, true, More::MayFollow), Some(Point::Whole));
        let slow = commits(Boundary::Poll, 1, WHOLE_MAX);
        assert_eq!(due(&slow, false, More::NotNow), Some(Point::Within));
    }

    #[test]
    fn one_database_transaction_is_one_kafka_transaction_where_that_is_asked_for() {
        let large = commits(Boundary::Connector, 1_000_000, Duration::from_secs(30));
        assert_eq!(due(&large, false, More::NotNow), None);
        assert_eq!(due(&large, true, More::MayFollow), Some(Point::Whole));
    }

    #[test]
    fn an_interval_is_waited_out() {
        let interval = Boundary::Interval(Duration::from_secs(5));
        let young = commits(interval, RECORDS_MAX * 2, Duration::from_secs(4));
        assert_eq!(due(&young, true, More::NotNow), None);
        let old = commits(interval, 1, Duration::from_secs(5));
        assert_eq!(due(&old, true, More::MayFollow), Some(Point::Whole));
        assert_eq!(due(&old, false, More::MayFollow), Some(Point::Within));
    }

    #[test]
    fn a_stop_commits_what_is_whole_at_once() {
        for boundary in [Boundary::Interval(Duration::from_secs(60)), Boundary::Poll] {
            let young = commits(boundary, 1, NONE);
            let point = young.due(Instant::now(), true, More::MayFollow, true);
            assert_eq!(point, Some(Point::Whole));
        }
    }

    #[test]
    fn the_position_of_an_idle_slot_is_committed_from_time_to_time() {
        let mut idle = commits(Boundary::Poll, 0, NONE);
        idle.handled = Lsn::new(10);
        assert_eq!(due(&idle, true, More::NotNow), None);
        idle.asked_at = Instant::now() - IDLE_INTERVAL;
        assert_eq!(due(&idle, true, More::NotNow), Some(Point::Whole));
        assert_eq!(due(&idle, false, More::NotNow), None);
        idle.asked = idle.handled;
        assert_eq!(due(&idle, true, More::NotNow), None);
        idle.is_unknown = true;
        assert_eq!(due(&idle, true, More::NotNow), Some(Point::Whole));
    }
}
