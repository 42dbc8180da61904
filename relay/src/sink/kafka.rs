//! The Kafka sink: an idempotent producer that waits for all in-sync replicas, with bounded memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::Notify;

use super::refusal::refusal;
use super::topic_limits::{RecentLimits, TopicLimits};
use super::{Confirmation, Sink, SinkError};
use crate::progress::Sequence;
use crate::record::Record;
use crate::secret::Secret;

/// Records that may wait for their confirmation. Measured: more adds memory (librdkafka's default queue peaks at
/// 84 MB) and no throughput.
const IN_FLIGHT_RECORDS_MAX: usize = 12_000;

/// Bytes of keys, values and headers that may wait for their confirmation; a single record may be larger.
const IN_FLIGHT_BYTES_MAX: usize = 6 << 20;

/// What the lengths of a header's name and value take, at the most.
const HEADER_OVERHEAD: usize = 10;

/// Weights are told in these steps.
const WEIGHT_UNIT: usize = 64;

/// Sequences of a task fit in: at 100,000 records a second for two years and nine months.
const SEQUENCE_BITS: u32 = 43;
const SEQUENCE_MASK: usize = (1 << SEQUENCE_BITS) - 1;

/// 128 MiB, more than [`MESSAGE_BYTES_MAX`] lets pass.
const WEIGHT_UNITS_MAX: usize = (1 << (usize::BITS - SEQUENCE_BITS)) - 1;

/// librdkafka's own limits stand far above ours: it counts a record until some time after it told of the delivery,
/// and refuses a record that is larger than its queue for ever.
const QUEUE_MESSAGES_MAX: &str = "100000";
const QUEUE_KBYTES_MAX: &str = "2097151";

/// Largest request in bytes. The limit for a record is the topic's `max.message.bytes`: the broker decides, so
/// that an operator changes one setting, not two.
const MESSAGE_BYTES_MAX: &str = "104857600";

/// Records travel in convoys: one is on its way while the next gathers. librdkafka has one request for a partition
/// under way, and asks the socket without a pause whether it may send the next as soon as it holds a record for one
/// (measured: 400,000 calls of `poll` for 100,000 records, and requests too small to be worth the broker's time).
///
/// Without load a convoy leaves at once. One of this many records is a sign of load: then the next one waits for more.
const CONVOY_OF_LOAD: usize = 64;

/// Under load a convoy leaves when it has this many records, or after [`GATHER_TIME`].
const CONVOY_RECORDS: usize = 500;

/// How long a convoy gathers under load.
const GATHER_TIME: Duration = Duration::from_millis(5);

/// The next convoy leaves after this time, even if the one before has not arrived: partitions whose leader is well
/// should not wait for one whose leader is away.
const CONVOY_TIME_MAX: Duration = Duration::from_millis(100);

/// A broker that does not answer is dialled anew: as long as Kafka's Java clients wait, half of librdkafka's time.
pub(super) const SOCKET_TIMEOUT: Duration = Duration::from_secs(30);

/// A Kafka producer as a sink.
pub struct KafkaSink {
    producer: ThreadedProducer<Deliveries>,
    shared: Arc<Shared>,
    /// The next convoy: records and their [`opaque`].
    gathering: VecDeque<(usize, Record)>,
    gathering_since: Instant,
    is_under_load: bool,
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
    in_flight_records: AtomicUsize,
    on_their_way: AtomicUsize,
    in_flight_bytes: AtomicUsize,
    /// The record in flight travels alone.
    alone: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Confirmation>> {
        // Nothing panics while it is held, and a list of confirmations is whole after each push.
        self.confirmations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record that is alone is taken whatever its size: the broker decides about it.
    fn has_room(&self, bytes: usize, alone: bool) -> bool {
        let records = self.in_flight_records.load(Ordering::Relaxed);
        let held = self.in_flight_bytes.load(Ordering::Relaxed);
        records == 0
            || (!alone
                && !self.alone.load(Ordering::Relaxed)
                && records < IN_FLIGHT_RECORDS_MAX
                && held + bytes <= IN_FLIGHT_BYTES_MAX)
    }

    fn taken(&self, bytes: usize, alone: bool) {
        self.alone.store(alone, Ordering::Relaxed);
        self.in_flight_records.fetch_add(1, Ordering::Relaxed);
        self.in_flight_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn leaves(&self) {
        self.on_their_way.fetch_add(1, Ordering::Relaxed);
    }

    /// Frees the room of a record that left. True: the pipeline should know now, because the next convoy may leave, or
    /// because it may wait for room or for the end. For each single record it need not: whatever it does next, it takes
    /// all confirmations that there are, and two threads that wake each other for every record would take the time that
    /// the records need.
    fn released(&self, bytes: usize) -> bool {
        let records = self.in_flight_records.fetch_sub(1, Ordering::Relaxed) - 1;
        let on_their_way = self.on_their_way.fetch_sub(1, Ordering::Relaxed) - 1;
        let before = self.in_flight_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let crosses_half = before > IN_FLIGHT_BYTES_MAX / 2
            && before.saturating_sub(bytes) <= IN_FLIGHT_BYTES_MAX / 2;
        on_their_way == 0 || records == IN_FLIGHT_RECORDS_MAX / 2 || crosses_half
    }
}

/// What a record weighs in memory, in whole units: key, value and headers.
pub(super) fn weight(record: &Record) -> usize {
    let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    let headers = record.headers.iter();
    let headers = headers.map(|(name, value)| name.len() + length(value) + HEADER_OVERHEAD);
    let bytes = length(&record.key) + length(&record.value) + headers.sum::<usize>();
    bytes.div_ceil(WEIGHT_UNIT).min(WEIGHT_UNITS_MAX) * WEIGHT_UNIT
}

/// What librdkafka gives back with a record's delivery: its sequence and its weight in one number, so that nothing must be
/// looked up or measured again.
const fn opaque(sequence: Sequence, weight: usize) -> usize {
    ((weight / WEIGHT_UNIT) << SEQUENCE_BITS) | ((sequence as usize) & SEQUENCE_MASK)
}

const fn of_opaque(opaque: usize) -> (Sequence, usize) {
    ((opaque & SEQUENCE_MASK) as Sequence, (opaque >> SEQUENCE_BITS) * WEIGHT_UNIT)
}

/// Receives librdkafka's delivery reports on the producer's thread.
#[derive(Clone)]
struct Deliveries {
    shared: Arc<Shared>,
    limits: TopicLimits,
}

impl ClientContext for Deliveries {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        // librdkafka retries by itself: what it says of brokers that are away is no error of the relay.
        tracing::debug!(kafka.facility = facility, kafka.level = ?level, "librdkafka: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(error = %error, "Kafka is not reachable as it should be, retrying: {reason}");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let (outcome, message) = match result {
            Ok(message) => (Ok(()), message),
            Err((error, message)) => (Err(refusal(error, message.topic())), message),
        };
        let failed = outcome.is_err();
        let (sequence, bytes) = of_opaque(opaque);
        self.shared.lock().push(Confirmation { sequence, outcome });
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
        let context = Deliveries { shared: Arc::clone(&shared), limits: limits.clone() };
        let producer = ThreadedProducer::from_config_and_context(&config, context)
            .map_err(|error| SinkError::Configuration { reason: without_value(&error) })?;
        let now = Instant::now();
        Ok(Self {
            producer,
            shared,
            gathering: VecDeque::new(),
            gathering_since: now,
            is_under_load: false,
            left_at: now,
            limits,
            recent_limits: RecentLimits::default(),
            asked: None,
        })
    }
}

impl KafkaSink {
    fn weigh(&mut self, record: &Record) -> Weighed {
        let bytes = weight(record);
        let alone = self.limits.may_refuse(&mut self.recent_limits, &record.topic, bytes);
        Weighed { bytes, alone }
    }

    fn send(&self, opaque: usize, record: &Record) -> Result<(), KafkaError> {
        let mut base = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&record.topic, opaque);
        base.key = record.key.as_deref();
        base.payload = record.value.as_deref();
        base.partition = record.partition;
        base.timestamp = record.timestamp;
        base.headers = headers(record);
        self.producer.send(base).map_err(|(error, _)| error)
    }

    /// When the next convoy leaves, if nothing happens before; none is gathering: `None`.
    fn waits_until(&self) -> Option<Instant> {
        let records = self.gathering.len();
        let is_under_way = self.shared.on_their_way.load(Ordering::Relaxed) > 0;
        let behind = is_under_way.then(|| self.left_at + CONVOY_TIME_MAX);
        let gathers = self.is_under_load && records < CONVOY_RECORDS;
        let gathered = gathers.then(|| self.gathering_since + GATHER_TIME);
        (records > 0).then(|| behind.max(gathered).unwrap_or(self.left_at))
    }

    /// Hands the next convoy to librdkafka.
    fn leave(&mut self) {
        self.is_under_load = self.gathering.len() >= CONVOY_OF_LOAD;
        self.left_at = Instant::now();
        while let Some((opaque, record)) = self.gathering.pop_front() {
            // Counted before it is sent: its delivery may be told before `send` returns.
            self.shared.leaves();
            match self.send(opaque, &record) {
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
        let outcome = Err(refusal(error, &record.topic));
        self.shared.lock().push(Confirmation { sequence, outcome });
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
            CONVOY_RECORDS.. => self.hand_over(),
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
        confirmations.append(&mut self.shared.lock());
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

pub(super) fn headers(record: &Record) -> Option<OwnedHeaders> {
    if record.headers.is_empty() {
        return None;
    }
    let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
    for (name, value) in &record.headers {
        headers = headers.insert(Header { key: name, value: value.as_deref() });
    }
    Some(headers)
}

/// librdkafka's configuration: the guarantees are fixed, the rest can be tuned.
///
/// # Errors
/// When an override would weaken the guarantees.
pub(super) fn producer_config(
    bootstrap_servers: &str,
    overrides: &BTreeMap<String, Secret>,
) -> Result<ClientConfig, SinkError> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap_servers)
        .set("client.id", "outbox-relay")
        // Latency first: what is handed over leaves at once.
        .set("linger.ms", "0")
        .set("queue.buffering.max.messages", QUEUE_MESSAGES_MAX)
        .set("queue.buffering.max.kbytes", QUEUE_KBYTES_MAX)
        .set("message.max.bytes", MESSAGE_BYTES_MAX)
        // As Connect does for sources: a broker that is away is waited for, however long.
        .set("message.timeout.ms", "0")
        .set("socket.timeout.ms", SOCKET_TIMEOUT.as_millis().to_string())
        // And it is dialled once a second while it is away, not every ten.
        .set("reconnect.backoff.max.ms", "1000")
        // Java's partitioner: a key stays on its partition when the relay takes Debezium's place.
        .set("partitioner", "murmur2_random")
        // A reader of one record needs no statistics, and no reports beyond the sequence number.
        .set("delivery.report.only.error", "false");
    for (name, value) in overrides {
        match java_property(name) {
            Some(librdkafka_name) => {
                config.set(librdkafka_name, value.expose());
            }
            None => {
                tracing::info!(
                    kafka.property = name,
                    "a property of Kafka's Java producer has no counterpart here and no effect"
                );
            }
        }
    }
    config.set("enable.idempotence", "true").set("acks", "all");
    for fixed in ["enable.idempotence", "acks"] {
        let weaker = |value: &Secret| !matches!(value.expose(), "true" | "all" | "-1");
        if overrides.get(fixed).is_some_and(weaker) {
            let reason = format!(
                "`producer.override.{fixed}` would let events get lost or out of order; remove it"
            );
            return Err(SinkError::Configuration { reason });
        }
    }
    Ok(config)
}

/// librdkafka's name for a property of Kafka's Java producer; `None` where it has none.
fn java_property(name: &str) -> Option<&str> {
    match name {
        "buffer.memory"
        | "max.block.ms"
        | "key.serializer"
        | "value.serializer"
        | "interceptor.classes"
        | "metric.reporters"
        | "partitioner.class"
        | "max.request.size"
        | "sasl.jaas.config" => None,
        // A record that times out would be overtaken by later ones of its key; a broker that is away is waited for.
        "delivery.timeout.ms" | "message.timeout.ms" => None,
        // The sink's own limits bound the memory.
        "queue.buffering.max.messages" | "queue.buffering.max.kbytes" => None,
        "compression.type" => Some("compression.codec"),
        "max.in.flight.requests.per.connection" => Some("max.in.flight"),
        other => Some(other),
    }
}

/// rdkafka's own text of a refused property shows the value, which may be a password.
pub(super) fn without_value(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, _, key, _) => {
            format!("librdkafka does not take the property `{key}` or its value")
        }
        other => other.to_string(),
    }
}

impl Drop for KafkaSink {
    fn drop(&mut self) {
        // Records that are still queued belong to nobody: they were not acknowledged and will be read again.
        self.producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(options: &[(&str, &str)]) -> BTreeMap<String, Secret> {
        let secret = |value: &str| Secret::new(value.to_owned());
        options.iter().map(|(name, value)| ((*name).into(), secret(value))).collect()
    }

    #[test]
    fn a_refused_property_does_not_show_its_value() {
        let bad = overrides(&[("no.such.property", "a-secret")]);
        let Err(error) = KafkaSink::start("localhost:1", &bad) else { panic!("taken") };
        assert!(error.to_string().contains("no.such.property"), "{error}");
        assert!(!format!("{error} {error:?}").contains("a-secret"));
    }

    #[test]
    fn a_delivery_gives_back_what_was_published() {
        let header = ("id".to_owned(), Some(vec![0; 1 << 20]));
        let record = Record { key: Some(vec![1]), headers: vec![header], ..Record::default() };
        let weight = weight(&record);
        assert!(weight >= 1 << 20, "headers take memory, too");
        let sequence = (1 << 42) + 5;
        assert_eq!(of_opaque(opaque(sequence, weight)), (sequence, weight));
    }

    #[test]
    fn a_record_that_is_larger_than_the_limit_is_taken_alone() {
        let shared = Shared::default();
        assert!(shared.has_room(IN_FLIGHT_BYTES_MAX + 1, true));
        shared.taken(IN_FLIGHT_BYTES_MAX + 1, true);
        shared.leaves();
        assert!(!shared.has_room(1, false));
        shared.released(IN_FLIGHT_BYTES_MAX + 1);
        assert!(shared.has_room(1, false));
    }

    #[test]
    fn the_guarantees_cannot_be_tuned_away() {
        let weak = producer_config("localhost:1", &overrides(&[("acks", "1")]));
        assert!(matches!(weak, Err(SinkError::Configuration { .. })));
        let weak = producer_config("localhost:1", &overrides(&[("enable.idempotence", "false")]));
        assert!(matches!(weak, Err(SinkError::Configuration { .. })));
        let config = producer_config("localhost:1", &overrides(&[("acks", "all")])).unwrap();
        assert_eq!(config.get("enable.idempotence"), Some("true"));
    }

    #[test]
    fn names_of_the_java_producer_are_understood() {
        let tuned = overrides(&[("compression.type", "lz4"), ("buffer.memory", "1")]);
        let config = producer_config("localhost:1", &tuned).unwrap();
        assert_eq!(config.get("compression.codec"), Some("lz4"));
        assert_eq!(config.get("buffer.memory"), None);
    }
}
