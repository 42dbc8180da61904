//! What Debezium's transforms log of a change.

use event_router::{Skipped, Warning};

use crate::provenance::Provenance;

/// The log's target for what Debezium's transforms log, so that it can be told apart and switched by itself.
pub const TRANSFORMS_LOG: &str = "relay::transforms";

/// What Debezium's transforms log of a change.
pub(super) struct TransformLog<'l> {
    pub(super) connector: &'l str,
    pub(super) table: &'l str,
    pub(super) provenance: &'l Provenance,
}

impl TransformLog<'_> {
    pub(super) fn warnings(&self, warnings: &[Warning]) {
        for warning in warnings {
            let (lsn, message) = (self.provenance.commit_lsn, warning.message());
            tracing::warn!(
                target: TRANSFORMS_LOG, { connector.name = self.connector, %lsn, table = self.table }, "{message}"
            );
        }
    }

    /// As Debezium: a delete is what an outbox does, an update is not.
    pub(super) fn skipped(&self, skipped: Skipped) {
        let (connector, table, lsn) = (self.connector, self.table, self.provenance.commit_lsn);
        let message = "Unexpected update message received and ignored";
        match skipped {
            Skipped::Delete => {}
            Skipped::UpdateWarned => {
                tracing::warn!(target: TRANSFORMS_LOG, { connector.name = connector, %lsn, table }, "{message}");
            }
            Skipped::UpdateReported => {
                tracing::error!(target: TRANSFORMS_LOG, { connector.name = connector, %lsn, table }, "{message}");
            }
        }
    }
}
