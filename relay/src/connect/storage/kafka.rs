//! Kafka for the storage topics: clients, waiting for the brokers, creating topics as Kafka Connect does.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::Metadata;
use rdkafka::producer::FutureProducer;

use crate::config::{StorageTopic, WorkerConfig};

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

/// Worker properties that name how to reach the cluster, and what librdkafka calls them.
const CLIENT_PROPERTIES: [(&str, &str); 6] = [
    ("security.protocol", "security.protocol"),
    ("sasl.mechanism", "sasl.mechanism"),
    ("client.dns.lookup", "client.dns.lookup"),
    ("reconnect.backoff.ms", "reconnect.backoff.ms"),
    ("reconnect.backoff.max.ms", "reconnect.backoff.max.ms"),
    ("metadata.max.age.ms", "metadata.max.age.ms"),
];

/// What every client of the storage topics begins with.
pub(super) fn client_config(worker: &WorkerConfig) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &worker.bootstrap_servers).set("client.id", "relay-storage");
    for (property, name) in CLIENT_PROPERTIES {
        if let Some(value) = worker.properties.get(property) {
            config.set(name, value);
        }
    }
    config
}

/// The producer of all storage records. The partitioner is Java's: otherwise a tombstone lands beside what it removes.
pub(super) fn producer(worker: &WorkerConfig) -> anyhow::Result<FutureProducer> {
    client_config(worker)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "0")
        .set("message.timeout.ms", WRITE_TIMEOUT_MS)
        // A configuration is at most a request body; this is plenty and keeps the idle process small.
        .set("queue.buffering.max.kbytes", "8192")
        .create()
        .context("Kafka's client refuses the worker's settings")
}

/// What is known of the cluster once it answers.
pub(super) struct Cluster {
    admin: Arc<AdminClient<DefaultClientContext>>,
    brokers: i32,
    /// Kafka's name of the cluster.
    pub(super) id: Option<String>,
}

impl Cluster {
    /// Waits for the brokers, for as long as it takes.
    pub(super) async fn wait(worker: &WorkerConfig) -> anyhow::Result<Self> {
        let admin: AdminClient<_> = client_config(worker)
            .create()
            .context("Kafka's client refuses the worker's settings")?;
        let admin = Arc::new(admin);
        let mut looks = 0_u32;
        let metadata = loop {
            match metadata(&admin, None).await {
                Ok(metadata) if !metadata.brokers().is_empty() => break metadata,
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
        let brokers = i32::try_from(metadata.brokers().len()).unwrap_or(i32::MAX);
        let asked = Arc::clone(&admin);
        let id = move || asked.inner().fetch_cluster_id(METADATA_TIMEOUT);
        let id = tokio::task::spawn_blocking(id).await?;
        Ok(Self { admin, brokers, id })
    }

    /// Creates a storage topic unless it is there, and checks one that is: compacted, or records would be lost.
    pub(super) async fn ensure(&self, topic: &StorageTopic, setting: &str) -> anyhow::Result<i32> {
        let replication = topic.replication.unwrap_or(self.brokers.min(REPLICATION_WANTED));
        let new =
            NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(replication))
                .set("cleanup.policy", "compact");
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
            Some(Err((_, error))) => bail!(
                "topic {} ({setting}) cannot be created with {} partition(s) and replication factor \
                 {replication}: {error}; create it by hand with cleanup.policy=compact, or set \
                 the replication factor",
                topic.name,
                topic.partitions,
            ),
            None => bail!("Kafka did not say whether topic {} was created", topic.name),
        }
        self.partitions(&topic.name).await
    }

    async fn check_compacted(&self, topic: &StorageTopic, setting: &str) -> anyhow::Result<()> {
        let resource = ResourceSpecifier::Topic(&topic.name);
        let described = self.admin.describe_configs([&resource], &AdminOptions::new()).await?;
        let Some(Ok(config)) = described.into_iter().next() else {
            // A user who may not describe topics may still use them.
            tracing::warn!(kafka.topic = topic.name, "cleanup.policy of the topic is not known");
            return Ok(());
        };
        let policy = config.get("cleanup.policy").and_then(|entry| entry.value.clone());
        match policy.as_deref() {
            None | Some("compact") => Ok(()),
            Some(policy) => bail!(
                "topic {} ({setting}) has cleanup.policy={policy}, which loses records in time; set it to compact",
                topic.name
            ),
        }
    }

    /// A topic that was just created may take a moment to be known everywhere.
    async fn partitions(&self, topic: &str) -> anyhow::Result<i32> {
        let deadline = tokio::time::Instant::now() + ADMIN_TIMEOUT;
        loop {
            let found = metadata(&self.admin, Some(topic)).await;
            let partitions = found.as_ref().ok().and_then(|found| {
                let topic = found.topics().iter().find(|known| known.name() == topic)?;
                let led = topic.partitions().iter().all(|partition| partition.leader() >= 0);
                (topic.error().is_none() && led).then(|| topic.partitions().len())
            });
            match partitions {
                Some(count) if count > 0 => return Ok(i32::try_from(count)?),
                _ if tokio::time::Instant::now() >= deadline => {
                    bail!("topic {topic} has no leader for a partition")
                }
                _ => tokio::time::sleep(RETRY_DELAY / 5).await,
            }
        }
    }
}

/// librdkafka asks for metadata in the calling thread.
async fn metadata(
    admin: &Arc<AdminClient<DefaultClientContext>>,
    topic: Option<&str>,
) -> anyhow::Result<Metadata> {
    let (admin, topic) = (Arc::clone(admin), topic.map(str::to_owned));
    let ask = move || admin.inner().fetch_metadata(topic.as_deref(), METADATA_TIMEOUT);
    Ok(tokio::task::spawn_blocking(ask).await??)
}
