//! A database, a topic and a group for one test, and the real binary that runs on them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use sqlx::MySqlPool;
use sqlx::mysql::MySqlPoolOptions;
use testbed::{MySqlDatabase, Program, eventually, free_port, unique_name};
use uuid::Uuid;

/// For anything that should happen soon. Generous: the machines of CI are slow, and a test that waits for a fact ends
/// with the fact.
pub(super) const SOON: Duration = Duration::from_secs(60);
const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);

/// What a test stands on.
pub(super) struct World {
    pub(super) mysql: MySqlDatabase,
    pub(super) pool: MySqlPool,
    pub(super) bootstrap_servers: String,
    pub(super) topic: String,
    pub(super) group: String,
    /// How long the group waits for an instance that was killed. Shorter in tests that kill.
    pub(super) session_timeout_seconds: u32,
    producer: FutureProducer,
}

/// A record to send.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) key: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) partition: Option<i32>,
}

/// A record that was read back.
#[derive(Clone, Debug)]
pub(super) struct ReadRecord {
    pub(super) key: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(super) value: Option<Vec<u8>>,
}

impl ReadRecord {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }
}

/// The payload of an `OrderCreated` event.
pub(super) fn order(order_id: i64) -> String {
    format!(
        r#"{{"id":{order_id},"customerId":123,"orderDate":"2019-01-31T12:13:01","lineItems":[]}}"#
    )
}

impl Record {
    /// What our relay writes for an event.
    pub(super) fn event(event_id: Uuid, event_type: &str, key: i64, payload: &str) -> Record {
        Record {
            key: Some(key.to_string()),
            headers: vec![
                ("id".to_owned(), event_id.to_string()),
                ("eventType".to_owned(), event_type.to_owned()),
            ],
            value: Some(payload.as_bytes().to_vec()),
            partition: None,
        }
    }

    /// A new order, as a new event.
    pub(super) fn order_created(order_id: i64) -> Record {
        Record::event(Uuid::new_v4(), "OrderCreated", order_id, &order(order_id))
    }
}

impl World {
    /// A world whose topic does not exist yet: the first record creates it.
    pub(super) async fn new() -> Result<World> {
        World::on(testbed::servers().await?.bootstrap_servers()).await
    }

    /// A world on this Kafka.
    pub(super) async fn on(bootstrap_servers: &str) -> Result<World> {
        let mysql = testbed::servers().await?.mysql_database().await?;
        World::with(mysql, bootstrap_servers).await
    }

    /// A world on this database and this Kafka.
    pub(super) async fn with(mysql: MySqlDatabase, bootstrap_servers: &str) -> Result<World> {
        let pool = MySqlPoolOptions::new().max_connections(3).connect(&mysql.url()).await?;
        let producer =
            client(bootstrap_servers).set("acks", "all").set("linger.ms", "0").create()?;
        Ok(World {
            mysql,
            pool,
            bootstrap_servers: bootstrap_servers.to_owned(),
            topic: unique_name("OrderEvents"),
            group: unique_name("shipment-service"),
            session_timeout_seconds: 6,
            producer,
        })
    }

    /// A world whose topic exists.
    pub(super) async fn with_partitions(partitions: i32) -> Result<World> {
        let world = World::new().await?;
        let admin: AdminClient<DefaultClientContext> = client(&world.bootstrap_servers).create()?;
        let topic = NewTopic::new(&world.topic, partitions, TopicReplication::Fixed(1));
        for created in admin.create_topics([&topic], &AdminOptions::new()).await? {
            created.map_err(|(topic, code)| anyhow::anyhow!("{topic}: {code}"))?;
        }
        Ok(world)
    }

    /// The variables of the service in this world.
    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("DATABASE_URL", self.mysql.url()),
            ("BOOTSTRAP_SERVERS", self.bootstrap_servers.clone()),
            ("ORDER_TOPIC_NAME", self.topic.clone()),
            ("GROUP_ID", self.group.clone()),
            ("GROUP_SESSION_TIMEOUT_SECONDS", self.session_timeout_seconds.to_string()),
            ("DEAD_LETTER_TOPIC_NAME", String::new()),
            ("RUST_LOG", "info,shipment_service=debug".to_owned()),
            ("LOG_FORMAT", "text".to_owned()),
        ]
    }

    /// The variables with the database behind a proxy of the test.
    pub(super) fn variables_through(&self, mysql_port: u16) -> Vec<(&'static str, String)> {
        let url = format!(
            "mysql://{}:{}@127.0.0.1:{mysql_port}/{}",
            self.mysql.user, self.mysql.password, self.mysql.name
        );
        let mut variables = self.variables();
        variables[0].1 = url;
        variables
    }

    /// Starts the service and waits until it is ready.
    pub(super) async fn service(&self) -> Result<Service> {
        let service = Service::start(&self.variables())?;
        service.ready().await?;
        Ok(service)
    }

    pub(super) async fn send(&self, record: &Record) -> Result<()> {
        self.send_all(std::slice::from_ref(record)).await
    }

    /// Sends a record that is larger than clients send by default.
    pub(super) async fn send_large(&self, record: &Record) -> Result<()> {
        let producer =
            client(&self.bootstrap_servers).set("message.max.bytes", "2000000").create()?;
        deliver(&producer, &self.topic, std::slice::from_ref(record)).await
    }

    /// Sends records in this order, without waiting for each.
    pub(super) async fn send_all(&self, records: &[Record]) -> Result<()> {
        deliver(&self.producer, &self.topic, records).await
    }

    /// The order ids of all shipments, in the order in which they were made.
    pub(super) async fn order_ids(&self) -> Result<Vec<i64>> {
        Ok(sqlx::query_scalar("select orderId from Shipment order by id")
            .fetch_all(&self.pool)
            .await?)
    }

    pub(super) async fn consumed_messages(&self) -> Result<i64> {
        Ok(sqlx::query_scalar("select count(*) from ConsumedMessage").fetch_one(&self.pool).await?)
    }

    /// Waits until there are as many shipments.
    pub(super) async fn shipments(&self, count: usize) -> Result<Vec<i64>> {
        eventually(&format!("{count} shipments"), SOON, || async {
            let ids = self.order_ids().await?;
            Ok((ids.len() >= count).then_some(ids))
        })
        .await
    }

    /// The group's committed offset of a partition; 0 when there is none yet.
    pub(super) async fn committed(&self, partition: i32) -> Result<i64> {
        let (servers, group, topic) =
            (self.bootstrap_servers.clone(), self.group.clone(), self.topic.clone());
        tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = client(&servers).set("group.id", &group).create()?;
            let mut asked = TopicPartitionList::new();
            asked.add_partition(&topic, partition);
            let committed = consumer.committed_offsets(asked, KAFKA_TIMEOUT)?;
            let element = committed.find_partition(&topic, partition).context("the partition")?;
            Ok(match element.offset() {
                Offset::Offset(offset) => offset,
                _ => 0,
            })
        })
        .await?
    }

    /// Waits until everything before this offset of partition 0 is committed.
    pub(super) async fn committed_up_to(&self, offset: i64) -> Result<()> {
        eventually(&format!("committed offset {offset}"), SOON, || async {
            Ok((self.committed(0).await? == offset).then_some(()))
        })
        .await
    }

    /// Waits for this many dead letters and returns all that are there then.
    pub(super) async fn dead_letters(&self, count: usize) -> Result<Vec<ReadRecord>> {
        let (servers, topic) = (self.bootstrap_servers.clone(), format!("{}.dlq", self.topic));
        tokio::task::spawn_blocking(move || read_topic(&servers, &topic, count)).await?
    }

    /// How many dead letters there are now.
    pub(super) async fn dead_letter_count(&self) -> Result<i64> {
        let (servers, topic) = (self.bootstrap_servers.clone(), format!("{}.dlq", self.topic));
        tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = client(&servers).create()?;
            let metadata = consumer.fetch_metadata(Some(&topic), KAFKA_TIMEOUT)?;
            let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
            let mut count = 0;
            for partition in 0..i32::try_from(partitions)? {
                count += consumer.fetch_watermarks(&topic, partition, KAFKA_TIMEOUT)?.1;
            }
            Ok(count)
        })
        .await?
    }
}

/// The real binary.
pub(super) struct Service {
    pub(super) program: Program,
    pub(super) url: String,
}

impl Service {
    /// Starts it, and does not wait.
    pub(super) fn start(variables: &[(&'static str, String)]) -> Result<Service> {
        let address = format!("127.0.0.1:{}", free_port());
        let mut env: Vec<(&str, &str)> =
            variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        env.push(("HTTP_ADDRESS", &address));
        let program = Program::start(env!("CARGO_BIN_EXE_shipment-service"), &[], &env)?;
        Ok(Service { program, url: format!("http://{address}") })
    }

    pub(super) async fn ready(&self) -> Result<()> {
        let ready = eventually("ready service", SOON, || async {
            Ok((self.get("/health/ready").await?.0 == 200).then_some(()))
        });
        ready.await.with_context(|| self.program.tail())
    }

    /// Status and body of a GET.
    pub(super) async fn get(&self, path: &str) -> Result<(u16, serde_json::Value)> {
        let response = reqwest::get(format!("{}{path}", self.url)).await?;
        Ok((response.status().as_u16(), response.json().await?))
    }

    /// How many lines of the log contain the text.
    pub(super) fn lines(&self, text: &str) -> usize {
        self.program.output().iter().filter(|line| line.contains(text)).count()
    }

    /// Waits until a line of the log contains the text.
    pub(super) async fn says(&self, text: &str) -> Result<String> {
        self.program.line(text, SOON).await
    }
}

pub(super) fn client(bootstrap_servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap_servers);
    config
}

async fn deliver(producer: &FutureProducer, topic: &str, records: &[Record]) -> Result<()> {
    let mut deliveries = Vec::with_capacity(records.len());
    for record in records {
        let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let mut sent = FutureRecord::<str, [u8]>::to(topic).headers(headers);
        sent.key = record.key.as_deref();
        sent.payload = record.value.as_deref();
        sent.partition = record.partition;
        deliveries.push(producer.send_result(sent).map_err(|(error, _)| error)?);
    }
    for delivery in deliveries {
        delivery.await?.map_err(|(error, _)| error)?;
    }
    Ok(())
}

fn read_topic(bootstrap_servers: &str, topic: &str, count: usize) -> Result<Vec<ReadRecord>> {
    let consumer: BaseConsumer = client(bootstrap_servers)
        .set("group.id", unique_name("reader"))
        .set("auto.offset.reset", "earliest")
        .set("topic.metadata.refresh.interval.ms", "500")
        .create()?;
    consumer.subscribe(&[topic])?;
    let until = std::time::Instant::now() + SOON;
    let mut records = Vec::new();
    while records.len() < count {
        anyhow::ensure!(
            std::time::Instant::now() < until,
            "{} of {count} records in {topic}",
            records.len()
        );
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) else { continue };
        let headers = message.headers().map(|headers| {
            headers
                .iter()
                .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                .collect()
        });
        records.push(ReadRecord {
            key: message.key().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
            value: message.payload().map(<[u8]>::to_vec),
        });
    }
    Ok(records)
}
