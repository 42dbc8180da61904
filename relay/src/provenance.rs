//! Where a change comes from: what Debezium's `source` block tells of it; pure.

use std::sync::Arc;

use event_router::envelope::Source;
use pgoutput::{Begin, Lsn};

use crate::connector_config::ConnectorConfig;
use crate::source::wal::POSTGRES_EPOCH_US;

/// Position, time and transaction of a change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Provenance {
    /// Position of the change.
    pub lsn: Lsn,
    /// Position of the last commit before it, since the stream began.
    pub last_commit_lsn: Option<Lsn>,
    /// Position of its transaction's commit record; of a message outside of transactions, its own.
    pub commit_lsn: Lsn,
    /// Time of the commit, microseconds since 1970.
    pub commit_ts_us: i64,
    /// Transaction id; none outside of transactions.
    pub xid: Option<u32>,
    /// The server that the transaction was replicated from.
    pub origin: Option<Arc<Origin>>,
}

/// Where a replicated transaction came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Name of the replication origin.
    pub name: String,
    /// Position of the commit on that server.
    pub commit_lsn: Lsn,
}

impl From<&pgoutput::Origin<'_>> for Origin {
    fn from(origin: &pgoutput::Origin<'_>) -> Self {
        Self { name: origin.name.to_owned(), commit_lsn: origin.commit_lsn }
    }
}

impl Provenance {
    /// What is the same for all changes of a transaction.
    #[must_use]
    pub const fn of_transaction(begin: &Begin, last_commit_lsn: Option<Lsn>) -> Self {
        Self {
            lsn: begin.commit_lsn,
            last_commit_lsn,
            commit_lsn: begin.commit_lsn,
            commit_ts_us: begin.commit_time_us.saturating_add(POSTGRES_EPOCH_US),
            xid: Some(begin.xid),
            origin: None,
        }
    }

    /// Of a message outside of transactions, which counts as a commit of its own.
    #[must_use]
    pub const fn of_lone_message(lsn: Lsn, commit_ts_us: i64) -> Self {
        let last_commit_lsn = Some(lsn);
        Self { lsn, last_commit_lsn, commit_lsn: lsn, commit_ts_us, xid: None, origin: None }
    }

    /// The `source` block, for a table or (with empty names) for a message.
    #[must_use]
    pub fn source<'s>(
        &'s self,
        config: &'s ConnectorConfig,
        schema: &'s str,
        table: &'s str,
    ) -> Source<'s> {
        Source {
            server: &config.topic_prefix,
            database: &config.database.name,
            commit_ts_us: self.commit_ts_us,
            sequence: self.sequence(),
            schema,
            table,
            transaction: self.xid.map(i64::from),
            lsn: signed(self.lsn),
            origin: self
                .origin
                .as_ref()
                .map(|origin| (origin.name.as_str(), signed(origin.commit_lsn))),
        }
    }

    /// The transaction and the position, as Debezium identifies a transaction.
    #[must_use]
    pub fn transaction_id(&self) -> String {
        format!("{}:{}", self.xid.unwrap_or_default(), signed(self.lsn))
    }

    /// The last commit and this change, as the JSON array that Debezium puts into `source.sequence`.
    fn sequence(&self) -> String {
        let lsn = self.lsn.as_u64();
        match self.last_commit_lsn {
            Some(last) => format!("[\"{}\",\"{lsn}\"]", last.as_u64()),
            None => format!("[null,\"{lsn}\"]"),
        }
    }
}

/// As Java has it: positions beyond 2^63 are negative.
const fn signed(lsn: Lsn) -> i64 {
    lsn.as_u64().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_names_the_last_commit_where_there_was_one() {
        let first = Provenance { lsn: Lsn::new(24), ..Provenance::default() };
        assert_eq!(first.sequence(), r#"[null,"24"]"#);
        let next = Provenance { last_commit_lsn: Some(Lsn::new(23)), ..first };
        assert_eq!(next.sequence(), r#"["23","24"]"#);
    }
}
