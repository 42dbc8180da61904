//! How a stream shows that it is of the history that a stored offset is a position in; pure.

use pgoutput::Lsn;

use super::{SourceOffset, Transaction};
use crate::written::MESSAGE_KIND;

/// The transaction of the change that a stored offset names. Where the slot stands before that change, PostgreSQL sends
/// the transaction again, before all transactions that the offset does not cover: they come in the order of their
/// commits. A server that was set back to a copy and went on from there does not have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Landmark {
    /// The transaction's id.
    pub xid: u64,
    /// Position of the change.
    pub lsn: Lsn,
    /// When it was committed, in microseconds since 1970. A copy gives the same ids and positions again, even to the same
    /// changes, and not the same times.
    commit_time_us: i64,
}

impl Landmark {
    /// Of an offset of the relay's own, if the slot stands before its change. Debezium's says nothing of what it is a
    /// position in, and logical messages come only to those who ask for them.
    pub(super) fn before(stored: &SourceOffset, slot_lsn: Lsn) -> Option<Self> {
        stored.identity()?;
        let kind = stored.message_type.as_deref()?;
        let (xid, lsn) = (stored.transaction_id?, Lsn::new(stored.lsn?));
        let comes_again = kind != MESSAGE_KIND && stored.snapshot.is_none() && slot_lsn < lsn;
        comes_again.then_some(Self { xid, lsn, commit_time_us: stored.ts_usec? })
    }

    pub(super) fn is(&self, transaction: &Transaction) -> bool {
        transaction.xid == Some(self.xid)
            && transaction.commit_time_us == self.commit_time_us
            && transaction.commit_lsn > self.lsn
    }
}
