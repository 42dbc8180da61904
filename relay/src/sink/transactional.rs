//! The Kafka sink of exactly-once mode: records and the position behind them in one Kafka transaction.
//!
//! A transaction is opened with its first record. It is committed when every record of it has been confirmed, which is
//! counted here: librdkafka's own wait for that goes in steps of 100 ms. Opening, reading back and committing block,
//! and run on the runtime's threads for such work.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{Producer, ThreadedProducer};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::bounded::{bounded, panicked};
use super::deliveries::{Delivered, Deliveries};
use super::in_flight::InFlight;
use super::kafka_record::{to_send, weight};
use super::producer_config::{SOCKET_TIMEOUT, producer_config, without_value};
use super::refusal::refusal;
use super::topic_limits::{RecentLimits, TopicLimits};
use super::{Committed, Confirmation, Sink, SinkError, stored_position};
use crate::connector_config::Transactions;
use crate::failpoint::{self, Step};
use crate::progress::Sequence;
use crate::record::Record;
use crate::secret::Secret;
use crate::source_offset::SourceOffset;

/// How long the brokers may take to end what another producer of this name has left open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// One attempt to commit; there are as many as fit into the transaction's timeout.
const COMMIT_ATTEMPT: Duration = Duration::from_secs(10);

/// Looks at whether the producer has put the last delivery away, and the time between two.
const PUT_AWAY_LOOKS_MAX: u32 = 100;
const PUT_AWAY_LOOK: Duration = Duration::from_micros(50);

/// How long giving up a transaction may take.
const ABORT_TIMEOUT: Duration = Duration::from_secs(3);

type Transactional = ThreadedProducer<Deliveries<Hearer>>;

/// A transactional producer as a sink.
pub struct TransactionalSink {
    producer: Arc<Transactional>,
    shared: Arc<Shared>,
    transactions: Transactions,
    config: ClientConfig,
    state: State,
    /// Records in the open transaction.
    records: u64,
    confirmations: Vec<Confirmation>,
    limits: TopicLimits,
    recent_limits: RecentLimits,
}

/// What the producer may be asked for.
enum State {
    /// Not opened yet.
    Closed,
    /// No transaction is open.
    Ready,
    /// Records may be added.
    Open { since: Instant },
    /// To be committed when everything is confirmed.
    Closing { since: Instant, sequence: Sequence },
    /// The commit is under way.
    Committing { since: Instant, sequence: Sequence, running: JoinHandle<Result<(), KafkaError>> },
    /// It cannot go on; another producer may.
    Failed,
}

/// What the producer's thread tells the sink.
#[derive(Default)]
struct Shared {
    refused: Mutex<Option<SinkError>>,
    arrived: Arc<Notify>,
    in_flight: InFlight,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<SinkError>> {
        // Nothing panics while it is held.
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Receives librdkafka's delivery reports on the producer's thread.
struct Hearer {
    shared: Arc<Shared>,
    limits: TopicLimits,
}

impl Delivered for Hearer {
    fn delivered(&self, result: &DeliveryResult<'_>, bytes: usize) {
        let (Ok(message) | Err((_, message))) = result;
        if let Err((error, _)) = result {
            let error = refusal(error, message.topic());
            let mut refused = self.shared.lock();
            // The refusal of a record ends the transaction, and with it the records behind: it is the one to tell.
            if refused.is_none() || is_of_record(&error) {
                *refused = Some(error);
            }
            drop(refused);
            self.shared.arrived.notify_one();
        }
        let limited = self.limits.is_counting() && self.limits.release(message.topic(), bytes);
        if self.shared.in_flight.release(bytes) || limited {
            self.shared.arrived.notify_one();
        }
    }
}

impl TransactionalSink {
    /// Prepares a producer; nothing is asked of the brokers yet.
    ///
    /// # Errors
    /// When librdkafka refuses a property, or one would weaken the guarantees.
    pub fn start(
        bootstrap_servers: &str,
        overrides: &BTreeMap<String, Secret>,
        transactions: &Transactions,
    ) -> Result<Self, SinkError> {
        if overrides.contains_key("transactional.id") {
            let reason = "`producer.override.transactional.id` cannot be set: the name fences an older task of this \
                          connector; remove it"
                .to_owned();
            return Err(SinkError::Configuration { reason });
        }
        let mut config = producer_config(bootstrap_servers, overrides)?;
        let timeout_ms = transactions.timeout.as_millis();
        let socket_timeout_ms = config.get("socket.timeout.ms").and_then(|set| set.parse().ok());
        let socket_timeout_ms = socket_timeout_ms.unwrap_or(SOCKET_TIMEOUT.as_millis());
        config
            .set("transactional.id", &transactions.transactional_id)
            .set("transaction.timeout.ms", timeout_ms.to_string())
            // librdkafka takes none that is longer than that of the transaction.
            .set("socket.timeout.ms", socket_timeout_ms.min(timeout_ms).to_string())
            // librdkafka allows no record to outlive its transaction: the timeout of the one is that of the other.
            .set("message.timeout.ms", timeout_ms.to_string());
        let shared = Arc::new(Shared::default());
        let limits = TopicLimits::new(&config, Arc::clone(&shared.arrived));
        let hearer = Hearer { shared: Arc::clone(&shared), limits: limits.clone() };
        let producer = ThreadedProducer::from_config_and_context(&config, Deliveries(hearer))
            .map_err(|error| SinkError::Configuration { reason: without_value(&error) })?;
        Ok(Self {
            producer: Arc::new(producer),
            shared,
            transactions: transactions.clone(),
            config,
            state: State::Closed,
            records: 0,
            confirmations: Vec::new(),
            limits,
            recent_limits: RecentLimits::default(),
        })
    }

    fn begin(&mut self) -> Result<Instant, SinkError> {
        match self.state {
            State::Open { since } => Ok(since),
            State::Failed => Err(SinkError::Producer { reason: "it has failed before".to_owned() }),
            _ => {
                let since = Instant::now();
                self.producer.begin_transaction().map_err(|error| self.failure(&error, since))?;
                self.records = 0;
                self.state = State::Open { since };
                Ok(since)
            }
        }
    }

    fn send(&self, record: &Record) -> Result<(), SinkError> {
        let bytes = weight(record);
        // Counted before it is sent: its delivery may be told before `send` returns.
        self.shared.in_flight.take(bytes);
        self.limits.take(&record.topic, bytes);
        let Err((error, _)) = self.producer.send(to_send(record, bytes)) else { return Ok(()) };
        self.limits.release(&record.topic, bytes);
        self.shared.in_flight.release(bytes);
        match error.rdkafka_error_code() {
            // The transaction is broken already: why, the deliveries of the records before tell.
            Some(RDKafkaErrorCode::State) if self.shared.in_flight.records() > 0 => Ok(()),
            Some(
                RDKafkaErrorCode::State | RDKafkaErrorCode::Fatal | RDKafkaErrorCode::QueueFull,
            ) => Err(self.failure(&error, self.since())),
            _ => Err(refusal(&error, &record.topic)),
        }
    }

    /// Publishes, in a transaction that is opened with its first record.
    fn add(&mut self, record: &Record) -> Result<(), SinkError> {
        self.begin()?;
        self.send(record)
    }

    /// The record of a position, as Kafka Connect writes it.
    fn position_record(&self, position: &SourceOffset) -> Result<Record, SinkError> {
        let value = serde_json::to_vec(position).map_err(|error| SinkError::Configuration {
            reason: format!("a position cannot be written: {error}"),
        })?;
        Ok(Record {
            topic: self.transactions.offset_topic.clone(),
            key: Some(self.transactions.offset_key.clone().into_bytes()),
            value: Some(value),
            ..Record::default()
        })
    }

    /// Nothing more can be done with this producer.
    fn fail(&mut self, error: SinkError, sequence: Sequence) {
        self.state = State::Failed;
        self.confirmations.push(Confirmation { sequence, outcome: Err(error) });
        self.shared.arrived.notify_one();
    }

    fn since(&self) -> Instant {
        match self.state {
            State::Open { since }
            | State::Closing { since, .. }
            | State::Committing { since, .. } => since,
            State::Closed | State::Ready | State::Failed => Instant::now(),
        }
    }

    /// Starts the commit when everything is confirmed.
    fn advance(&mut self) {
        let State::Closing { since, sequence } = self.state else { return };
        if self.shared.in_flight.records() > 0 || self.shared.lock().is_some() {
            return;
        }
        let producer = Arc::clone(&self.producer);
        let until = since + self.transactions.timeout;
        let running = tokio::task::spawn_blocking(move || commit(&producer, until));
        self.state = State::Committing { since, sequence, running };
    }

    fn ended(&mut self, outcome: Result<(), SinkError>, sequence: Sequence) {
        self.state = if outcome.is_ok() { State::Ready } else { State::Failed };
        self.confirmations.push(Confirmation { sequence, outcome });
    }

    /// What an error of the producer means; `since`: when the transaction was opened.
    fn failure(&self, error: &KafkaError, since: Instant) -> SinkError {
        let (code, reason) = match self.producer.client().fatal_error() {
            Some((code, reason)) => (Some(code), reason),
            None => (error.rdkafka_error_code(), error.to_string()),
        };
        if since.elapsed() >= self.transactions.timeout {
            let reason = format!(
                "{} records in {} s ({reason}). Nothing of it is visible. If Kafka was not away, raise \
                 producer.override.transaction.timeout.ms (and transaction.max.timeout.ms of the brokers), or let \
                 transaction.boundary be poll, with which a large database transaction is published in parts",
                self.records,
                since.elapsed().as_secs()
            );
            return SinkError::TransactionTimeout { reason };
        }
        match code {
            Some(
                RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch,
            ) => {
                let transactional_id = self.transactions.transactional_id.clone();
                SinkError::Fenced { transactional_id, reason }
            }
            Some(
                RDKafkaErrorCode::TransactionalIdAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::InvalidTransactionTimeout,
            ) => SinkError::Configuration {
                reason: format!(
                    "{reason}; grant WRITE and DESCRIBE on the transactional id \"{}\", and let \
                     transaction.timeout.ms be within the brokers' transaction.max.timeout.ms",
                    self.transactions.transactional_id
                ),
            },
            _ => SinkError::Producer { reason },
        }
    }

    fn read(&self) -> impl FnOnce() -> Result<Option<Vec<u8>>, SinkError> + Send + use<> {
        let (config, transactions) = (self.config.clone(), self.transactions.clone());
        move || stored_position::read(&config, &transactions.offset_topic, &transactions.offset_key)
    }
}

/// Commits, again where the brokers ask for that, as long as the transaction may be open.
fn commit(producer: &Transactional, until: Instant) -> Result<(), KafkaError> {
    // The last delivery was told, and may not be put away yet: a flush that finds it there waits for 100 ms.
    for _ in 0..PUT_AWAY_LOOKS_MAX {
        if producer.in_flight_count() == 0 {
            break;
        }
        std::thread::park_timeout(PUT_AWAY_LOOK);
    }
    failpoint::reached(Step::BeforeCommit);
    loop {
        match producer.commit_transaction(COMMIT_ATTEMPT) {
            Err(KafkaError::Transaction(error))
                if error.is_retriable() && Instant::now() < until => {}
            done => {
                failpoint::reached(Step::AfterCommit);
                return done;
            }
        }
    }
}

/// Whether a record, or the topic that it is for, is at fault.
const fn is_of_record(error: &SinkError) -> bool {
    matches!(error, SinkError::Record { .. } | SinkError::Topic { .. })
}

impl Sink for TransactionalSink {
    async fn open(&mut self) -> Result<Option<Committed>, SinkError> {
        let (producer, begun) = (Arc::clone(&self.producer), Instant::now());
        let init = move || producer.init_transactions(OPEN_TIMEOUT);
        let opened = bounded("opening transactions", OPEN_TIMEOUT * 2, init).await?;
        opened.map_err(|error| self.failure(&error, Instant::now()))?;
        // Only now: before, the one who wrote until now could still move it.
        let read_max = stored_position::TIMEOUT_MAX;
        let stored = bounded("reading the position back", read_max, self.read()).await??;
        let unreadable = |error: serde_json::Error| SinkError::Configuration {
            reason: format!(
                "the position that is stored for the connector cannot be read: {error}; stop the connector, correct or \
                 delete its offsets (PATCH or DELETE /connectors/<name>/offsets), and resume it"
            ),
        };
        let position = stored.map(|stored| serde_json::from_slice(&stored)).transpose();
        self.state = State::Ready;
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let transactional_id = &self.transactions.transactional_id;
        tracing::info!(kafka.transactional_id = transactional_id, took_ms, "transactions are open");
        Ok(Some(Committed { position: position.map_err(unreadable)? }))
    }

    fn has_room(&mut self, record: &Record) -> bool {
        let may_add = matches!(self.state, State::Ready | State::Open { .. });
        if !may_add || self.shared.lock().is_some() {
            return false;
        }
        let (topic, bytes) = (&record.topic, weight(record));
        // For what a topic takes at once: it is asked where it is not known.
        self.limits.may_refuse(&mut self.recent_limits, topic, bytes);
        self.shared.in_flight.has_room(bytes) && self.limits.has_room(topic, bytes)
    }

    fn publish(&mut self, sequence: Sequence, record: Record) {
        if record.topic == self.transactions.offset_topic {
            let (topic, reason) = (record.topic, "it holds the positions".to_owned());
            return self.fail(SinkError::Record { topic, reason }, sequence);
        }
        match self.add(&record) {
            Ok(()) => self.records += 1,
            Err(error) => self.fail(error, sequence),
        }
    }

    fn hand_over(&mut self) {}

    /// A refused record takes the whole transaction with it: nothing overtakes it, and nothing can take its place.
    fn travels_alone(&mut self, _record: &Record) -> bool {
        false
    }

    fn commit(&mut self, sequence: Sequence, position: Option<&SourceOffset>) {
        let begun = self.begin().and_then(|since| {
            let position = position.filter(|_| !failpoint::stores_no_position());
            let record = position.map(|position| self.position_record(position)).transpose()?;
            record.map_or(Ok(()), |record| self.send(&record)).map(|()| since)
        });
        match begun {
            Ok(since) => self.state = State::Closing { since, sequence },
            Err(error) => return self.fail(error, sequence),
        }
        self.advance();
    }

    fn take_confirmations(&mut self, confirmations: &mut Vec<Confirmation>) {
        self.advance();
        let since = self.since();
        if let Some(error) = self.shared.lock().take() {
            self.state = State::Failed;
            // librdkafka tells the end of a producer with each record that it took along.
            let outcome = match (error, self.producer.client().fatal_error()) {
                (error, None) if is_of_record(&error) => error,
                (_, Some((code, _))) => self.failure(&KafkaError::MessageProduction(code), since),
                (SinkError::Producer { reason }, None)
                    if since.elapsed() >= self.transactions.timeout =>
                {
                    let timed_out = RDKafkaErrorCode::MessageTimedOut;
                    tracing::debug!("a record was not delivered in time: {reason}");
                    self.failure(&KafkaError::MessageProduction(timed_out), since)
                }
                (error, None) => error,
            };
            self.confirmations.push(Confirmation { sequence: 0, outcome: Err(outcome) });
        }
        confirmations.append(&mut self.confirmations);
    }

    async fn confirmed(&mut self) {
        self.advance();
        if !self.confirmations.is_empty() {
            return;
        }
        let State::Committing { since, sequence, running } = &mut self.state else {
            // A permit is kept when the notification comes before this wait.
            return self.shared.arrived.notified().await;
        };
        let (since, sequence) = (*since, *sequence);
        let ended = running.await;
        let outcome = match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.failure(&error, since)),
            Err(_) => Err(panicked()),
        };
        self.ended(outcome, sequence);
    }

    fn close(self) {
        // What is left open holds back readers of committed records until it times out.
        if matches!(self.state, State::Open { .. } | State::Closing { .. } | State::Failed)
            && let Err(error) = self.producer.abort_transaction(ABORT_TIMEOUT)
        {
            tracing::debug!(%error, "the transaction was not given up; the next producer ends it");
        }
    }
}
