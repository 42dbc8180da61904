//! Between a task, which holds the order of the keys, and who asks it to replay its dead letters.

use serde::Serialize;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::parked::ParkedKeys;
use super::topic::{DeadLetterTopic, Found, Index};
use crate::sink::SinkError;

/// Requests that may wait for the task. Each has a replay of its own, of what the one before has left.
const REQUESTS_MAX: usize = 8;

/// Letters that are read ahead of the replay. Each may be as large as a row.
const READ_AHEAD: usize = 4;

/// What a replay has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ReplaySummary {
    /// Letters whose events were published.
    pub replayed: u64,
    /// Letters whose changes make no event with the options of now.
    pub without_event: u64,
    /// Letters that failed again, or wait behind one that did: they are dead letters anew, at the end of the topic.
    pub dead_again: u64,
    /// Whether every letter was tried that was there at the beginning; false when the task was stopped meanwhile.
    pub complete: bool,
}

/// Somebody who waits for a replay.
pub type ReplayRequest = oneshot::Sender<Result<ReplaySummary, String>>;

/// The dead letters of one task.
pub struct Desk {
    topic: DeadLetterTopic,
    ask: mpsc::Sender<ReplayRequest>,
    asked: Mutex<mpsc::Receiver<ReplayRequest>>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl Desk {
    /// For a topic.
    #[must_use]
    pub fn new(topic: DeadLetterTopic) -> Self {
        let (ask, asked) = mpsc::channel(REQUESTS_MAX);
        Self { topic, ask, asked: Mutex::new(asked) }
    }

    /// The topic.
    #[must_use]
    pub const fn topic(&self) -> &DeadLetterTopic {
        &self.topic
    }

    /// Asks the task to replay; none when too many have asked already.
    #[must_use]
    pub fn ask(&self) -> Option<oneshot::Receiver<Result<ReplaySummary, String>>> {
        let (answer, answered) = oneshot::channel();
        self.ask.try_send(answer).ok().map(|()| answered)
    }

    /// Waits until somebody asks. Cancel safe.
    pub async fn asked(&self) -> ReplayRequest {
        match self.asked.lock().await.recv().await {
            Some(request) => request,
            // This desk has a sender itself.
            None => std::future::pending().await,
        }
    }

    /// Makes the topic ready.
    ///
    /// # Errors
    /// See [`DeadLetterTopic::ensure`].
    pub async fn ensure(&self) -> Result<(), SinkError> {
        self.topic.ensure().await
    }

    /// The keys that are parked, if keys are.
    ///
    /// # Errors
    /// See [`DeadLetterTopic::index`].
    pub async fn parked(&self) -> Result<Option<ParkedKeys>, SinkError> {
        if !self.topic.parks_keys() {
            return Ok(None);
        }
        let topic = self.topic.clone();
        // A task that is stopped meanwhile waits no longer, and neither does the reader.
        let gone = CancellationToken::new();
        let _waits = gone.clone().drop_guard();
        let read = tokio::task::spawn_blocking(move || topic.index(&|| !gone.is_cancelled())).await;
        let index = read.unwrap_or_else(|_| Err(reader_died()))?;
        Ok(Some(index.parked))
    }

    /// The letters that were not replayed and are there now, in the order of their partitions.
    pub fn open_letters(&self) -> mpsc::Receiver<Result<Found, SinkError>> {
        let (letters, receiver) = mpsc::channel(READ_AHEAD);
        let topic = self.topic.clone();
        tokio::task::spawn_blocking(move || {
            let is_awaited = || !letters.is_closed();
            let read = topic.index(&is_awaited).and_then(|index: Index| {
                let take = |found| letters.blocking_send(Ok(found)).is_ok();
                topic.read_open(&index, &is_awaited, take)
            });
            if let Err(error) = read {
                // Nobody listens any more: then there is nobody to tell.
                let _ = letters.blocking_send(Err(error));
            }
        });
        receiver
    }
}

fn reader_died() -> SinkError {
    SinkError::Producer { reason: "the reader of the dead letters ended without a word".to_owned() }
}
