//! What is known of a connector's health: its role, how its slot stands, whether its stream delivers. The task writes
//! it; readiness and metrics are made of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgoutput::Lsn;

use crate::canary::Canary;
use crate::dead_letter::ErrorCounts;
use crate::progress::Sequence;
use crate::slot_figures::SlotReport;

/// What a connector's task does on this worker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Role {
    /// It prepares its start.
    #[default]
    Starting,
    /// Somebody else streams from the slot; it takes over when the slot is free.
    StandingBy {
        /// Who holds the slot.
        reason: String,
    },
    /// It streams.
    Streaming,
    /// Nothing is to be streamed (`snapshot.mode=initial_only`).
    Idle,
    /// It cannot stream now and tries again.
    Waiting {
        /// What it waits for.
        reason: String,
    },
    /// Paused or stopped on request.
    Paused,
    /// Stopped for good; somebody has to act.
    Failed {
        /// The first line of the trace.
        reason: String,
    },
}

impl Role {
    /// The word for it in JSON and metrics.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::StandingBy { .. } => "standby",
            Self::Streaming => "streaming",
            Self::Idle => "idle",
            Self::Waiting { .. } => "waiting",
            Self::Paused => "paused",
            Self::Failed { .. } => "failed",
        }
    }

    /// All words, for metrics that tell each of them.
    pub const WORDS: [&'static str; 7] =
        ["starting", "standby", "streaming", "idle", "waiting", "paused", "failed"];
}

/// The health of one connector on this worker, over all tasks that it has had.
#[derive(Debug, Default)]
pub struct Health {
    state: Mutex<State>,
}

/// One look at a connector's health.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// What the task does.
    pub role: Role,
    /// It stood by and has not streamed since.
    stood_by: bool,
    /// How often this worker took the slot over after standing by for it.
    pub takeovers: u64,
    /// How the slot stands, as it was seen last.
    pub slot: Option<SlotReport>,
    /// Why the last look at the slot failed; none when it did not.
    pub slot_error: Option<String>,
    /// Since when looks at a slot that has a budget have failed.
    unwatched_since: Option<Instant>,
    /// Looks at the slot that failed.
    pub slot_errors: u64,
    /// What was sent through the stream to see whether it comes back.
    pub canary: Canary,
    /// How far the stream has brought the server's WAL.
    pub received_lsn: Lsn,
    /// What became of changes that could not be published. It goes on counting.
    pub errors: Arc<ErrorCounts>,
    /// The end of WAL that the stream should have reached, and since when.
    expected: Option<(Lsn, Instant)>,
    /// The record that Kafka should confirm next, and since when it is that one.
    unconfirmed: Option<(Sequence, Instant)>,
    /// How long a Kafka transaction may take: its records are confirmed with its commit.
    transaction_max: Duration,
}

impl Health {
    /// What is known now.
    #[must_use]
    pub fn look(&self) -> State {
        self.lock().clone()
    }

    /// The role now.
    #[must_use]
    pub fn role(&self) -> Role {
        self.lock().role.clone()
    }

    /// A role begins.
    pub fn begin(&self, role: Role) {
        let mut state = self.lock();
        if state.role == role {
            return;
        }
        if role == Role::Streaming {
            state.takeovers += u64::from(std::mem::take(&mut state.stood_by));
        }
        state.stood_by |= matches!(role, Role::StandingBy { .. });
        if role != Role::Streaming {
            // What was seen by a stream that is over says nothing about the next one.
            state.slot = None;
            state.slot_error = None;
            state.unwatched_since = None;
            state.canary.forget();
        }
        state.received_lsn = Lsn::ZERO;
        state.expected = None;
        state.unconfirmed = None;
        state.role = role;
    }

    /// The stream has brought the server's WAL up to here.
    pub fn received(&self, lsn: Lsn) {
        let mut state = self.lock();
        state.received_lsn = state.received_lsn.max(lsn);
        let received_lsn = state.received_lsn;
        state.expected.take_if(|(expected, _)| *expected <= received_lsn);
    }

    /// Kafka has confirmed all records before `oldest`; that one is on its way, or there is none.
    pub fn confirmed(&self, oldest: Option<Sequence>) {
        let mut state = self.lock();
        let is_same = state.unconfirmed.map(|(sequence, _)| sequence) == oldest;
        if !is_same {
            state.unconfirmed = oldest.map(|sequence| (sequence, Instant::now()));
        }
    }

    /// Records are confirmed with the commit of their Kafka transaction, which may take so long.
    pub fn confirms_within(&self, transaction_max: Duration) {
        self.lock().transaction_max = transaction_max;
    }

    /// A look at the slot went well.
    pub fn saw_slot(&self, report: SlotReport) {
        let mut state = self.lock();
        let wal_end = report.look.wal_end;
        let streams = state.role == Role::Streaming;
        if !streams && !matches!(state.role, Role::Paused | Role::Failed { .. }) {
            // The look of a watch that has just ended.
            return;
        }
        if streams && state.expected.is_none() && wal_end > state.received_lsn {
            state.expected = Some((wal_end, Instant::now()));
        }
        state.slot = Some(report);
        state.slot_error = None;
        state.unwatched_since = None;
    }

    /// A connector that rests has no slot.
    pub fn has_no_slot(&self) {
        let mut state = self.lock();
        state.slot = None;
        state.slot_error = None;
        state.unwatched_since = None;
    }

    /// A look at the slot failed. True: for another reason than the look before. Where the slot has a budget, nobody keeps
    /// it now; one of a connector that rests may have lost its database, which is what connectors are stopped for.
    pub fn missed_slot(&self, reason: &str, has_budget: bool) -> bool {
        let mut state = self.lock();
        let keeps = has_budget && state.role == Role::Streaming;
        let since = state.unwatched_since.unwrap_or_else(Instant::now);
        state.unwatched_since = keeps.then_some(since);
        state.slot_errors += 1;
        let is_new = state.slot_error.as_deref() != Some(reason);
        state.slot_error = Some(reason.to_owned());
        is_new
    }

    /// Changes what is known of the canary.
    pub fn canary<T>(&self, change: impl FnOnce(&mut Canary) -> T) -> T {
        change(&mut self.lock().canary)
    }

    /// Where failures are counted.
    #[must_use]
    pub fn errors(&self) -> Arc<ErrorCounts> {
        Arc::clone(&self.lock().errors)
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// For how long the stream has not reached a position that the server had written then.
    #[must_use]
    pub fn behind_for(&self) -> Option<Duration> {
        self.expected.map(|(_, since)| since.elapsed())
    }

    /// For how long Kafka has not confirmed the record that it should confirm next.
    #[must_use]
    pub fn unconfirmed_for(&self) -> Option<Duration> {
        self.unconfirmed.map(|(_, since)| since.elapsed())
    }

    /// Why events do not flow as they should, for an answer of 503; none: they do, or are not meant to on this worker.
    #[must_use]
    pub fn unready(&self, stream_silence_max: Duration) -> Option<String> {
        match &self.role {
            Role::Starting => Some("the connector is starting".to_owned()),
            Role::Waiting { reason } => Some(reason.clone()),
            Role::Failed { reason } => Some(format!("the task failed: {reason}")),
            Role::StandingBy { .. } | Role::Idle => None,
            // Nothing flows, as somebody asked for; what the slot does to the database is another matter.
            Role::Paused => self.slot.as_ref().and_then(SlotReport::unready),
            Role::Streaming => self.stream_unready(stream_silence_max),
        }
    }

    fn stream_unready(&self, stream_silence_max: Duration) -> Option<String> {
        if let Some(late) = self.canary.late(Instant::now()) {
            return Some(late);
        }
        if let Some(silent) = self.behind_for().filter(|silent| *silent > stream_silence_max) {
            return Some(format!(
                "the stream has brought nothing for {} s although the server has written WAL",
                silent.as_secs()
            ));
        }
        let patience = stream_silence_max + self.transaction_max;
        if let Some(silent) = self.unconfirmed_for().filter(|silent| *silent > patience) {
            return Some(format!(
                "Kafka has confirmed nothing for {} s although records are on their way to it, and nothing is acknowledged \
                 meanwhile: look after the brokers, of which the log says what is wrong",
                silent.as_secs()
            ));
        }
        self.slot_unready(stream_silence_max)
    }

    fn slot_unready(&self, silence_max: Duration) -> Option<String> {
        let unwatched = self.unwatched_since.filter(|since| since.elapsed() > silence_max);
        if let (Some(_), Some(reason)) = (unwatched, &self.slot_error) {
            return Some(format!(
                "nobody keeps relay.slot.budget.bytes, as the slot cannot be looked at: {reason}"
            ));
        }
        self.slot.as_ref().and_then(SlotReport::unready)
    }
}
