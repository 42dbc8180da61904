//! The sentence: source -> decode -> route -> convert -> sink -> acknowledge.

mod commits;
mod received;
mod refused;
mod replay;
mod snapshot;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use pgoutput::Lsn;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::connector_config::ConnectorConfig;
use crate::dead_letter::ErrorCounts;
use crate::dead_letter::desk::Desk;
use crate::events::{EventError, Events, Stage};
use crate::failpoint::{self, Step};
use crate::health::Health;
use crate::position::Position;
use crate::progress::{NotInFlight, Progress};
use crate::provenance::Provenance;
use crate::record::Record;
use crate::sink::{Confirmation, Sink, SinkError};
use crate::slot_identity::SlotIdentity;
use crate::source::relations::Relations;
use crate::source::wal::WalStream;
use crate::source::{SourceError, slot::SystemIdentity};
use crate::source_offset::SourceOffset;
use crate::written::{Reporter, Written};
use commits::{Commits, More};

/// The shortest time between two acknowledgements: ten a second cost nothing, and what a crash repeats is what was
/// confirmed since the last one.
const ACKNOWLEDGE_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Requests for an answer, [`ACKNOWLEDGE_INTERVAL_MIN`] apart, after which the stream is left: a server that shuts down
/// asks again until everything is acknowledged, and would wait for a broker that is away.
const REQUESTS_MAX: u32 = 20;

/// Records that may be in flight. The sink has limits of its own; this one holds when it confirms later records while
/// an early one waits, for a partition without a leader for instance.
const IN_FLIGHT_MAX: usize = 200_000;

/// Why the pipeline ended.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// PostgreSQL.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Kafka.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A row that cannot become a record.
    #[error(
        "a change of table {table} at {commit_lsn} (position of its commit, transaction {xid}) cannot be published, \
         failing in stage '{stage}': {reason}"
    )]
    Row {
        /// Schema and name of the table.
        table: String,
        /// Position of the transaction's commit record.
        commit_lsn: Lsn,
        /// The transaction's id.
        xid: u32,
        /// Which step failed, in Connect's words.
        stage: Stage,
        /// Why.
        reason: String,
    },
    /// The sink broke its contract.
    #[error(transparent)]
    Progress(#[from] NotInFlight),
}

/// How a stop on request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Records that were in flight when the stop was asked for, or were still to be published of a transaction.
    pub drained: u64,
    /// Records without confirmation when the time was over; they will be published again.
    pub left: usize,
    /// The last position acknowledged.
    pub confirmed_lsn: Lsn,
}

/// The transaction that is being read.
#[derive(Debug)]
struct Transaction {
    /// What is the same for all of its changes.
    provenance: Provenance,
    /// Captured changes so far: the index of the next one is one higher.
    changes: u64,
}

/// What connects one source with one sink, over the life of a task: it survives a lost connection to PostgreSQL.
pub struct Pipeline<'c, S> {
    config: &'c ConnectorConfig,
    events: Events<'c>,
    sink: S,
    progress: Progress,
    confirmations: Vec<Confirmation>,
    /// Records of one change that the sink had no room for: nothing is read until it has.
    held: VecDeque<Record>,
    /// A record that Kafka may refuse: nothing is read before its answer is there.
    unanswered: Option<refused::Unanswered>,
    error_counts: Arc<ErrorCounts>,
    /// Where the connector has a dead letter topic in Kafka.
    desk: Option<Arc<Desk>>,
    dead_letters_ready: bool,
    relations: Relations,
    transaction: Option<Transaction>,
    /// Where the transaction ended whose last record the sink had no room for.
    ended_at: Option<Lsn>,
    heartbeat_at: Option<Instant>,
    /// The last change that was published (or needed no record), and in which history of WAL.
    position: Position,
    /// Where records and position are committed together.
    commits: Option<Commits>,
    /// The position that was stored when the stream began.
    stored: Option<SourceOffset>,
    system: SystemIdentity,
    reporter: Reporter,
    health: Arc<Health>,
    snapshot_taken: bool,
    acknowledged_lsn: Lsn,
    acknowledged_at: Instant,
    acknowledge_interval_max: Duration,
    /// The server asks for a sign of life.
    reply_requested: bool,
    /// How often it has asked since anything was confirmed.
    requests_unanswered: u32,
    published: u64,
}

impl<'c, S: Sink> Pipeline<'c, S> {
    /// Joins a sink to a connector's options.
    /// What `stored` covers is not published again.
    pub fn new(
        config: &'c ConnectorConfig,
        sink: S,
        stored: Option<SourceOffset>,
        written: Arc<Written>,
    ) -> Self {
        let reporter = Reporter::new(&config.name, stored.clone(), written);
        let health = Arc::new(Health::default());
        let error_counts = health.errors();
        Self {
            config,
            events: Events::new(config, Arc::clone(&error_counts)),
            sink,
            progress: Progress::default(),
            confirmations: Vec::new(),
            held: VecDeque::new(),
            unanswered: None,
            error_counts,
            desk: None,
            dead_letters_ready: false,
            relations: Relations::default(),
            transaction: None,
            ended_at: None,
            heartbeat_at: None,
            position: Position::default(),
            commits: config.transactions.as_ref().map(|asked| Commits::new(asked.boundary)),
            stored,
            system: SystemIdentity::default(),
            reporter,
            health,
            snapshot_taken: false,
            acknowledged_lsn: Lsn::ZERO,
            acknowledged_at: Instant::now(),
            acknowledge_interval_max: config.status_interval,
            reply_requested: false,
            requests_unanswered: 0,
            published: 0,
        }
    }

    /// Tells of the stream's health there.
    #[must_use]
    pub fn with_health(mut self, health: Arc<Health>) -> Self {
        let transaction_max = self.config.transactions.as_ref().map(|asked| asked.timeout);
        health.confirms_within(transaction_max.unwrap_or_default());
        self.error_counts = health.errors();
        self.events.count_errors(&self.error_counts);
        self.health = health;
        self
    }

    /// Prepares for a stream that begins: PostgreSQL sends again what was not acknowledged, and each relation anew.
    /// What this pipeline has published already is passed over, as long as it is the same history of WAL.
    pub fn begin(&mut self, identity: SystemIdentity, wal_end: Lsn, status_interval: Duration) {
        self.system = identity.clone();
        self.position.begin(identity, wal_end);
        self.progress.begin();
        self.acknowledged_lsn = Lsn::ZERO;
        self.requests_unanswered = 0;
        self.relations = Relations::default();
        self.transaction = None;
        self.ended_at = None;
        let interval = self.config.metadata.heartbeat_interval;
        self.heartbeat_at = interval.map(|interval| Instant::now() + interval);
        self.acknowledge_interval_max = status_interval.min(self.config.status_interval);
        self.acknowledged_at = Instant::now();
        self.reply_requested = false;
    }

    /// Streams until `stop` is cancelled, then drains for `drain_max` at the most.
    ///
    /// # Errors
    /// When the source, a row or the sink fails. Nothing was acknowledged that was not confirmed.
    pub async fn run(
        &mut self,
        wal: &mut WalStream,
        stop: &CancellationToken,
        drain_max: Duration,
    ) -> Result<Drained, PipelineError> {
        let mut stopping: Option<(Instant, u64)> = None;
        loop {
            self.take_confirmations()?;
            self.publish_received(wal, stopping.is_some()).await?;
            self.sink.hand_over();
            if let Some((deadline, before)) = stopping
                && (self.is_drained() || Instant::now() >= deadline)
            {
                return self.finish(wal, before).await;
            }
            let room = self.has_room();
            let intake = room && (stopping.is_none() || self.transaction.is_some());
            let between = room && self.transaction.is_none();
            let due = self.acknowledgement_due();
            let due = stopping.map_or(due, |(deadline, _)| deadline.min(due));
            let due = self.retry_due().map_or(due, |retry| retry.min(due));
            let beat = self.heartbeat_at.filter(|_| room && stopping.is_none());
            let commit = self.commit_due_at(stopping.is_some());
            // In this order, because: a stop must not wait behind a busy stream; an acknowledgement that is due
            // keeps the connection alive; reading comes before a commit, which takes what has arrived along, and before
            // waiting for confirmations, which each turn of the loop takes without waiting anyway.
            tokio::select! {
                biased;
                () = stop.cancelled(), if stopping.is_none() => {
                    let in_flight = self.in_flight() as u64;
                    stopping = Some((Instant::now() + drain_max, self.published - in_flight));
                }
                () = tokio::time::sleep_until(due) => self.acknowledge(wal).await?,
                request = replay::asked(self.desk.as_deref()), if between && stopping.is_none() => {
                    self.replay(wal, request, stop).await?;
                }
                () = tokio::time::sleep_until(beat.unwrap_or(due)), if beat.is_some() => self.beat()?,
                received = wal.fill(), if intake => received?,
                () = tokio::time::sleep_until(commit.unwrap_or(due)), if commit.is_some() => {
                    self.commit_where_due(More::NotNow, stopping.is_some());
                }
                () = self.sink.confirmed() => {}
            }
        }
    }

    /// Waits until everything that was published is confirmed, without a source: before a new connection is made,
    /// so that no record is published again that is on its way.
    ///
    /// # Errors
    /// When the sink refuses a record.
    pub async fn settle(&mut self) -> Result<(), PipelineError> {
        loop {
            self.take_confirmations()?;
            self.publish_held();
            self.commit_without_position();
            if self.held.is_empty() && self.in_flight() == 0 {
                return Ok(());
            }
            self.sink_moved().await;
        }
    }

    /// How far which history of WAL was streamed: its slot must still be there.
    pub fn reached(&self) -> Option<(SystemIdentity, Lsn)> {
        self.position.reached()
    }

    /// Whether a slot that stands at `slot_lsn` has to send again what was published last.
    pub fn comes_again(&self, slot_lsn: Option<Lsn>) -> bool {
        self.reporter.comes_again(slot_lsn)
    }

    /// Compares the stored offset with where the slot stands.
    pub fn resume(&mut self, slot_lsn: Option<Lsn>, wal_end: Lsn) {
        self.reporter.begin_stream(slot_lsn, wal_end, self.identity());
        self.expect_slot(slot_lsn);
    }

    /// What the positions of this stream are positions in.
    fn identity(&self) -> Option<SlotIdentity> {
        let SystemIdentity { system_id, timeline } = self.system.clone();
        let (timeline, slot) = (timeline.parse().ok()?, self.config.slot.clone());
        Some(SlotIdentity { system_id, timeline, slot, acknowledged_max: None })
    }

    /// Gives the sink back, to be closed.
    pub fn into_sink(self) -> S {
        self.sink
    }

    /// What a stop leaves behind when there is no stream to drain to.
    pub fn undrained(&self) -> Drained {
        let left = self.in_flight() + self.held.len();
        Drained { drained: 0, left, confirmed_lsn: self.acknowledged_lsn }
    }

    /// The highest position that may be acknowledged.
    pub const fn confirmed_lsn(&self) -> Lsn {
        self.progress.confirmed_lsn()
    }

    /// Publishes the records of a change, also those that were made before it failed.
    fn publish_made(
        &mut self,
        made: Result<(), EventError>,
        provenance: &Provenance,
    ) -> Result<(), PipelineError> {
        self.publish_held();
        made.map_err(|EventError { table, stage, reason }| {
            let (commit_lsn, xid) = (provenance.commit_lsn, provenance.xid.unwrap_or_default());
            PipelineError::Row { table, commit_lsn, xid, stage, reason }
        })
    }

    /// Publishes records, as long as the sink has room.
    fn publish_held(&mut self) {
        while self.retry_refused()
            && let Some(record) = self.held.pop_front_if(|record| self.sink.has_room(record))
        {
            failpoint::reached(Step::BeforePublish);
            let alone = self.unanswered.is_some() && self.sink.travels_alone(&record);
            if alone {
                self.note_alone(&record);
            }
            let sequence = self.number();
            self.published += 1;
            self.reporter.published(sequence, &record.topic, self.held.is_empty());
            self.sink.publish(sequence, record);
            failpoint::reached(Step::AfterPublish);
            self.note_sent(sequence, alone);
        }
        self.complete_transaction();
    }

    /// A transaction is over when its last record is on its way.
    fn complete_transaction(&mut self) {
        if !self.held.is_empty() {
            return;
        }
        if let Some(end_lsn) = self.ended_at.take() {
            self.transaction = None;
            self.handled(end_lsn);
            self.reporter.end_transaction(end_lsn);
        }
    }

    /// Publishes a heartbeat.
    fn beat(&mut self) -> Result<(), PipelineError> {
        let interval = self.config.metadata.heartbeat_interval;
        self.heartbeat_at = interval.map(|interval| Instant::now() + interval);
        let made = self.events.heartbeat(&mut self.held);
        self.publish_made(made, &Provenance::default())
    }

    fn take_confirmations(&mut self) -> Result<(), PipelineError> {
        self.sink.take_confirmations(&mut self.confirmations);
        let mut failure: Option<SinkError> = None;
        let mut confirmations = std::mem::take(&mut self.confirmations);
        for Confirmation { sequence, outcome } in confirmations.drain(..) {
            let Err(error) = outcome else {
                self.progress.confirm(sequence)?;
                failpoint::reached(Step::AfterConfirm);
                self.note_stored(sequence)?;
                continue;
            };
            // The refusal of a record ends the producer, and with it the records behind: it is the one to tell.
            match self.note_refused(sequence, error) {
                Ok(()) => {}
                Err(PipelineError::Sink(
                    error @ (SinkError::Record { .. } | SinkError::Topic { .. }),
                )) => {
                    failure = Some(error);
                }
                Err(PipelineError::Sink(error)) => failure = failure.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        // Kept for its memory.
        self.confirmations = confirmations;
        self.note_commits();
        self.reporter.confirm(&self.progress);
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Soon, but not at once, where the server asks or there is something new; from time to time anyway.
    fn acknowledgement_due(&self) -> Instant {
        let wait = if self.reply_requested || self.progress.confirmed_lsn() > self.acknowledged_lsn
        {
            ACKNOWLEDGE_INTERVAL_MIN
        } else {
            self.acknowledge_interval_max
        };
        self.acknowledged_at + wait
    }

    async fn acknowledge(&mut self, wal: &mut WalStream) -> Result<(), PipelineError> {
        let confirmed_lsn = self.progress.confirmed_lsn();
        let is_new = confirmed_lsn > self.acknowledged_lsn;
        if is_new {
            self.requests_unanswered = 0;
            failpoint::reached(Step::BeforeAcknowledge);
        }
        let may_not = self.progress.in_flight() > 0 || self.reporter.is_unproven();
        if self.requests_unanswered > REQUESTS_MAX && may_not {
            let address = wal.address().to_owned();
            return Err(SourceError::ServerWaits { address }.into());
        }
        wal.acknowledge(confirmed_lsn).await?;
        self.health.received(wal.received_lsn());
        let waits = self.in_flight() > 0 || !self.held.is_empty();
        self.health.confirmed(waits.then(|| self.progress.oldest_unconfirmed()));
        self.acknowledged_lsn = confirmed_lsn;
        self.acknowledged_at = Instant::now();
        self.reply_requested = false;
        self.reporter.tell(&self.progress);
        if is_new {
            failpoint::reached(Step::AfterAcknowledge);
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        // A commit is one number, and nothing is published beside it.
        let in_flight_max = if self.commits() { 1 } else { IN_FLIGHT_MAX };
        self.held.is_empty()
            && self.unanswered.is_none()
            && self.progress.in_flight() < in_flight_max
    }

    /// No transaction is half published, and every record is confirmed.
    fn is_drained(&self) -> bool {
        self.transaction.is_none()
            && self.held.is_empty()
            && self.progress.in_flight() == 0
            && self.commits.as_ref().is_none_or(Commits::is_settled)
    }

    async fn finish(
        &mut self,
        wal: &mut WalStream,
        published_before: u64,
    ) -> Result<Drained, PipelineError> {
        self.acknowledge(wal).await?;
        let undrained = self.undrained();
        let drained = (self.published - published_before).saturating_sub(undrained.left as u64);
        Ok(Drained { drained, ..undrained })
    }
}
