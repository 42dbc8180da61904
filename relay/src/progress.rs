//! From confirmed records to the LSN that may be acknowledged; pure.
//!
//! The rule that keeps the promise: no LSN is acknowledged before the broker has confirmed every record at or
//! below it. Records are numbered in the order in which they are published; a transaction's end (or the position
//! of a keepalive) becomes acknowledgeable when every record numbered before it is confirmed.

use std::collections::VecDeque;

use pgoutput::Lsn;

/// Number of a published record: 0, 1, 2 … in the order of publishing, over the life of a task.
pub type Sequence = u64;

/// Which records are in flight, and how far the slot may be moved.
///
/// Its memory is bounded by the number of records in flight.
#[derive(Debug, Default)]
pub struct Progress {
    /// All records below are confirmed.
    oldest_unconfirmed: Sequence,
    /// For `oldest_unconfirmed` and those after it: whether it is confirmed already.
    confirmed: VecDeque<bool>,
    /// Positions that wait for records, in order.
    boundaries: VecDeque<Boundary>,
    confirmed_lsn: Lsn,
}

/// `lsn` may be acknowledged when all records below `sequence` are confirmed.
#[derive(Debug, Clone, Copy)]
struct Boundary {
    sequence: Sequence,
    lsn: Lsn,
}

/// A confirmation for a record that is not in flight: a fault in a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record {0} was confirmed, but it is not in flight")]
pub struct NotInFlight(pub Sequence);

impl Progress {
    /// Numbers a record that is about to be published.
    pub fn publish(&mut self) -> Sequence {
        let sequence = self.next_sequence();
        self.confirmed.push_back(false);
        sequence
    }

    /// The number of the record that will be published next.
    #[must_use]
    pub fn upcoming(&self) -> Sequence {
        self.next_sequence()
    }

    /// Everything up to `lsn` has been published, or needs no record: the end of a transaction, or the position of
    /// a keepalive that came outside of a transaction.
    pub fn complete(&mut self, lsn: Lsn) {
        let sequence = self.next_sequence();
        if self.confirmed.is_empty() {
            self.confirmed_lsn = self.confirmed_lsn.max(lsn);
            return;
        }
        match self.boundaries.back_mut() {
            // Positions that wait for the same records: the last one stands for all.
            Some(last) if last.sequence == sequence => last.lsn = last.lsn.max(lsn),
            _ => self.boundaries.push_back(Boundary { sequence, lsn }),
        }
    }

    /// The broker has stored a record.
    ///
    /// # Errors
    /// When the record is not in flight (never published, or confirmed before).
    pub fn confirm(&mut self, sequence: Sequence) -> Result<(), NotInFlight> {
        let in_flight = sequence
            .checked_sub(self.oldest_unconfirmed)
            .and_then(|index| usize::try_from(index).ok())
            .and_then(|index| self.confirmed.get_mut(index))
            .filter(|confirmed| !**confirmed)
            .ok_or(NotInFlight(sequence))?;
        *in_flight = true;
        while self.confirmed.front() == Some(&true) {
            self.confirmed.pop_front();
            self.oldest_unconfirmed += 1;
        }
        while let Some(boundary) = self.boundaries.front()
            && boundary.sequence <= self.oldest_unconfirmed
        {
            self.confirmed_lsn = self.confirmed_lsn.max(boundary.lsn);
            self.boundaries.pop_front();
        }
        Ok(())
    }

    /// A new stream begins, with nothing in flight: what was confirmed before may belong to another history of WAL,
    /// and acknowledging it there would skip what was never sent.
    pub fn begin(&mut self) {
        self.boundaries.clear();
        self.confirmed_lsn = Lsn::ZERO;
    }

    /// The highest position that may be acknowledged; zero when there is none yet.
    #[must_use]
    pub const fn confirmed_lsn(&self) -> Lsn {
        self.confirmed_lsn
    }

    /// All records below this number are confirmed.
    #[must_use]
    pub const fn oldest_unconfirmed(&self) -> Sequence {
        self.oldest_unconfirmed
    }

    /// How many records were published and wait for their confirmation (or for that of an earlier one).
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.confirmed.len()
    }

    fn next_sequence(&self) -> Sequence {
        self.oldest_unconfirmed + self.confirmed.len() as Sequence
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_transaction_is_acknowledged_when_all_its_records_are_confirmed() {
        let mut progress = Progress::default();
        let (first, second) = (progress.publish(), progress.publish());
        progress.complete(Lsn::new(10));
        progress.confirm(second).unwrap();
        assert_eq!(progress.confirmed_lsn(), Lsn::ZERO);
        progress.confirm(first).unwrap();
        assert_eq!(progress.confirmed_lsn(), Lsn::new(10));
        assert_eq!(progress.in_flight(), 0);
    }

    #[test]
    fn a_later_transaction_waits_for_an_earlier_one() {
        let mut progress = Progress::default();
        let first = progress.publish();
        progress.complete(Lsn::new(10));
        let second = progress.publish();
        progress.complete(Lsn::new(20));
        progress.confirm(second).unwrap();
        assert_eq!(progress.confirmed_lsn(), Lsn::ZERO);
        progress.confirm(first).unwrap();
        assert_eq!(progress.confirmed_lsn(), Lsn::new(20));
    }

    #[test]
    fn an_open_transaction_is_not_acknowledged() {
        let mut progress = Progress::default();
        let first = progress.publish();
        progress.confirm(first).unwrap();
        assert_eq!(progress.confirmed_lsn(), Lsn::ZERO);
        progress.complete(Lsn::new(10));
        assert_eq!(progress.confirmed_lsn(), Lsn::new(10));
    }

    #[test]
    fn a_position_without_records_moves_an_idle_slot_at_once() {
        let mut progress = Progress::default();
        progress.complete(Lsn::new(10));
        assert_eq!(progress.confirmed_lsn(), Lsn::new(10));
    }

    #[test]
    fn positions_behind_one_record_in_flight_take_no_memory() {
        let mut progress = Progress::default();
        let first = progress.publish();
        for lsn in 1..=1_000_000 {
            progress.complete(Lsn::new(lsn));
        }
        assert_eq!(progress.boundaries.len(), 1);
        progress.confirm(first).unwrap();
        assert_eq!(progress.confirmed_lsn(), Lsn::new(1_000_000));
    }

    #[test]
    fn a_record_is_confirmed_once() {
        let mut progress = Progress::default();
        let (first, second) = (progress.publish(), progress.publish());
        assert_eq!(progress.confirm(first), Ok(()));
        assert_eq!(progress.confirm(first), Err(NotInFlight(first)));
        assert_eq!(progress.confirm(second + 1), Err(NotInFlight(second + 1)));
    }

    #[test]
    fn a_new_stream_acknowledges_nothing_of_the_one_before() {
        let mut progress = Progress::default();
        progress.complete(Lsn::new(1_000));
        progress.begin();
        assert_eq!(progress.confirmed_lsn(), Lsn::ZERO);
        progress.complete(Lsn::new(10));
        assert_eq!(progress.confirmed_lsn(), Lsn::new(10));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Transaction { records: usize },
        Keepalive,
        Confirm { pick: prop::sample::Index },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0usize..4).prop_map(|records| Step::Transaction { records }),
            Just(Step::Keepalive),
            any::<prop::sample::Index>().prop_map(|pick| Step::Confirm { pick }),
            any::<prop::sample::Index>().prop_map(|pick| Step::Confirm { pick }),
        ]
    }

    proptest! {
        /// Against a model that keeps everything: (LSN, records that must be confirmed first).
        #[test]
        fn no_position_is_acknowledged_early_nor_withheld(
            steps in proptest::collection::vec(step(), 1..200)
        ) {
            let mut progress = Progress::default();
            let mut positions: Vec<(u64, Vec<Sequence>)> = Vec::new();
            let (mut all, mut open): (Vec<Sequence>, Vec<Sequence>) = (Vec::new(), Vec::new());
            for (number, step) in (1u64..).zip(steps) {
                match step {
                    Step::Transaction { records } => {
                        for _ in 0..records {
                            let sequence = progress.publish();
                            all.push(sequence);
                            open.push(sequence);
                        }
                        progress.complete(Lsn::new(number));
                        positions.push((number, all.clone()));
                    }
                    Step::Keepalive => {
                        progress.complete(Lsn::new(number));
                        positions.push((number, all.clone()));
                    }
                    Step::Confirm { pick } if !open.is_empty() => {
                        let sequence = open.swap_remove(pick.index(open.len()));
                        progress.confirm(sequence).unwrap();
                    }
                    Step::Confirm { .. } => {}
                }
                let expected = positions
                    .iter()
                    .take_while(|(_, needed)| needed.iter().all(|one| !open.contains(one)))
                    .last()
                    .map_or(0, |(lsn, _)| *lsn);
                prop_assert_eq!(progress.confirmed_lsn(), Lsn::new(expected));
                prop_assert!(progress.boundaries.len() <= progress.in_flight() + 1);
            }
        }
    }
}
