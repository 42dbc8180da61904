//! The slot of a connector whose task does not run: PostgreSQL keeps WAL for it all the same, so it is watched on.

use super::{Desired, Phase, Supervisor, task_properties};
use crate::connect::storage::{Properties, TargetState};
use crate::connector_config::ConnectorConfig;
use crate::slot_figures::SlotReport;
use crate::slot_guard::{self, SlotGuard};

/// A slot that is watched.
pub(super) struct RestingSlot {
    /// Whose slot it is; other properties need another watch.
    properties: Properties,
    connector: ConnectorConfig,
    guard: SlotGuard,
}

impl Supervisor {
    /// Begins or ends the watch, as what runs now asks for.
    pub(super) fn watch_resting_slot(&mut self, desired: &Desired) {
        let rests = match &self.task {
            Some(task) => !matches!(task.phase, Phase::Running(_)),
            None => desired.target != TargetState::Started,
        };
        let properties = desired.properties.as_ref().filter(|_| rests).map(task_properties);
        if self.resting_slot.as_ref().map(|slot| &slot.properties) == properties.as_ref() {
            return;
        }
        self.resting_slot = properties.and_then(|properties| {
            // What is wrong with the configuration is told by the task.
            let connector = self.connector_config(&properties).ok()?;
            let guard = SlotGuard::start_resting(&connector, &self.health);
            Some(RestingSlot { properties, connector, guard })
        });
    }

    /// `relay.slot.budget.action=drop` counts for a connector that rests, too. What could not be dropped is tried again
    /// at the next look.
    pub(super) async fn give_up_resting_slot(&mut self, report: &SlotReport) {
        let Some(slot) = &self.resting_slot else { return };
        let name = &slot.connector.slot;
        let dropped = tokio::select! {
            // A stop of the process does not wait for a server that does not answer.
            () = self.shutdown.cancelled() => return,
            dropped = slot_guard::give_up(&slot.connector, report) => dropped,
        };
        let lost = match dropped {
            Ok(lost) => lost.to_string(),
            Err(error) => {
                tracing::warn!(
                    connector.name = self.name,
                    slot.name = name,
                    slot.confirmed_flush_lsn =
                        report.look.confirmed_flush_lsn.map(tracing::field::display),
                    %error,
                    "the slot is over its budget and could not be dropped; it is tried again at the next look. To free \
                     the disk at once: select pg_drop_replication_slot"
                );
                return;
            }
        };
        tracing::error!(connector.name = self.name, slot.name = name, "{lost}");
        if let Some(task) = &mut self.task {
            task.phase = Phase::Failed;
            self.fail(lost);
        }
    }
}

/// Waits until a slot that rests is to be dropped for what it holds back; for ever where none is.
pub(super) async fn over_budget(slot: &mut Option<RestingSlot>) -> SlotReport {
    match slot {
        Some(slot) => slot.guard.exceeded().await,
        None => std::future::pending().await,
    }
}
