//! The Kafka sink: an idempotent producer that waits for all in-sync replicas, with bounded memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use tokio::sync::Notify;

use super::deliveries::{Delivered, Deliveries};
use super::in_flight::InFlight;
use super::kafka_record::{of_opaque, opaque, to_send, weight};
use super::producer_config::producer_config;
use super::producers::Producers;
use super::refusal::refusal;
use super::topic_limits::{RecentLimits, TopicLimits};
use super::{Confirmation, Sink, SinkError};
use crate::progress::Sequence;
use crate::record::Record;
use crate::secret::Secret;

/// Records travel in convoys: one is on its way while the next gathers, as librdkafka has one request for a partition
/// under way.
///
/// Without load a convoy leaves at once. One of this many records is a sign of load: then the next one waits for more.
const CONVOY_OF_LOAD: usize = 64;

/// Under load a convoy leaves when it has this many records, or after a while; it has no more. So many of the usual
/// size fit one request, and make the way there and back worth it: on two busy processors that takes 10 to 20 ms,
/// whatever a request holds.
const CONVOY_RECORDS: usize = 1_792;

/// While more gather, every so many records is a look whether the convoy before has arrived.
const LOOK_RECORDS: usize = 64;

/// How long a convoy gathers under load, and how long after one that was full.
const GATHER_TIME: Duration = Duration::from_millis(5);
const GATHER_TIME_AFTER_FULL: Duration = Duration::from_millis(20);

/// The next convoy leaves after this time, even if the one before has not arrived: partitions whose leader is well
/// should not wait for one whose leader is away.
const CONVOY_TIME_MAX: Duration = Duration::from_millis(100);

/// A Kafka producer as a sink.
pub struct KafkaSink {
    producers: Producers<Deliveries<Hearer>>,
    shared: Arc<Shared>,
    /// The next convoy: records and their [`opaque`].
    gathering: VecDeque<(usize, Record)>,
    gathering_since: Instant,
    /// Records of the last convoy.
    last_convoy: usize,
    left_at: Instant,
    limits: TopicLimits,
    recent_limits: RecentLimits,
    /// The record that was asked for last, so that it is weighed once.
    asked: Option<Weighed>,
}

/// What a record weighs, and whether its topic may refuse it for that.
#[derive(Debug, Clone, Copy)]
struct Weighed {
    bytes: usize,
    alone: bool,
}

/// What the producer's thread hands over to the pipeline.
#[derive(Default)]
struct Shared {
    confirmations: Mutex<Vec<Confirmation>>,
    arrived: Arc<Notify>,
    /// Records that were taken, and those of them that left.
    in_flight: InFlight,
    on_their_way: AtomicUsize,
    /// The record in flight travels alone.
    alone: AtomicBool,
    /// A record was refused, and the caller does not know yet: nothing may leave behind it.
    refused: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Confirmation>> {
        // Nothing panics while it is held, and a list of confirmations is whole after each push.
        self.confirmations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, sequence: Sequence, outcome: Result<(), SinkError>) {
        let mut confirmations = self.lock();
        if outcome.is_err() {
            self.refused.store(true, Ordering::Release);
        }
        confirmations.push(Confirmation { sequence, outcome });
    }

    /// A record that is alone is taken whatever its size: the broker decides about it.
    fn has_room(&self, bytes: usize, alone: bool) -> bool {
        let is_empty = self.in_flight.records() == 0;
        let shares = !alone && !self.alone.load(Ordering::Relaxed);
        is_empty || (shares && self.in_flight.has_room(bytes))
    }

    fn taken(&self, bytes: usize, alone: bool) {
        self.alone.store(alone, Ordering::Relaxed);
        self.in_flight.take(bytes);
    }

    fn leaves(&self) {
        self.on_their_way.fetch_add(1, Ordering::Relaxed);
    }

    /// Frees the room of a record that left. True: the pipeline should know now, because the next convoy may leave, or
    /// because it may wait for room or for the end. Whatever it does next, it takes all confirmations that there are.
    fn released(&self, bytes: usize) -> bool {
        let has_arrived = self.on_their_way.fetch_sub(1, Ordering::AcqRel) == 1;
        self.in_flight.release(bytes) || has_arrived
    }
}

/// Receives librdkafka's delivery reports on the producer's thread.
#[derive(Clone)]
struct Hearer {
    shared: Arc<Shared>,
    limits: TopicLimits,
}

impl Delivered for Hearer {
    fn delivered(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let (outcome, message) = match result {
            Ok(message) => (Ok(()), message),
            Err((error, message)) => (Err(refusal(error, message.topic())), message),
        };
        let failed = outcome.is_err();
        let (sequence, bytes) = of_opaque(opaque);
        self.shared.tell(sequence, outcome);
        let limited = self.limits.is_counting() && self.limits.release(message.topic(), bytes);
        if self.shared.released(bytes) || failed || limited {
            self.shared.arrived.notify_one();
        }
    }
}

impl KafkaSink {
    /// Starts a producer. `overrides` are properties of Kafka's Java producer or of librdkafka; none may weaken the
    /// guarantees.
    ///
    /// # Errors
    /// When librdkafka refuses a property, or one would weaken the guarantees.
    pub fn start(
        bootstrap_servers: &str,
        overrides: &BTreeMap<String, Secret>,
    ) -> Result<Self, SinkError> {
        let shared = Arc::new(Shared::default());
        let config = producer_config(bootstrap_servers, overrides)?;
        let limits = TopicLimits::new(&config, Arc::clone(&shared.arrived));
        let hearer = Hearer { shared: Arc::clone(&shared), limits: limits.clone() };
        let tuned = overrides.keys().map(String::as_str);
        let producers = Producers::start(&config, tuned, CONVOY_RECORDS, Deliveries(hearer))?;
        let now = Instant::now();
        Ok(Self {
            producers,
            shared,
            gathering: VecDeque::new(),
            gathering_since: now,
            last_convoy: 0,
            left_at: now,
            limits,
            recent_limits: RecentLimits::default(),
            asked: None,
        })
    }

    fn weigh(&mut self, record: &Record) -> Weighed {
        let bytes = weight(record);
        let alone = self.limits.may_refuse(&mut self.recent_limits, &record.topic, bytes);
        Weighed { bytes, alone }
    }

    /// When the next convoy leaves, if nothing happens before; none is gathering: `None`.
    fn waits_until(&self) -> Option<Instant> {
        let records = self.gathering.len();
        let is_under_way = self.shared.on_their_way.load(Ordering::Relaxed) > 0;
        let behind = is_under_way.then(|| self.left_at + CONVOY_TIME_MAX);
        let gather_time = match self.last_convoy {
            _ if records >= CONVOY_RECORDS => None,
            ..CONVOY_OF_LOAD => None,
            CONVOY_OF_LOAD..CONVOY_RECORDS => Some(GATHER_TIME),
            _ => Some(GATHER_TIME_AFTER_FULL),
        };
        let gathered = gather_time.map(|time| self.gathering_since + time);
        (records > 0).then(|| behind.max(gathered).unwrap_or(self.left_at))
    }

    /// Hands the next convoy to librdkafka.
    fn leave(&mut self) {
        self.last_convoy = self.gathering.len().min(CONVOY_RECORDS);
        self.left_at = Instant::now();
        if self.shared.on_their_way.load(Ordering::Acquire) == 0 {
            self.producers.choose(self.last_convoy == CONVOY_RECORDS);
        }
        for _ in 0..CONVOY_RECORDS {
            if self.shared.refused.load(Ordering::Acquire) {
                return;
            }
            let Some((opaque, record)) = self.gathering.pop_front() else { return };
            // Counted before it is sent: its delivery may be told before `send` returns.
            self.shared.leaves();
            match self.producers.send(to_send(&record, opaque)) {
                Ok(()) => {}
                // Its limits stand above ours, so that this passes by itself.
                Err(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) => {
                    self.shared.on_their_way.fetch_sub(1, Ordering::Relaxed);
                    self.gathering.push_front((opaque, record));
                    return;
                }
                Err(error) => self.refuse(opaque, &error, &record),
            }
        }
    }

    /// A record that librdkafka does not take at all is refused like one that the broker does not take.
    fn refuse(&self, opaque: usize, error: &KafkaError, record: &Record) {
        let (sequence, bytes) = of_opaque(opaque);
        self.limits.release(&record.topic, bytes);
        self.shared.released(bytes);
        self.shared.tell(sequence, Err(refusal(error, &record.topic)));
        self.shared.arrived.notify_one();
    }
}

impl Sink for KafkaSink {
    fn has_room(&mut self, record: &Record) -> bool {
        let Weighed { bytes, alone } = self.weigh(record);
        self.asked = Some(Weighed { bytes, alone });
        self.shared.has_room(bytes, alone) && self.limits.has_room(&record.topic, bytes)
    }

    fn publish(&mut self, sequence: Sequence, record: Record) {
        let asked = self.asked.take();
        let Weighed { bytes, alone } = asked.unwrap_or_else(|| self.weigh(&record));
        self.shared.taken(bytes, alone);
        self.limits.take(&record.topic, bytes);
        self.gathering.push_back((opaque(sequence, bytes), record));
        match self.gathering.len() {
            1 => self.gathering_since = Instant::now(),
            CONVOY_RECORDS.. if self.gathering.len().is_multiple_of(LOOK_RECORDS) => {
                self.hand_over()
            }
            _ => {}
        }
    }

    fn hand_over(&mut self) {
        if self.waits_until().is_some_and(|due| due <= Instant::now()) {
            self.leave();
        }
    }

    fn travels_alone(&mut self, record: &Record) -> bool {
        self.weigh(record).alone
    }

    fn take_confirmations(&mut self, confirmations: &mut Vec<Confirmation>) {
        let mut told = self.shared.lock();
        // From here on the caller knows of every refusal: it stops, or what it publishes next takes the place of the
        // one.
        self.shared.refused.store(false, Ordering::Release);
        confirmations.append(&mut told);
    }

    async fn confirmed(&mut self) {
        self.hand_over();
        // A permit is kept when the notification comes before this wait. One may be left over from confirmations that
        // were taken already: then there is nothing to take, which costs a turn of the caller's loop.
        let arrived = self.shared.arrived.notified();
        match self.waits_until() {
            // Whether it was this or that, the caller hands over in its next turn.
            Some(due) => drop(tokio::time::timeout_at(due.into(), arrived).await),
            None => arrived.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_property_does_not_show_its_value() {
        let secret = Secret::new("a-secret".to_owned());
        let bad = BTreeMap::from([("no.such.property".to_owned(), secret)]);
        let Err(error) = KafkaSink::start("localhost:1", &bad) else { panic!("taken") };
        assert!(error.to_string().contains("no.such.property"), "{error}");
        assert!(!format!("{error} {error:?}").contains("a-secret"));
    }

    #[test]
    fn nothing_leaves_behind_a_refusal_that_the_caller_does_not_know_of() {
        let Ok(mut sink) = KafkaSink::start("localhost:1", &BTreeMap::new()) else {
            panic!("no sink")
        };
        sink.shared.in_flight.take(0);
        sink.shared.tell(1, Err(SinkError::Producer { reason: "it failed".to_owned() }));
        sink.publish(2, Record { topic: "events".to_owned(), ..Record::default() });
        sink.hand_over();
        assert_eq!(sink.shared.on_their_way.load(Ordering::Relaxed), 0);
        let mut told = Vec::new();
        sink.take_confirmations(&mut told);
        assert!(told[0].outcome.is_err());
        sink.hand_over();
        assert_eq!(sink.shared.on_their_way.load(Ordering::Relaxed), 1);
    }
}
