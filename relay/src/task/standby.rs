//! Standing by: waits, cheaply and within reach of a takeover, until nobody else reads from the slot.

use std::time::Duration;

use tokio::time::Instant;

use super::TaskState;
use super::run::{Run, jitter};
use crate::failure::Decision;
use crate::health::Role;
use crate::pipeline::PipelineError;
use crate::source::SourceError;
use crate::source::connection::{Connection, Purpose};
use crate::source::lease;

/// The longest time between two looks at the slot. With the end of the old session (at once after a kill) and the start
/// of the stream (some catalogue queries) a takeover stays well below two seconds.
const LOOK_INTERVAL_MAX: Duration = Duration::from_millis(250);

impl Run<'_> {
    /// Returns when nobody else reads from the slot, or a stop is asked for. One connection is used for all looks.
    ///
    /// # Errors
    /// When the slot is in use for longer than the options allow. When PostgreSQL cannot be asked, the wait is over:
    /// whoever starts to stream next meets the cause.
    pub(super) async fn stand_by(&self) -> Result<(), (PipelineError, Decision)> {
        tokio::select! {
            waited = self.until_free() => waited,
            () = self.stop.cancelled() => Ok(()),
        }
    }

    async fn until_free(&self) -> Result<(), (PipelineError, Decision)> {
        let (connector, since) = (self.connector, Instant::now());
        let Ok(mut connection) = Connection::open(&connector.database, Purpose::Query).await else {
            return Ok(());
        };
        while let Ok(Some(pid)) = lease::holder(&mut connection, connector).await {
            let error = SourceError::SlotInUse { slot: connector.slot.clone(), pid };
            let reason = error.to_string();
            let error = PipelineError::from(error);
            let decision = self.decide(&error, Some(since));
            if decision == Decision::Stop {
                return Err((error, decision));
            }
            self.tell_standby(reason);
            tokio::time::sleep(look_interval()).await;
        }
        Ok(())
    }

    fn tell_standby(&self, reason: String) {
        let role = Role::StandingBy { reason: reason.clone() };
        if self.beginning.health.role() == role {
            return;
        }
        let connector = self.connector;
        tracing::info!(connector.name = connector.name, slot.name = connector.slot, "{reason}");
        self.beginning.health.begin(role);
        self.report.send_replace(TaskState::StandingBy { reason });
    }
}

/// Spread over half of it, so that several standbys do not knock at the same moment for ever.
fn look_interval() -> Duration {
    let spread = u64::try_from(LOOK_INTERVAL_MAX.as_millis() / 2).unwrap_or(1);
    LOOK_INTERVAL_MAX - Duration::from_millis(jitter() % spread)
}
