//! Stores what a running task tells: topics when it first writes to them, its source offset from time to time and at its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::storage::{Place, StatusKey, Storage, topic_value};
use crate::config::WorkerConfig;
use crate::failpoint::{self, Step};
use crate::progress::Sequence;
use crate::source_offset::SourceOffset;
use crate::written::Written;

/// How often the offset follows an idle slot: one small record a minute, whatever the flush interval.
const IDLE_INTERVAL: Duration = Duration::from_secs(60);
/// Records that Kafka has confirmed since the offset was stored last, from which on it is stored before its interval is over:
/// in a burst, as after an outage, an interval is long, and all that it published would come again after a crash of
/// relay and PostgreSQL. What is told, ten times a second at the most, bounds how often that is.
const RECORDS_MAX: Sequence = 1_000;
/// How long the last records of a task may take: Kafka Connect's default of `offset.flush.timeout.ms`.
const LAST_TIMEOUT: Duration = Duration::from_secs(5);

/// The records of a running task.
pub(super) struct TaskRecords {
    connector: String,
    stop: CancellationToken,
    storing: JoinHandle<()>,
}

impl TaskRecords {
    /// Stores what is told to `written`; the offset under `key`.
    pub(super) fn follow(
        connector: &str,
        key: String,
        written: Arc<Written>,
        storage: Arc<Storage>,
        worker: &WorkerConfig,
    ) -> Self {
        let stop = CancellationToken::new();
        let storing = Storing {
            connector: connector.to_owned(),
            key,
            written,
            storage,
            interval: worker.offset_flush_interval,
            tracks_topics: tracks_topics(worker),
            stored: None,
            named: None,
            records: 0,
            place: None,
            stored_at: Instant::now(),
        };
        let storing = tokio::spawn(storing.run(stop.clone()));
        Self { connector: connector.to_owned(), stop, storing }
    }

    /// Stores what the task has told last, within a bound; it has stopped.
    pub(super) async fn finish(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(LAST_TIMEOUT, &mut self.storing).await.is_err() {
            self.storing.abort();
            tracing::warn!(
                connector.name = self.connector,
                bound_s = LAST_TIMEOUT.as_secs(),
                "the last source offset was not stored in time; the replication slot knows the position as well"
            );
        }
    }
}

impl Drop for TaskRecords {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// `topic.tracking.enable`, which by default is on.
pub(super) fn tracks_topics(worker: &WorkerConfig) -> bool {
    !is_off(worker, "topic.tracking.enable")
}

/// `topic.tracking.allow.reset`, which by default is on.
pub(super) fn allows_topic_reset(worker: &WorkerConfig) -> bool {
    !is_off(worker, "topic.tracking.allow.reset")
}

fn is_off(worker: &WorkerConfig, property: &str) -> bool {
    worker.properties.get(property).is_some_and(|value| value.trim().eq_ignore_ascii_case("false"))
}

struct Storing {
    connector: String,
    key: String,
    written: Arc<Written>,
    storage: Arc<Storage>,
    interval: Duration,
    tracks_topics: bool,
    /// What was stored last.
    stored: Option<SourceOffset>,
    /// The offset of a record that was stored last, or that stands behind it.
    named: Option<SourceOffset>,
    /// Records that were confirmed when it was stored.
    records: Sequence,
    /// Where it stands in its topic.
    place: Option<Place>,
    stored_at: Instant,
}

impl Storing {
    async fn run(mut self, stop: CancellationToken) {
        let mut due: Option<Instant> = None;
        let mut failed = false;
        loop {
            let flush = tokio::time::sleep_until(due.unwrap_or_else(Instant::now));
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.written.changed() => {
                    self.store_topics();
                    let now = Instant::now();
                    let is_early = self.is_burst() && !failed;
                    due = Some(if is_early { now } else { due.unwrap_or(now + self.interval) });
                }
                () = flush, if due.is_some() => {
                    failed = !self.store_offset(false).await;
                    due = failed.then(|| Instant::now() + self.interval);
                }
            }
        }
        self.store_topics();
        self.store_offset(true).await;
        self.read_back().await;
    }

    fn is_burst(&self) -> bool {
        let records = self.written.told().map_or(0, |told| told.records);
        // Another pipeline of the task counts from zero.
        let before = if records < self.records { 0 } else { self.records };
        records - before >= RECORDS_MAX
    }

    /// The next task of this connector begins with what this worker has read.
    async fn read_back(&mut self) {
        let Some(place) = self.place.take() else { return };
        if let Err(error) = self.storage.offset_read_back(place).await {
            tracing::warn!(
                connector.name = self.connector,
                %error,
                "the last source offset is stored, and this worker may not know it yet; the replication slot knows the \
                 position as well"
            );
        }
    }

    fn store_topics(&self) {
        let topics = self.written.take_topics();
        if !self.tracks_topics {
            return;
        }
        for topic in topics {
            if self.storage.statuses().writes_to(&self.connector, &topic) {
                continue;
            }
            let now_ms = chrono::Utc::now().timestamp_millis();
            let value = topic_value(&self.connector, &topic, now_ms);
            let key = StatusKey::Topic { connector: self.connector.clone(), topic };
            self.storage.write_status_value(&key, Some(value));
        }
    }

    /// False: it has to be tried again.
    async fn store_offset(&mut self, is_last: bool) -> bool {
        let Some(told) = self.written.told() else { return true };
        let is_new = self.named.as_ref() != Some(&told.offset);
        let may_follow = is_last || (!is_new && self.stored_at.elapsed() >= IDLE_INTERVAL);
        let offset = match &told.moved {
            Some(moved) if may_follow => moved,
            _ if is_new => &told.offset,
            _ => return true,
        };
        if self.stored.as_ref() == Some(offset) {
            return true;
        }
        let Ok(value) = serde_json::to_vec(offset) else { return true };
        failpoint::reached(Step::BeforeOffsetStore);
        match self.storage.append_offset(&self.key, &value).await {
            Ok(place) => self.place = Some(place),
            Err(error) => {
                let connector = &self.connector;
                tracing::warn!(connector.name = connector, %error, "a source offset was not stored");
                return false;
            }
        }
        failpoint::reached(Step::AfterOffsetStore);
        self.records = told.records;
        self.stored = Some(offset.clone());
        self.named = Some(told.offset);
        self.stored_at = Instant::now();
        true
    }
}
