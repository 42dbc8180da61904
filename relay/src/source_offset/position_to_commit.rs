//! The position that is committed together with the records before it, in exactly-once mode; pure.

use pgoutput::Lsn;

use super::{Change, OffsetTracker, SourceOffset};
use crate::slot_identity::SlotIdentity;

impl OffsetTracker {
    /// The offset that covers everything published so far, and everything else before `lsn`, where no transaction is
    /// open.
    #[must_use]
    pub fn position_at(&self, lsn: Lsn, now_us: i64) -> SourceOffset {
        let offset = match (self.last_published(), &self.stored, &self.base) {
            // The position of a message outside of transactions is its own, and covers the message.
            (Some(change), ..) if change.transaction.xid.is_none() && change.lsn >= lsn => {
                change.offset()
            }
            (Some(change), ..) => change.offset().moved_to(lsn),
            // What the stored offset covers is still being passed over. If it names a change within a transaction, a
            // position behind that change would cover the rest of the transaction.
            (None, Some(stored), _) if !stored.is_whole() || stored.furthest() >= Some(lsn) => {
                stored.clone()
            }
            (None, _, Some(base)) => base.without_snapshot(lsn, now_us).moved_to(lsn),
            (None, _, None) => SourceOffset::at(lsn, now_us),
        };
        self.identified(offset, lsn)
    }

    /// The offset of the change that was published last, if it is one of the transaction that is being read; up to
    /// `lsn` everything was handled before.
    #[must_use]
    pub fn position_within(&self, lsn: Lsn) -> Option<SourceOffset> {
        let change = self.last_published()?;
        let is_open = change.transaction.commit_lsn == self.transaction.commit_lsn;
        is_open.then(|| self.identified(change.offset(), lsn))
    }

    fn last_published(&self) -> Option<&Change> {
        let in_flight = self.latest.as_ref().or(self.waiting.as_ref());
        in_flight.map(|(_, change)| change).or(self.confirmed.as_ref())
    }

    fn identified(&self, offset: SourceOffset, lsn: Lsn) -> SourceOffset {
        let Some(identity) = self.identity.clone() else { return offset };
        let before = self.base.as_ref().and_then(SourceOffset::identity);
        let of_this_slot = before.filter(|before| before.slot == identity.slot);
        let before = of_this_slot.and_then(|before| before.acknowledged_max);
        let acknowledged_max = Some(lsn.as_u64()).max(before);
        offset.with_identity(Some(SlotIdentity { acknowledged_max, ..identity }))
    }
}

impl SourceOffset {
    /// Whether it covers whole transactions only: it was moved on from the change that it names.
    fn is_whole(&self) -> bool {
        self.message_type.is_none() || self.lsn_proc > self.lsn
    }

    /// That of a snapshot is one of the stream from the first transaction on.
    fn without_snapshot(&self, lsn: Lsn, now_us: i64) -> Self {
        match self.snapshot {
            Some(_) => Self::at(lsn, now_us),
            None => self.clone(),
        }
    }
}
