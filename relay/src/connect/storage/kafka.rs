//! Kafka for the storage topics: clients, waiting for the brokers, creating topics as Kafka Connect does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::anyhow;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::producer::FutureProducer;
use rdkafka::{ClientConfig, ClientContext};

use crate::config::{StorageTopic, WorkerConfig};
use crate::kafka_client;

/// One look at the cluster; short, so that a stop is heard and a broker that came up is seen soon.
const METADATA_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two looks while Kafka is away.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// Every this many looks a line says what is waited for.
const LOOKS_PER_LOG_LINE: u32 = 60;
/// How long creating and describing topics may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);
/// A storage record that the brokers do not take for this long fails the call that needed it.
const WRITE_TIMEOUT_MS: &str = "30000";
/// What Kafka Connect replicates to, where there are that many brokers.
const REPLICATION_WANTED: i32 = 3;

/// What every client of the storage topics begins with.
pub(super) fn client_config(worker: &WorkerConfig) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        // What it notices of its own accord; the context says it at the level debug.
        .set_log_level(RDKafkaLogLevel::Info)
        .set("bootstrap.servers", &worker.bootstrap_servers)
        .set("client.id", "relay-storage")
        // A broker that is away is dialled once a second, not every ten: no offset is stored before it is reached, and a
        // crash repeats what is not stored.
        .set("reconnect.backoff.max.ms", "1000")
        // As the producers of events: see there.
        .set("socket.connection.setup.timeout.ms", "10000");
    for (name, value) in &worker.kafka_client {
        config.set(name, value.expose());
    }
    config
}

/// A client, unless librdkafka refuses a setting. Its own words would show the value, which may be a password.
pub(super) fn create<C: FromClientConfigAndContext<Told>>(
    config: &ClientConfig,
) -> anyhow::Result<C> {
    C::from_config_and_context(config, Told::default()).map_err(|error| {
        let reason = kafka_client::without_value(&error);
        anyhow::anyhow!("Kafka's client refuses the worker's settings: {reason}")
    })
}

/// Says in the log what librdkafka tells of a client: errors (a login that fails, a certificate that is not trusted)
/// once, and again when another comes between.
#[derive(Clone, Default)]
pub(super) struct Told {
    last: Arc<Mutex<String>>,
}

impl ClientContext for Told {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // librdkafka retries by itself: what it says of brokers that are away is no error of the relay.
        tracing::debug!(kafka.facility = facility, kafka.level = ?level, "librdkafka: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return; // Asked for: it says that all is read.
        }
        // Behind it stands how long it took, which is never the same.
        let what = reason.split(" (after ").next().unwrap_or(reason);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != what {
            tracing::warn!(%error, "the storage topics are not reachable as they should be: {reason}");
            what.clone_into(&mut last);
        }
    }
}

impl ConsumerContext for Told {}

/// The producer of all storage records. The partitioner is Java's: otherwise a tombstone lands beside what it removes.
pub(super) fn producer(worker: &WorkerConfig) -> anyhow::Result<FutureProducer<Told>> {
    let mut config = client_config(worker);
    config
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "0")
        .set("message.timeout.ms", WRITE_TIMEOUT_MS)
        // A configuration is at most a request body; this is plenty and keeps the idle process small.
        .set("queue.buffering.max.kbytes", "8192");
    create(&config)
}

/// What is known of the cluster once it answers.
pub(super) struct Cluster {
    admin: Arc<AdminClient<Told>>,
    /// Kafka's name of the cluster.
    pub(super) id: Option<String>,
}

impl Cluster {
    /// Waits for the brokers, for as long as it takes.
    pub(super) async fn wait(worker: &WorkerConfig) -> anyhow::Result<Self> {
        // Not the client for topics: that one tells nobody of a login that fails.
        let watcher: Arc<BaseConsumer<Told>> = Arc::new(create(&client_config(worker))?);
        let mut looks = 0_u32;
        let id = loop {
            let asked = Arc::clone(&watcher);
            let look = tokio::task::spawn_blocking(move || {
                let found = asked.fetch_metadata(None, METADATA_TIMEOUT);
                // Whatever happened meanwhile is told to the client's context.
                while asked.poll(Duration::ZERO).is_some() {}
                let brokers = found?.brokers().len();
                Ok::<_, KafkaError>((brokers, asked.client().fetch_cluster_id(METADATA_TIMEOUT)))
            });
            match look.await? {
                // The broker may have gone away in between; one that has no name for its cluster has none later, too.
                Ok((brokers, id)) if brokers > 0 && (id.is_some() || looks > 0) => break id,
                Ok(_) => {}
                Err(error) if looks.is_multiple_of(LOOKS_PER_LOG_LINE) => {
                    tracing::info!(
                        kafka.bootstrap_servers = worker.bootstrap_servers,
                        %error,
                        "waiting for Kafka"
                    );
                }
                Err(_) => {}
            }
            looks = looks.wrapping_add(1);
            tokio::time::sleep(RETRY_DELAY).await;
        };
        let admin = Arc::new(create(&client_config(worker))?);
        Ok(Self { admin, id })
    }

    /// Creates a storage topic unless it is there, and checks one that is: compacted, or records would be lost. Waits
    /// for brokers that go away meanwhile.
    ///
    /// # Errors
    /// What waiting does not mend: the topic cannot be had as it must be.
    pub(super) async fn ensure(&self, topic: &StorageTopic, setting: &str) -> anyhow::Result<i32> {
        let mut told = String::new();
        loop {
            let away = match self.try_to_ensure(topic, setting).await {
                Ok(partitions) => return Ok(partitions),
                Err(Unusable::ForGood(error)) => return Err(error),
                Err(Unusable::ForNow(reason)) => reason,
            };
            if told != away {
                tracing::info!(kafka.topic = topic.name, reason = away, "waiting for Kafka");
                told = away;
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    async fn try_to_ensure(&self, topic: &StorageTopic, setting: &str) -> Result<i32, Unusable> {
        let replication = match topic.replication {
            Some(replication) => replication,
            None => self.brokers().await?.min(REPLICATION_WANTED),
        };
        let replicated = TopicReplication::Fixed(replication);
        let mut new = NewTopic::new(&topic.name, topic.partitions, replicated)
            .set("cleanup.policy", "compact");
        for (name, value) in &topic.settings {
            new = new.set(name, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(ADMIN_TIMEOUT));
        let created = self.admin.create_topics([&new], &options).await?;
        match created.into_iter().next() {
            Some(Ok(_)) => tracing::info!(
                kafka.topic = topic.name,
                kafka.partitions = topic.partitions,
                kafka.replication = replication,
                "storage topic created"
            ),
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {
                self.check_compacted(topic, setting).await?;
            }
            Some(Err((_, error))) if passes(error) => return Err(KafkaError::AdminOp(error).into()),
            // A broker has gone since they were counted.
            Some(Err((_, error @ RDKafkaErrorCode::InvalidReplicationFactor)))
                if topic.replication.is_none() =>
            {
                return Err(Unusable::ForNow(error.to_string()));
            }
            Some(Err((_, error))) => {
                return Err(Unusable::ForGood(anyhow!(
                    "topic {} ({setting}) cannot be created with {} partition(s), replication factor \
                     {replication} and the settings {:?}: {error}; create it by hand with cleanup.policy=compact, or set \
                     these otherwise",
                    topic.name,
                    topic.partitions,
                    topic.settings,
                )));
            }
            None => return Err(Unusable::ForNow("no answer on a topic to create".to_owned())),
        }
        self.partitions(&topic.name).await
    }

    async fn check_compacted(&self, topic: &StorageTopic, setting: &str) -> Result<(), Unusable> {
        let resource = ResourceSpecifier::Topic(&topic.name);
        let described = self.admin.describe_configs([&resource], &AdminOptions::new()).await?;
        let config = match described.into_iter().next() {
            // A user who may not describe topics is answered with nothing.
            Some(Ok(config)) if !config.entries.is_empty() => config,
            Some(Err(error)) if passes(error) => return Err(KafkaError::AdminOp(error).into()),
            Some(Ok(_) | Err(_)) | None => {
                // Who may not describe topics may still use them.
                tracing::warn!(
                    kafka.topic = topic.name,
                    "cleanup.policy of the topic is not known"
                );
                return Ok(());
            }
        };
        let policy = config.get("cleanup.policy").and_then(|entry| entry.value.clone());
        match policy.as_deref() {
            None | Some("compact") => Ok(()),
            Some(policy) => Err(Unusable::ForGood(anyhow!(
                "topic {} ({setting}) has cleanup.policy={policy}, which loses records in time; set it to compact",
                topic.name
            ))),
        }
    }

    async fn brokers(&self) -> Result<i32, Unusable> {
        let found = metadata(&self.admin, None).await.map_err(Unusable::ForGood)??;
        Ok(i32::try_from(found.brokers().len()).unwrap_or(i32::MAX))
    }

    /// A topic that was just created may take a moment to be known everywhere.
    async fn partitions(&self, topic: &str) -> Result<i32, Unusable> {
        let deadline = tokio::time::Instant::now() + ADMIN_TIMEOUT;
        loop {
            let found = metadata(&self.admin, Some(topic)).await;
            let partitions = found.ok().and_then(Result::ok).and_then(|found| {
                let topic = found.topics().iter().find(|known| known.name() == topic)?;
                let led = topic.partitions().iter().all(|partition| partition.leader() >= 0);
                (topic.error().is_none() && led).then(|| topic.partitions().len())
            });
            match partitions {
                Some(count) if count > 0 => return Ok(i32::try_from(count).unwrap_or(i32::MAX)),
                _ if tokio::time::Instant::now() >= deadline => {
                    let reason = format!("topic {topic} has no leader for a partition");
                    return Err(Unusable::ForNow(reason));
                }
                _ => tokio::time::sleep(RETRY_DELAY / 5).await,
            }
        }
    }
}

/// Why a storage topic cannot be used.
enum Unusable {
    /// Until the brokers are back.
    ForNow(String),
    /// Until somebody changes something.
    ForGood(anyhow::Error),
}

impl From<KafkaError> for Unusable {
    fn from(error: KafkaError) -> Self {
        match error {
            KafkaError::AdminOp(code) | KafkaError::MetadataFetch(code) if passes(code) => {
                Self::ForNow(error.to_string())
            }
            _ => Self::ForGood(error.into()),
        }
    }
}

/// Whether the error is one of brokers that are away, starting, or choosing who leads. Kafka calls most of them
/// retriable (Kafka protocol guide, "Error codes"); those from librdkafka itself tell of connections.
fn passes(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::WaitingForCoordinator
            | Code::RequestTimedOut
            | Code::BrokerNotAvailable
            | Code::NetworkException
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotController
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::UnknownTopicOrPartition
    )
}

/// librdkafka asks for metadata in the calling thread.
async fn metadata(
    admin: &Arc<AdminClient<Told>>,
    topic: Option<&str>,
) -> anyhow::Result<Result<Metadata, KafkaError>> {
    let (admin, topic) = (Arc::clone(admin), topic.map(str::to_owned));
    let ask = move || admin.inner().fetch_metadata(topic.as_deref(), METADATA_TIMEOUT);
    Ok(tokio::task::spawn_blocking(ask).await?)
}
