//! A record that Kafka may refuse: nothing is read behind it before its answer is there, so that a refused one can be
//! tried again, or become a dead letter, in its place.

use std::time::Duration;

use tokio::time::Instant;

use super::{Pipeline, PipelineError};
use crate::dead_letter::ErrorCounts;
use crate::events::{Attempt, Refusable, TableChange};
use crate::failure;
use crate::progress::Sequence;
use crate::record::Record;
use crate::sink::{Sink, SinkError};

/// The record whose answer is waited for, and what is to be done if it is a refusal.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    /// What the dead letter is made of; none when it was made, or where there is no topic for it.
    refusable: Option<Refusable>,
    /// The record, where it may have to be tried again.
    copy: Option<Record>,
    /// The sequence that was refused first: it is confirmed when what takes its place is.
    open: Option<Sequence>,
    /// The sequence of the record, or of what took its place.
    sent: Option<Sequence>,
    refused_first: Option<Instant>,
    attempts: u32,
    retry_at: Option<Instant>,
}

impl<S: Sink> Pipeline<'_, S> {
    /// The records of a change are made: is there one among them that Kafka may refuse?
    pub(super) fn expect_answer(&mut self, change: &TableChange<'_, '_>, attempt: Attempt<'_>) {
        let errors = &self.config.errors;
        let may_retry = errors.retry_timeout != Some(Duration::ZERO);
        if errors.dead_letters.is_none() && !may_retry {
            return;
        }
        let Some(record) = self.held.iter().find(|record| self.sink.travels_alone(record)) else {
            return;
        };
        self.unanswered = Some(Unanswered {
            refusable: self.events.refusable(change, attempt, record),
            copy: may_retry.then(|| record.clone()),
            ..Unanswered::default()
        });
    }

    /// A record that Kafka may refuse is about to be handed to the sink: if it is refused, it is the one to try again.
    /// A change may have several.
    pub(super) fn note_alone(&mut self, record: &Record) {
        if let Some(Unanswered { copy: Some(copy), open: None, .. }) = &mut self.unanswered
            && copy != record
        {
            copy.clone_from(record);
        }
    }

    /// A record was handed to the sink.
    pub(super) fn note_sent(&mut self, sequence: Sequence, alone: bool) {
        if let Some(unanswered) = &mut self.unanswered
            && unanswered.sent.is_none()
            && (alone || unanswered.open.is_some())
        {
            unanswered.sent = Some(sequence);
        }
        // The sink has come to know its limits better meanwhile.
        if self.held.is_empty() {
            self.unanswered.take_if(|unanswered| unanswered.sent.is_none());
        }
    }

    /// Kafka has stored a record.
    pub(super) fn note_stored(&mut self, sequence: Sequence) -> Result<(), PipelineError> {
        let Some(unanswered) = &mut self.unanswered else { return Ok(()) };
        if unanswered.sent != Some(sequence) {
            return Ok(());
        }
        if let Some(open) = unanswered.open.take() {
            self.progress.confirm(open)?;
        }
        unanswered.sent = None;
        if self.held.is_empty() {
            self.unanswered = None;
        }
        Ok(())
    }

    /// Kafka has refused a record; an error where nothing can take its place.
    pub(super) fn note_refused(
        &mut self,
        sequence: Sequence,
        error: SinkError,
    ) -> Result<(), PipelineError> {
        let SinkError::Record { topic, reason } = &error else { return Err(error.into()) };
        let Some(unanswered) = &mut self.unanswered else { return Err(error.into()) };
        if unanswered.sent != Some(sequence) {
            return Err(error.into());
        }
        unanswered.sent = None;
        match unanswered.open {
            // The one that was refused first stays open, and with it everything behind.
            Some(_) => self.progress.confirm(sequence)?,
            None => unanswered.open = Some(sequence),
        }
        let errors = &self.config.errors;
        let since = unanswered.refused_first.get_or_insert_with(Instant::now).elapsed();
        let in_time = errors.retry_timeout.is_none_or(|timeout| since < timeout);
        if in_time && unanswered.copy.is_some() {
            unanswered.attempts += 1;
            let delay = failure::retry_delay(unanswered.attempts, errors.retry_delay_max);
            let left = errors.retry_timeout.map(|timeout| timeout.saturating_sub(since));
            unanswered.retry_at = Some(Instant::now() + left.map_or(delay, |left| left.min(delay)));
            if unanswered.attempts == 1 {
                tracing::warn!(connector.name = self.config.name, "trying again: {error}");
            }
            return Ok(());
        }
        unanswered.copy = None;
        let Some(refusable) = unanswered.refusable.take() else { return Err(error.into()) };
        let letter = self.events.refused(refusable, reason);
        let letter = letter.map_err(|not_kept| SinkError::Record {
            topic: topic.clone(),
            reason: not_kept.reason,
        })?;
        // What is held are the other records of the same change: the dead letter stands for all of them.
        self.held.clear();
        self.held.push_back(letter);
        Ok(())
    }

    /// Waits until the sink has moved, or a refused record is to be tried again.
    pub(super) async fn sink_moved(&mut self) {
        match self.retry_due() {
            Some(at) => tokio::time::sleep_until(at).await,
            None => self.sink.confirmed().await,
        }
    }

    /// When a refused record is to be tried again.
    pub(super) fn retry_due(&self) -> Option<Instant> {
        self.unanswered.as_ref().and_then(|unanswered| unanswered.retry_at)
    }

    /// Puts a refused record that is to be tried again before all others; false: not yet.
    pub(super) fn retry_refused(&mut self) -> bool {
        let Some(unanswered) = &mut self.unanswered else { return true };
        let Some(at) = unanswered.retry_at else { return true };
        if Instant::now() < at {
            return false;
        }
        unanswered.retry_at = None;
        if let Some(record) = unanswered.copy.clone() {
            ErrorCounts::count(&self.error_counts.retries);
            self.held.push_front(record);
        }
        true
    }
}
