//! Where records go, and what every sink must do.
//!
//! A sink takes records in order and confirms each one when it is stored for good:
//!
//! 1. [`Sink::publish`] never waits. Whether there is room for a record is asked before.
//! 2. Records of one key reach the destination in the order in which they were published, retries included.
//! 3. Each record that was taken is confirmed or refused once, in any order, never before it is stored.
//! 4. Memory is bounded by the sink's own limits, whatever the destination does.
//! 5. A record that the destination is likely to refuse (for its size) is not followed by another before its answer is
//!    there, so that no later record of its key overtakes it. After any refusal the caller stops, or what it publishes
//!    next takes the place of the refused record (its dead letter): until then nothing more is handed over.
//!
//! A transactional sink confirms what belongs together at once, when [`Sink::commit`] has made it visible.

mod bounded;
pub(crate) mod clients;
mod deliveries;
pub(crate) mod hasty;
mod in_flight;
pub mod kafka;
mod kafka_record;
pub mod memory;
mod producer_config;
mod producers;
mod refusal;
pub mod stored_position;
mod topic_limits;
pub mod transactional;

use crate::progress::Sequence;
use crate::record::Record;
use crate::source_offset::SourceOffset;

/// What the sink says of a record that it had taken.
#[derive(Debug)]
pub struct Confirmation {
    /// The number under which it was published.
    pub sequence: Sequence,
    /// Stored, or why it never will be.
    pub outcome: Result<(), SinkError>,
}

/// Why the sink cannot store records.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SinkError {
    /// This record will not be stored, whatever is tried.
    #[error("Kafka refuses a record for topic \"{topic}\": {reason}")]
    Record {
        /// The record's topic.
        topic: String,
        /// Why, and what to do.
        reason: String,
    },
    /// No record can be stored in this topic as it is.
    #[error("Kafka refuses a record for topic \"{topic}\": {reason}")]
    Topic {
        /// The record's topic.
        topic: String,
        /// Why, and what to do.
        reason: String,
    },
    /// Dead letters cannot be kept, or not be read.
    #[error("the dead letter topic \"{topic}\" cannot be used: {reason}")]
    DeadLetters {
        /// The topic.
        topic: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The producer cannot go on; a new one may.
    #[error("the Kafka producer cannot go on: {reason}")]
    Producer {
        /// What librdkafka said.
        reason: String,
    },
    /// Somebody else writes for this connector now.
    #[error(
        "another producer with the transactional.id \"{transactional_id}\" has taken over: {reason}; nothing of what \
         this one had not committed is visible"
    )]
    Fenced {
        /// The connector's.
        transactional_id: String,
        /// What librdkafka said.
        reason: String,
    },
    /// A transaction took longer than Kafka lets it.
    #[error("a Kafka transaction was not committed within its transaction.timeout.ms: {reason}")]
    TransactionTimeout {
        /// How large it was, and what to do.
        reason: String,
    },
    /// The sink cannot be set up as configured.
    #[error("the Kafka producer cannot be started: {reason}")]
    Configuration {
        /// What is wrong.
        reason: String,
    },
}

/// What a sink that keeps the position found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// The position that was committed last; none: nothing was yet.
    pub position: Option<SourceOffset>,
}

/// A destination for records.
pub trait Sink {
    /// Whether the record can be taken now; otherwise confirmations make room for it.
    fn has_room(&mut self, record: &Record) -> bool;

    /// Takes the record for which there was room when it was asked last. It may gather with others until
    /// [`Self::hand_over`].
    fn publish(&mut self, sequence: Sequence, record: Record);

    /// What was taken need not wait for records that are still to come.
    fn hand_over(&mut self);

    /// Whether the destination is likely to refuse a record: then it is followed by another one only when its answer is
    /// there.
    fn travels_alone(&mut self, _record: &Record) -> bool {
        false
    }

    /// Appends the confirmations that there are, without waiting.
    fn take_confirmations(&mut self, confirmations: &mut Vec<Confirmation>);

    /// Makes sure that nobody else writes for this connector, and gives the position that was committed last. `None`:
    /// this sink confirms each record by itself, and keeps no position.
    ///
    /// # Errors
    /// When the destination is away or does not allow it.
    fn open(&mut self) -> impl Future<Output = Result<Option<Committed>, SinkError>> + Send {
        std::future::ready(Ok(None))
    }

    /// Lets everything that was published since the last commit, and the position with it, become visible at once. It
    /// is confirmed under this one number; until then there is no room for more.
    fn commit(&mut self, _sequence: Sequence, _position: Option<&SourceOffset>) {}

    /// Gives up what was published and not committed. It may block, for a bounded time.
    fn close(self)
    where
        Self: Sized,
    {
    }

    /// Hands over, then waits until there is room again, everything is confirmed, or a record was refused; it may also
    /// return without a reason. Cancel safe.
    fn confirmed(&mut self) -> impl Future<Output = ()> + Send;
}
