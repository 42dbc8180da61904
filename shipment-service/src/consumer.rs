//! The sentence of this service: receive a message, handle it, then commit its offset.
//!
//! One message is in work at a time, so the order of each partition is kept whatever fails. Offsets are *stored* when
//! the transaction of the message has committed, and stored offsets are committed once a second, when partitions are
//! taken, and at the end. A crash between the two replays at most a second of messages, and the message log knows
//! them.
//!
//! A message that takes long (the database is away) must not cost the membership of the group, which librdkafka ends
//! when nobody polls. So after a moment the partitions are paused, and the loop goes on polling beside the work.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::assignment::{self, Assignment};
use crate::config::Config;
use crate::handler::{Handler, Outcome};
use crate::health::{Stage, Vitals};
use crate::kafka;
use crate::message::{Header, Message};

/// How often offsets are committed and the loop shows that it is alive.
const TICK: Duration = Duration::from_secs(1);
/// A message in work for longer than this makes the loop pause its partitions and poll beside the work. Far below
/// `max.poll.interval.ms` (five minutes); far above the milliseconds of a usual message.
const PATIENCE: Duration = Duration::from_secs(1);
/// A message in work for longer than this is held: an attempt has been given up meanwhile, by MySQL or the dead letter topic,
/// and the log has said why. Longer than one attempt of either may take.
const HELD: Duration = Duration::from_secs(12);
/// How long the message in work may go on after the stop signal. With the two below it stays under ten seconds.
const GRACE: Duration = Duration::from_secs(4);
const LAST_COMMIT_TIMEOUT: Duration = Duration::from_secs(2);
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a broker may take to answer the question whether it is back.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// What was done until the stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drained {
    pub(crate) handled: u64,
    pub(crate) duplicates: u64,
    pub(crate) dead_letters: u64,
    /// Whether the message in work was given up because it took too long. It will come again.
    pub(crate) abandoned: bool,
}

/// A message, and how often its partition had been taken from us when it came: its assignment.
struct Received {
    message: Message,
    revocations: u64,
}

impl Received {
    /// Whether its partition has stayed ours since it came.
    fn is_ours(&self, assignment: &Assignment) -> bool {
        assignment.revocations(self.message.partition) == self.revocations
    }
}

/// Consumes the order topic.
pub(crate) struct Consumer {
    kafka: Arc<StreamConsumer<Assignment>>,
    topic: String,
    handler: Arc<Handler>,
    vitals: Arc<Vitals>,
    /// Messages that came in spite of the pause; they are next.
    waiting: VecDeque<Received>,
    tick: Interval,
    drained: Drained,
    probe: Option<JoinHandle<()>>,
}

impl Consumer {
    /// Creates the client and subscribes. It connects and joins the group in the background.
    ///
    /// # Errors
    /// A setting that librdkafka refuses.
    pub(crate) fn subscribe(
        config: &Config,
        handler: Handler,
        vitals: Arc<Vitals>,
    ) -> anyhow::Result<Consumer> {
        let kafka: StreamConsumer<Assignment> =
            client_config(config).create_with_context(Assignment::new(Arc::clone(&vitals)))?;
        vitals.beat();
        vitals.enter(Stage::Joining);
        kafka.subscribe(&[&config.order_topic])?;
        tracing::info!(
            kafka.topic = config.order_topic,
            kafka.group = config.group_id,
            "Consuming"
        );
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Consumer {
            kafka: Arc::new(kafka),
            topic: config.order_topic.clone(),
            handler: Arc::new(handler),
            vitals,
            waiting: VecDeque::new(),
            tick,
            drained: Drained::default(),
            probe: None,
        })
    }

    /// Consumes until the stop signal, then drains: the message in work, the offsets, the membership.
    ///
    /// # Errors
    /// librdkafka can't go on and says so.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<Drained> {
        while !stop.is_cancelled() {
            // Ranked: stopping goes first, the tick must not starve under load, messages are the rest.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = self.tick.tick() => self.on_tick(),
                received = receive(&mut self.waiting, &self.kafka) => match received {
                    Ok(received) => self.finish(received, &stop).await?,
                    Err(error) => self.on_error(&error)?,
                },
            }
        }
        self.vitals.enter(Stage::Stopping);
        Ok(self.leave().await)
    }

    /// Handles one message, then stores its offset; or gives it up, because its partition was taken or the stop does
    /// not wait any longer. Given up means rolled back and not stored: the message comes again, to whoever owns it.
    async fn finish(&mut self, received: Received, stop: &CancellationToken) -> anyhow::Result<()> {
        self.kafka.context().kafka_answers();
        let handler = Arc::clone(&self.handler);
        let message = &received.message;
        let work = handler.handle(message);
        let grace = async {
            stop.cancelled().await;
            sleep(GRACE).await;
        };
        tokio::pin!(work, grace);
        let began = Instant::now();
        let mut paused = false;
        let kafka = Arc::clone(&self.kafka);
        let outcome = loop {
            // Ranked: a partition that is gone makes the rest pointless; the work; the end of patience at a stop; then
            // the polling that keeps us in the group, which only runs beside slow work.
            tokio::select! {
                biased;
                () = kafka.context().revocation() => {
                    if !received.is_ours(kafka.context()) {
                        tracing::info!(message.partition = message.partition, message.offset = message.offset,
                            "The partition of the message in work was taken: gave it up, its next owner handles it");
                        break None;
                    }
                }
                outcome = &mut work => break Some(outcome),
                () = &mut grace => {
                    self.drained.abandoned = true;
                    break None;
                }
                _ = self.tick.tick() => {
                    self.on_tick();
                    if !paused && began.elapsed() >= PATIENCE {
                        paused = true;
                        self.set_paused(true);
                    }
                    self.vitals.set_holding(began.elapsed() >= HELD);
                }
                next = kafka.recv(), if paused => match next {
                    Ok(next) => {
                        // From a partition that came after the pause, or was fetched before it.
                        self.waiting.push_back(owned(&next, kafka.context()));
                        self.set_paused(true);
                    }
                    Err(error) => self.on_error(&error)?,
                },
            }
        };
        if let Some(outcome) = outcome {
            self.store_offset(message, outcome);
        }
        if paused {
            self.set_paused(false);
        }
        self.vitals.set_holding(false);
        Ok(())
    }

    /// Notes that the message needs no second handling here. librdkafka refuses when its partition is not ours any
    /// more, so nothing is ever committed for another owner.
    fn store_offset(&mut self, message: &Message, outcome: Outcome) {
        match outcome {
            Outcome::Handled => self.drained.handled += 1,
            Outcome::Duplicate => self.drained.duplicates += 1,
            Outcome::DeadLettered => self.drained.dead_letters += 1,
        }
        let mut offsets = TopicPartitionList::with_capacity(1);
        let stored = offsets
            .add_partition_offset(
                &message.topic,
                message.partition,
                // A consumer offset is that of the next message.
                Offset::Offset(message.offset.saturating_add(1)),
            )
            .and_then(|()| self.kafka.store_offsets(&offsets));
        if let Err(error) = stored {
            tracing::info!(message.partition = message.partition, message.offset = message.offset, error = %error,
                "The offset of a handled message was not stored; the message log knows the message");
        }
    }

    fn set_paused(&self, paused: bool) {
        self.kafka.context().set_paused(paused);
        let applied = self.kafka.assignment().and_then(|partitions| {
            if paused { self.kafka.pause(&partitions) } else { self.kafka.resume(&partitions) }
        });
        if let Err(error) = applied {
            tracing::debug!(paused, error = %error, "The partitions can't be paused or resumed");
        }
    }

    fn on_tick(&mut self) {
        self.vitals.beat();
        assignment::commit(&*self.kafka);
        if self.vitals.kafka_away() && self.probe.as_ref().is_none_or(JoinHandle::is_finished) {
            // librdkafka tells when the last broker went, and not when one came back.
            let kafka = Arc::clone(&self.kafka);
            self.probe = Some(spawn_blocking(move || {
                if kafka.fetch_metadata(None, PROBE_TIMEOUT).is_ok() {
                    kafka.context().kafka_answers();
                }
            }));
        }
    }

    /// Errors that come in place of a message. librdkafka recovers from all but the fatal ones by itself.
    fn on_error(&self, error: &KafkaError) -> anyhow::Result<()> {
        match error {
            KafkaError::MessageConsumptionFatal(_) => {
                return Err(anyhow::anyhow!("the Kafka client can't go on: {error}"));
            }
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic,
            ) => {
                if self.vitals.stage() != Stage::WaitingForTopic {
                    self.vitals.enter(Stage::WaitingForTopic);
                    tracing::info!(
                        kafka.topic = self.topic,
                        "Waiting for the topic: its first event will create it"
                    );
                }
            }
            KafkaError::MessageConsumption(RDKafkaErrorCode::AllBrokersDown) => {
                self.kafka.context().kafka_is_away("all brokers are down");
            }
            error => {
                tracing::warn!(error = %error, "Kafka reports a problem; the client goes on trying")
            }
        }
        Ok(())
    }

    /// Commits and leaves the group, each within a bound: a Kafka that is away must not keep us.
    async fn leave(self) -> Drained {
        let kafka = Arc::clone(&self.kafka);
        let last_commit = spawn_blocking(move || kafka.commit_consumer_state(CommitMode::Sync));
        let offsets = match timeout(LAST_COMMIT_TIMEOUT, last_commit).await {
            Ok(Ok(Ok(()))) => "committed",
            Ok(Ok(Err(error)))
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::NoOffset) =>
            {
                "committed before"
            }
            _ => "not committed; the messages come again, and the message log knows them",
        };
        let drained = self.drained;
        // Dropping the last reference to the client closes it, which blocks.
        let last = Arc::strong_count(&self.kafka) == 1;
        let left = timeout(LEAVE_TIMEOUT, spawn_blocking(move || drop(self))).await.is_ok() && last;
        tracing::info!(
            drained.handled,
            drained.duplicates,
            drained.dead_letters,
            drained.abandoned,
            offsets,
            left_group = left,
            "Consumer stopped"
        );
        drained
    }
}

fn client_config(config: &Config) -> ClientConfig {
    let mut client = kafka::client_config(config, "shipment-service");
    client
        .set("group.id", &config.group_id)
        // A new group begins with the first event: no order is skipped because the service came late.
        .set("auto.offset.reset", "earliest")
        // Offsets are ours to store (after the transaction) and to commit (on the tick).
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // Events of an aborted Kafka transaction never happened.
        .set("isolation.level", "read_committed")
        // Partitions that stay are not taken and given back when an instance comes or goes.
        .set("partition.assignment.strategy", "cooperative-sticky")
        // The successor of an instance that was killed waits this long. Three heartbeats fit, so one may be late.
        .set("session.timeout.ms", config.session_timeout.as_millis().to_string())
        .set("heartbeat.interval.ms", (config.session_timeout / 3).as_millis().to_string())
        // The topic may be created after us, by its first event. A consumer that creates it would decide its number of
        // partitions; so we don't, and look for it every second instead. One small request.
        .set("allow.auto.create.topics", "false")
        .set("topic.metadata.refresh.interval.ms", "1000")
        .set("socket.timeout.ms", kafka::ANSWER_TIMEOUT_MILLIS)
        // The same for the first answer on a new connection, for which librdkafka waits half a minute.
        .set("socket.connection.setup.timeout.ms", kafka::ANSWER_TIMEOUT_MILLIS)
        // Bounds the memory for messages that wait for their turn. Kilobytes.
        .set("queued.max.messages.kbytes", "8192");
    client
}

/// The next message: one that waits and is still ours, or one from Kafka. Safe to drop: nothing is taken before it is
/// returned.
async fn receive(
    waiting: &mut VecDeque<Received>,
    kafka: &StreamConsumer<Assignment>,
) -> Result<Received, KafkaError> {
    while let Some(received) = waiting.pop_front() {
        if received.is_ours(kafka.context()) {
            return Ok(received);
        }
    }
    kafka.recv().await.map(|message| owned(&message, kafka.context()))
}

fn owned(message: &BorrowedMessage<'_>, assignment: &Assignment) -> Received {
    let headers = message.headers().map(|headers| {
        headers
            .iter()
            .map(|header| Header {
                name: header.key.to_owned(),
                value: header.value.map(<[u8]>::to_vec),
            })
            .collect()
    });
    let message = Message {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_millis: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
        value: message.payload().map(<[u8]>::to_vec),
    };
    Received { revocations: assignment.revocations(message.partition), message }
}
