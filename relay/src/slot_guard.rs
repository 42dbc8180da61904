//! Watches the slot beside the stream, over a connection of its own: how far it is behind, whether it keeps to its
//! budget, and whether a canary comes back. A look that fails is told; it does not stop the stream. The slot of a
//! connector that rests (paused, stopped, failed) is watched as well: it goes on holding back WAL.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgoutput::Lsn;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior};

use crate::canary;
use crate::connector_config::{BudgetAction, ConnectorConfig};
use crate::health::Health;
use crate::slot_figures::{Fill, SlotHistory, SlotLook, SlotReport};
use crate::source::connection::{Connection, Purpose, Row};
use crate::source::wal::quote_literal;
use crate::source::{SourceError, slot};

const BUDGET_NEARLY_USED_UP: &str = "the slot holds back much WAL, its budget is nearly used up: see in the task's status and in \
    relay_stream_behind_seconds whether events are published; a long transaction that is still open holds it back, too (pg_stat_activity)";
const BUDGET_EXCEEDED: &str = "the slot holds back much WAL, its budget is exceeded: see in the task's status and in \
    relay_stream_behind_seconds whether events are published; relay.slot.budget.bytes is the budget, relay.slot.budget.action what \
    happens beyond it";
const WAL_IS_LOST: &str = "the slot loses WAL that it still needs: max_slot_wal_keep_size of the server is too small for what \
    it is behind; raise it now, or the task will fail and snapshot.mode=when_needed will have to publish the rows that are \
    still in the outbox";

/// Watches a slot as long as it is kept.
#[derive(Debug)]
pub struct SlotGuard {
    watching: JoinHandle<()>,
    exceeded: watch::Receiver<Option<SlotReport>>,
}

impl SlotGuard {
    /// Begins with a stream. `messages`: whether logical decoding messages come through it, as canaries must.
    #[must_use]
    pub fn start(connector: &ConnectorConfig, health: &Arc<Health>, messages: bool) -> Self {
        let (exceed, exceeded) = watch::channel(None);
        let interval = connector.guard.canary_interval;
        if interval.is_some() && !messages {
            tracing::warn!(
                connector.name = connector.name,
                "relay.canary.interval.ms has no effect: PostgreSQL sends logical decoding messages since version 14"
            );
        }
        let canary_interval = interval.filter(|_| messages);
        if let Some(interval) = canary_interval {
            let silence_max = interval + connector.guard.canary_timeout;
            health.canary(|canary| canary.begin(silence_max, Instant::now()));
        }
        let watch = Watch::new(connector, health, exceed, false);
        Self { watching: tokio::spawn(watch.run(canary_interval)), exceeded }
    }

    /// Begins when a connector rests: no canary is sent, and a slot that is not there is none to be told of.
    #[must_use]
    pub fn start_resting(connector: &ConnectorConfig, health: &Arc<Health>) -> Self {
        let (exceed, exceeded) = watch::channel(None);
        let watch = Watch::new(connector, health, exceed, true);
        Self { watching: tokio::spawn(watch.run(None)), exceeded }
    }

    /// Waits for a look that finds the slot over its budget and to be dropped for it; for ever where that is not asked
    /// for. Each such look is told once.
    pub async fn exceeded(&mut self) -> SlotReport {
        loop {
            if self.exceeded.changed().await.is_err() {
                return std::future::pending().await;
            }
            if let Some(report) = self.exceeded.borrow_and_update().clone() {
                return report;
            }
        }
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// `relay.slot.budget.action=drop`: gives the slot up, which nobody reads from. Returns what is lost with it, for a trace.
///
/// # Errors
/// When it could not be dropped.
pub async fn give_up(
    connector: &ConnectorConfig,
    report: &SlotReport,
) -> Result<SourceError, SourceError> {
    let mut connection = Connection::open(&connector.database, Purpose::Query).await?;
    slot::drop(&mut connection, &connector.slot).await?;
    let from = report.look.confirmed_flush_lsn.unwrap_or(Lsn::ZERO);
    let reason = format!(
        "it held back {} bytes of WAL, more than relay.slot.budget.bytes allows, and was dropped as \
         relay.slot.budget.action=drop asks. What was committed after {from} and is not published is in no slot any \
         more: restart the task with snapshot.mode=when_needed, which publishes the rows that are still in the outbox \
         and goes on from there; events whose rows are deleted are lost",
        report.retained_bytes
    );
    Ok(SourceError::SlotUnusable { slot: connector.slot.clone(), reason })
}

/// A login that is refused: another one like it could lock the account.
fn is_refused_login(error: &SourceError) -> bool {
    matches!(error, SourceError::Server { error, .. } if error.code.starts_with("28"))
}

/// A watch that goes on.
struct Watch {
    connector: ConnectorConfig,
    health: Arc<Health>,
    exceed: watch::Sender<Option<SlotReport>>,
    /// Nobody streams from it.
    rests: bool,
    connection: Option<Connection>,
    history: SlotHistory,
    /// What the log was told last.
    fill: Fill,
    wal_status: String,
}

impl Watch {
    fn new(
        connector: &ConnectorConfig,
        health: &Arc<Health>,
        exceed: watch::Sender<Option<SlotReport>>,
        rests: bool,
    ) -> Self {
        Self {
            connector: connector.clone(),
            health: Arc::clone(health),
            exceed,
            rests,
            connection: None,
            history: SlotHistory::new(&connector.slot),
            fill: Fill::Fine,
            wal_status: String::new(),
        }
    }

    async fn run(mut self, canary_interval: Option<Duration>) {
        let mut looks = self.connector.guard.poll_interval.map(ticks);
        let mut canaries = canary_interval.map(ticks);
        loop {
            let done = tokio::select! {
                () = tick(&mut looks) => self.look().await,
                () = tick(&mut canaries) => self.send_canary().await,
            };
            if let Err(error) = done {
                // The next one begins with a connection of its own.
                self.connection = None;
                let reason = error.to_string();
                if self.health.missed_slot(&reason, self.connector.guard.budget_bytes.is_some()) {
                    tracing::warn!(
                        connector.name = self.connector.name,
                        slot.name = self.connector.slot,
                        "the slot cannot be watched{}: {reason}",
                        if self.rests { "" } else { ", the stream goes on" }
                    );
                }
                if self.rests && is_refused_login(&error) {
                    tracing::warn!(
                        connector.name = self.connector.name,
                        slot.name = self.connector.slot,
                        "the slot is not watched any more, so as not to lock the account: correct the login, or restart \
                         the connector"
                    );
                    return;
                }
            }
            if self.rests {
                // A database with a session cannot be dropped or renamed, which is what connectors are stopped for.
                self.connection = None;
            }
        }
    }

    async fn connection(&mut self) -> Result<&mut Connection, SourceError> {
        let open = match self.connection.take() {
            Some(open) => open,
            None => Connection::open(&self.connector.database, Purpose::Query).await?,
        };
        Ok(self.connection.insert(open))
    }

    async fn look(&mut self) -> Result<(), SourceError> {
        let slot = self.connector.slot.clone();
        // A start looks whose slot it is; a connector that rests may have the name of somebody else's.
        let sql = format!(
            "select active, wal_status, safe_wal_size, restart_lsn, confirmed_flush_lsn, pg_current_wal_lsn() \
             from pg_replication_slots where slot_name = {} and database = current_database() \
             and plugin = 'pgoutput'",
            quote_literal(&slot)
        );
        let rows = self.connection().await?.query("look at the replication slot", &sql).await?;
        let Some(look) = rows.into_iter().next().map(read) else {
            if self.rests {
                self.health.has_no_slot();
                return Ok(());
            }
            let reason = "it is gone".to_owned();
            return Err(SourceError::SlotUnusable { slot, reason });
        };
        let (budget_bytes, action) =
            (self.connector.guard.budget_bytes, self.connector.guard.budget_action);
        let report = self.history.report(look, budget_bytes, Instant::now());
        self.tell(&report);
        if report.fill() == Fill::Exceeded && action == BudgetAction::Drop {
            self.exceed.send_replace(Some(report.clone()));
        }
        self.health.saw_slot(report);
        Ok(())
    }

    /// Says in the log when a threshold is passed, once each time: where the slot stands, and what to do.
    fn tell(&mut self, report: &SlotReport) {
        let (look, fill) = (&report.look, report.fill());
        let loses = matches!(look.wal_status.as_str(), "unreserved" | "lost");
        let news = [
            (fill > self.fill && fill == Fill::Exceeded).then_some(BUDGET_EXCEEDED),
            (fill > self.fill && fill != Fill::Exceeded).then_some(BUDGET_NEARLY_USED_UP),
            (loses && look.wal_status != self.wal_status).then_some(WAL_IS_LOST),
        ];
        for news in news.into_iter().flatten() {
            tracing::warn!(
                connector.name = self.connector.name,
                slot.name = self.connector.slot,
                slot.restart_lsn = look.restart_lsn.map(tracing::field::display),
                slot.confirmed_flush_lsn = look.confirmed_flush_lsn.map(tracing::field::display),
                slot.retained_bytes = report.retained_bytes,
                slot.budget_bytes = report.budget_bytes,
                slot.wal_status = look.wal_status,
                slot.active = look.active,
                "{news}"
            );
        }
        if fill < self.fill {
            tracing::info!(
                connector.name = self.connector.name,
                slot.name = self.connector.slot,
                slot.retained_bytes = report.retained_bytes,
                "the slot holds back less WAL again"
            );
        }
        self.fill = fill;
        self.wal_status.clone_from(&look.wal_status);
    }

    async fn send_canary(&mut self) -> Result<(), SourceError> {
        if self.health.canary(|canary| canary.is_on_its_way()) {
            return Ok(());
        }
        let token = uuid::Uuid::new_v4().to_string();
        // Not transactional, so that it makes no transaction that the stream would tell of. A transaction id has the
        // commit flush the WAL with the message in it; a replica that is away must not hold it up.
        let sql = format!(
            "set synchronous_commit = local; \
             select pg_logical_emit_message(false, {}, {}), txid_current()",
            quote_literal(&canary::prefix(&self.connector.name)),
            quote_literal(&token)
        );
        let health = Arc::clone(&self.health);
        let connection = self.connection().await?;
        // It may come back before the answer does.
        health.canary(|canary| canary.sent(token, Instant::now()));
        let sent = connection.query("send a canary", &sql).await;
        if sent.is_err() {
            health.canary(canary::Canary::take_back);
        }
        sent.map(|_| ())
    }
}

fn ticks(interval: Duration) -> Interval {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn tick(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}

fn read(row: Row) -> SlotLook {
    let mut columns = row.into_iter();
    let mut next = || columns.next().flatten();
    let active = next().as_deref() == Some("t");
    let wal_status = next().unwrap_or_default();
    let safe_wal_size = next().and_then(|size| size.parse().ok());
    let mut lsn = || next().and_then(|lsn| lsn.parse::<Lsn>().ok());
    let (restart_lsn, confirmed_flush_lsn) = (lsn(), lsn());
    let wal_end = lsn().unwrap_or(Lsn::ZERO);
    SlotLook { active, wal_status, safe_wal_size, restart_lsn, confirmed_flush_lsn, wal_end }
}
