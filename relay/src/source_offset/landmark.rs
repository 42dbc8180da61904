//! How a stream shows that it is of the history that the last published change is of; pure.

use pgoutput::Lsn;

use super::{Change, MESSAGE_KIND, SourceOffset, Transaction};

/// The transaction of the change that was published last. Where the slot stands before its commit, PostgreSQL sends it
/// again, and in the order of the commits: a transaction behind it says that it does not come. So does a position of the
/// stream behind it. A server that was set back to a copy and went on from there does not have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Landmark {
    /// The transaction's id.
    pub xid: u64,
    /// Where its commit stands.
    pub commit_lsn: Lsn,
    /// When that was, in microseconds since 1970. A copy gives the same ids and positions again, even to the same changes,
    /// and not the same times.
    commit_time_us: i64,
}

impl Landmark {
    /// Of an offset that says where the transaction of its change was committed: one that a relay has made of what it
    /// published. Debezium's do not, nor does one that an operator has changed: the REST API shows no field of our own.
    pub(super) fn of_offset(stored: &SourceOffset) -> Option<Self> {
        let commit_lsn = Lsn::new(stored.published_commit?);
        Some(Self { xid: stored.transaction_id?, commit_lsn, commit_time_us: stored.ts_usec? })
    }

    /// Of a change of a table. Logical messages come only to those who ask for them.
    pub(super) fn of_change(change: &Change) -> Option<Self> {
        let Transaction { xid, commit_lsn, commit_time_us, .. } = change.transaction;
        let xid = xid.filter(|_| change.message_type != MESSAGE_KIND)?;
        Some(Self { xid, commit_lsn, commit_time_us })
    }

    /// Whether a slot that stands there sends it again.
    pub(super) fn comes_again_from(&self, slot_lsn: Lsn) -> bool {
        slot_lsn <= self.commit_lsn
    }

    pub(super) fn is(&self, transaction: &Transaction) -> bool {
        let Transaction { xid, commit_lsn, commit_time_us, .. } = *transaction;
        (xid, commit_lsn, commit_time_us) == (Some(self.xid), self.commit_lsn, self.commit_time_us)
    }
}
