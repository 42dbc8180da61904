//! Dead letters over REST, which Kafka Connect does not have: a look at those that wait, and their replay.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::error::ConnectError;
use super::herder::{Herder, not_found};
use super::references::Providers;
use super::storage::State;
use super::supervisor::TASK;
use crate::connector_config::{ConnectorConfig, TOPIC_OPTION};
use crate::dead_letter::desk::ReplaySummary;
use crate::dead_letter::topic::{DeadLetterTopic, Found, IsAwaited};
use crate::sink::SinkError;
use crate::task;

/// Letters that a list shows, when nothing else is asked for.
pub(super) const LIST_DEFAULT: usize = 100;
/// The most it shows: each may be as large as a row.
pub(super) const LIST_MAX: usize = 1_000;
/// Bytes of documents in a list: beyond this, it ends early.
const LIST_BYTES_MAX: usize = 8 << 20;
/// How long a call waits for a replay, which goes on after it. Below the time that a call may take.
const REPLAY_WAIT: Duration = Duration::from_secs(60);
/// How long reading the topic may take.
const LIST_WAIT: Duration = Duration::from_secs(60);

/// The letters that were not replayed.
#[derive(Debug, Serialize)]
pub(super) struct LetterList {
    topic: String,
    /// How many there are.
    open: u64,
    /// The first of them, in the order of a replay.
    dead_letters: Vec<ListedLetter>,
}

#[derive(Debug, Serialize)]
struct ListedLetter {
    partition: i32,
    offset: i64,
    /// As text; bytes that are no UTF-8 are replaced.
    key: Option<String>,
    #[serde(flatten)]
    letter: Value,
}

impl Herder {
    /// The dead letters of a connector that were not replayed yet.
    pub(super) async fn dead_letters(
        &self,
        name: &str,
        limit: usize,
    ) -> Result<LetterList, ConnectError> {
        let topic = self.dead_letter_topic(name)?;
        // However this ends, in time or with a caller who has gone, the reader ends with it and keeps no thread.
        let gone = CancellationToken::new();
        let _waits = gone.clone().drop_guard();
        let read =
            tokio::task::spawn_blocking(move || list(&topic, limit, &|| !gone.is_cancelled()));
        match tokio::time::timeout(LIST_WAIT, read).await {
            Ok(Ok(Ok(list))) => Ok(list),
            Ok(Ok(Err(error))) => Err(ConnectError::unavailable(error.to_string())),
            Ok(Err(_)) | Err(_) => {
                Err(ConnectError::unavailable("The dead letters could not be read in time"))
            }
        }
    }

    /// Replays the dead letters of a connector; none: it is still at it.
    pub(super) async fn replay_dead_letters(
        &self,
        name: &str,
    ) -> Result<Option<ReplaySummary>, ConnectError> {
        self.dead_letter_topic(name)?;
        let progress = self.registry.progress(name).ok_or_else(|| not_found(name))?;
        let desk = progress.borrow().dead_letters.clone();
        // One that stands by never looks at what it is asked.
        let Some(desk) = desk.filter(|_| self.streams_here(name)) else {
            return Err(ConnectError::conflict(format!(
                "Connector {name} does not stream on this worker{}; its dead letters are replayed by the task that \
                 streams: start it, or ask the worker that runs it",
                self.runner(name).map(|worker| format!(" ({worker} runs it)")).unwrap_or_default()
            )));
        };
        let answered = desk.ask().ok_or_else(|| {
            ConnectError::conflict(format!("A replay of connector {name} is under way"))
        })?;
        // A task that ends takes the last desk with it, and the question.
        drop(desk);
        match tokio::time::timeout(REPLAY_WAIT, answered).await {
            Ok(Ok(Ok(summary))) => Ok(Some(summary)),
            Ok(Ok(Err(reason))) => {
                Err(ConnectError::internal(format!("The replay failed: {reason}")))
            }
            Ok(Err(_)) => Err(ConnectError::conflict(format!(
                "The task of connector {name} ended before the replay did; what was not replayed is still there"
            ))),
            Err(_) => Ok(None),
        }
    }

    fn dead_letter_topic(&self, name: &str) -> Result<DeadLetterTopic, ConnectError> {
        let properties = self.properties(name)?;
        let mut resolved =
            Providers::new(&self.worker).resolve(&properties).map_err(ConnectError::internal)?;
        resolved.insert("name".to_owned(), name.to_owned());
        let connector = ConnectorConfig::parse(&resolved, &self.worker)
            .map_err(|_| ConnectError::conflict(format!("The options of {name} are not valid")))?;
        task::dead_letter_topic(&connector, &self.worker).ok_or_else(|| {
            ConnectError::bad_request(format!(
                "Connector {name} has no dead letters: set errors.tolerance=all and {TOPIC_OPTION}"
            ))
        })
    }

    /// The worker that says it runs the task.
    fn runner(&self, name: &str) -> Option<String> {
        let statuses = self.storage.statuses();
        let told = statuses.task(name, TASK).filter(|told| told.state == State::Running);
        told.map(|told| told.worker_id.clone())
    }

    fn streams_here(&self, name: &str) -> bool {
        self.runner(name).is_some_and(|worker| worker == self.worker.advertised.to_string())
    }
}

/// Reads twice: how far the letters were replayed, then those behind it. One reading would have to keep all of them.
fn list(
    topic: &DeadLetterTopic,
    limit: usize,
    is_awaited: IsAwaited<'_>,
) -> Result<LetterList, SinkError> {
    let index = topic.index(is_awaited)?;
    let (mut dead_letters, mut bytes, mut open) = (Vec::new(), 0, 0);
    topic.read_open(&index, is_awaited, |found| {
        open += 1;
        if dead_letters.len() < limit && bytes < LIST_BYTES_MAX {
            let Found { at, key, letter } = found;
            bytes += letter.to_json().len();
            dead_letters.push(ListedLetter {
                partition: at.partition,
                offset: at.offset,
                key: key.map(|key| String::from_utf8_lossy(&key).into_owned()),
                letter: serde_json::to_value(&letter).unwrap_or_default(),
            });
        }
        true
    })?;
    Ok(LetterList { topic: topic.name().to_owned(), open, dead_letters })
}
