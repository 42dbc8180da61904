//! What becomes of a change that failed: left out, a dead letter, or the end of the task; and of one whose key is
//! parked.

use std::collections::VecDeque;
use std::sync::Arc;

use event_router::RoutedEvent;
use event_router::chain::Input;
use event_router::envelope::Envelope;

use super::on_its_way::OnItsWay;
use super::{EventError, Events, Stage, TableChange};
use crate::connector_config::Unreadable;
use crate::dead_letter::stored::{Kind, StoredLetter, Subject};
use crate::dead_letter::{self, DeadLetter, DeadLetters, ErrorCounts};
use crate::provenance::Provenance;
use crate::record::Record;

/// One attempt to publish a change.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// Where the change comes from.
    pub provenance: &'a Provenance,
    /// Counted from 1; a replay is another one.
    pub number: u32,
}

impl<'a> Attempt<'a> {
    /// The first one.
    #[must_use]
    pub const fn first(provenance: &'a Provenance) -> Self {
        Self { provenance, number: 1 }
    }
}

/// A change whose record Kafka may refuse, kept until its answer is there.
#[derive(Debug)]
pub struct Refusable {
    subject: Subject,
    provenance: Provenance,
    attempt: u32,
    topic: String,
    key: Option<Vec<u8>>,
    table: String,
}

/// Topic and key of an event that is no record.
type Address = (Option<String>, Option<Vec<u8>>);

impl<'c> Events<'c> {
    /// The dead letters, where the connector has a topic for them.
    pub const fn dead_letters(&mut self) -> Option<&mut DeadLetters<'c>> {
        self.dead_letters.as_mut()
    }

    /// Counts failures there from now on.
    pub fn count_errors(&mut self, counts: &Arc<ErrorCounts>) {
        self.error_counts = Arc::clone(counts);
        if let Some(letters) = &mut self.dead_letters {
            letters.count_errors(counts);
        }
    }

    /// The record of a dead letter that cannot even be tried again.
    ///
    /// # Errors
    /// When no more keys can be parked.
    pub fn dead_again(
        &mut self,
        letter: &StoredLetter,
        key: Option<Vec<u8>>,
        attempt: Attempt<'_>,
        error: &EventError,
    ) -> Result<Record, EventError> {
        self.tell(error, attempt.provenance);
        let Some(letters) = &mut self.dead_letters else { return Err(error.clone()) };
        let (subject, topic) = (letter.subject.clone(), letter.topic.clone());
        let (provenance, attempt) = (attempt.provenance, attempt.number);
        let letter = DeadLetter { subject, provenance, topic, key, attempt };
        letters.failed(letter, Kind::Failed, error)
    }

    /// A failure that the options let pass, apart from dead letters, is no failure.
    ///
    /// Connect's `errors.tolerance` is about transforms and converters; the producer's own refusal stops.
    pub(super) fn tolerate(
        &self,
        sent: Result<(), EventError>,
        provenance: &Provenance,
        subject: Option<&dyn Fn() -> Subject>,
    ) -> Result<(), EventError> {
        let Err(error) = sent else { return Ok(()) };
        let (name, table, reason) = (&self.config.name, &error.table, &error.reason);
        match self.config.events.unreadable {
            _ if error.stage != Stage::Poll => {}
            Unreadable::Fail => {}
            Unreadable::Warn => {
                tracing::warn!(
                    connector.name = name,
                    table,
                    "left out, as event.processing.failure.handling.mode says: {reason}"
                );
                return Ok(());
            }
            Unreadable::Skip => return Ok(()),
        }
        if self.dead_letters.is_some() && subject.is_some() {
            return Err(error);
        }
        ErrorCounts::count(&self.error_counts.failed);
        if let Some(subject) = subject {
            self.log(&error, provenance, subject);
        }
        let tolerated = self.config.errors.tolerated;
        if tolerated && !matches!(error.stage, Stage::Produce | Stage::Poll) {
            ErrorCounts::count(&self.error_counts.left_out);
            let stage = error.stage;
            tracing::warn!(
                connector.name = name,
                table,
                "left out, as errors.tolerance says (stage '{stage}'): {reason}"
            );
            return Ok(());
        }
        Err(error)
    }

    /// Makes a dead letter of a change that failed or whose key is parked, in place of all of its records.
    pub(super) fn settle(
        &mut self,
        (made, begun): (Result<(), EventError>, usize),
        attempt: Attempt<'_>,
        records: &mut VecDeque<Record>,
        subject: &dyn Fn() -> Subject,
        address: impl FnOnce(&mut Self) -> Address,
    ) -> Result<(), EventError> {
        let Some(letters) = &self.dead_letters else { return made };
        let parked = records.range(begun..).find(|record| letters.is_parked(record));
        let (topic, key) = match (&made, parked) {
            (Ok(()), None) => return Ok(()),
            (Ok(()), Some(record)) => (Some(record.topic.clone()), record.key.clone()),
            (Err(_), _) => address(self),
        };
        records.truncate(begun);
        let provenance = attempt.provenance;
        if let Err(error) = &made {
            self.log(error, provenance, subject);
            self.tell(error, provenance);
        }
        let subject = subject();
        let letter = DeadLetter { subject, provenance, topic, key, attempt: attempt.number };
        let Some(letters) = &mut self.dead_letters else { return made };
        let record = match made {
            Ok(()) => letters.parked(letter),
            Err(error) => letters.failed(letter, Kind::Failed, &error)?,
        };
        records.push_back(record);
        Ok(())
    }

    fn tell(&self, error: &EventError, provenance: &Provenance) {
        let topic = self.dead_letters.as_ref().map(DeadLetters::topic).unwrap_or_default();
        tracing::warn!(
            connector.name = self.config.name,
            table = error.table,
            lsn = %provenance.lsn,
            kafka.topic = topic,
            "a change is a dead letter now (stage '{}'): {}",
            error.stage,
            error.reason
        );
    }

    /// `errors.log.enable`.
    fn log(&self, error: &EventError, provenance: &Provenance, subject: &dyn Fn() -> Subject) {
        if self.config.errors.log {
            ErrorCounts::count(&self.error_counts.logged);
            dead_letter::log(self.config, error, &subject(), provenance);
        }
    }

    /// Topic and key of a change that failed, as far as they can be known.
    pub(super) fn address(&mut self, change: &OnItsWay<'_, '_>) -> Address {
        let routed = self.chain.apply(Input::Change(change.raw(Vec::new())));
        self.chain.take_warnings();
        if let Ok(output) = routed {
            return output.event.map_or((None, None), |event| self.address_of(*event));
        }
        if let Some(address) = self.chain.address(&Input::Change(change.raw(Vec::new()))) {
            let topic = address.topic.as_deref().unwrap_or_default();
            let schema = address.key_schema.as_ref();
            let key = self.config.converters.key(topic, schema, address.key);
            return (address.topic, key.ok().flatten());
        }
        let topic = change.table.topic.clone();
        let Ok(key) = change.key() else { return (Some(topic), None) };
        let key = self.config.converters.key(&topic, key.schema.as_ref(), key.value);
        (Some(topic), key.ok().flatten())
    }

    pub(super) fn address_of(&self, event: RoutedEvent<'_>) -> Address {
        let converters = &self.config.converters;
        let key = converters.key(&event.topic, event.key_schema.as_ref(), event.key);
        (Some(event.topic), key.ok().flatten())
    }

    /// What is needed of a change if Kafka refuses `record`, which was made of it.
    #[must_use]
    pub fn refusable(
        &self,
        change: &TableChange<'_, '_>,
        attempt: Attempt<'_>,
        record: &Record,
    ) -> Option<Refusable> {
        self.dead_letters.as_ref()?;
        let table = change.table.full_name.clone();
        let subject = Subject::Change(self.on_its_way(change, attempt.provenance).stored());
        Some(Refusable {
            subject,
            provenance: attempt.provenance.clone(),
            attempt: attempt.number,
            topic: record.topic.clone(),
            key: record.key.clone(),
            table,
        })
    }

    /// The dead letter of a change whose record Kafka has refused.
    ///
    /// # Errors
    /// When there cannot be one: the task must stop.
    pub fn refused(&mut self, refusable: Refusable, reason: &str) -> Result<Record, EventError> {
        let Refusable { subject, provenance, attempt, topic, key, table } = refusable;
        let error = EventError { table, stage: Stage::Produce, reason: reason.to_owned() };
        self.log(&error, &provenance, &|| subject.clone());
        self.tell(&error, &provenance);
        let Some(letters) = &mut self.dead_letters else { return Err(error) };
        let (topic, provenance) = (Some(topic), &provenance);
        let letter = DeadLetter { subject, provenance, topic, key, attempt };
        letters.failed(letter, Kind::Refused, &error)
    }
}
