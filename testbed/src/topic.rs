//! Reading and writing Kafka topics as a test or a curious learner does: everything, from the beginning, as bytes.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

/// For one request to the broker.
const REQUEST_BOUND: Duration = Duration::from_secs(10);

/// One wait for the next record; the loop around it looks at its deadline in between.
const POLL_BOUND: Duration = Duration::from_millis(50);

/// A record as it lies in the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    /// Its position in the partition.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    /// In their order; a header may come twice.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub value: Option<Vec<u8>>,
}

impl Record {
    /// The key as text (lossy); empty without a key.
    #[must_use]
    pub fn key_text(&self) -> String {
        text(self.key.as_deref())
    }

    /// The value as text (lossy); empty for a tombstone.
    #[must_use]
    pub fn value_text(&self) -> String {
        text(self.value.as_deref())
    }

    /// The first header of that name as text (lossy).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| text(value.as_deref()))
    }
}

fn text(bytes: Option<&[u8]>) -> String {
    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
}

/// Creates a topic. A topic that exists already is fine.
///
/// # Errors
/// When the broker refuses or does not answer.
pub async fn create(bootstrap_servers: &str, topic: &str, partitions: i32) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = client(bootstrap_servers).create()?;
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let options = AdminOptions::new().operation_timeout(Some(REQUEST_BOUND));
    for result in admin.create_topics([&new], &options).await.context("create the topic")? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, error)) => bail!("create topic {topic}: {error}"),
        }
    }
    Ok(())
}

/// Writes one record and waits until the broker has it. Returns its partition and offset.
///
/// # Errors
/// When the broker does not take it.
pub async fn produce(
    bootstrap_servers: &str,
    topic: &str,
    key: Option<&[u8]>,
    headers: &[(&str, &[u8])],
    value: Option<&[u8]>,
) -> Result<(i32, i64)> {
    let producer: FutureProducer =
        client(bootstrap_servers).set("acks", "all").set("linger.ms", "0").create()?;
    let mut record = FutureRecord::<[u8], [u8]>::to(topic);
    record.key = key;
    record.payload = value;
    let mut all = OwnedHeaders::new();
    for (name, value) in headers {
        all = all.insert(Header { key: name, value: Some(*value) });
    }
    let sent = producer.send(record.headers(all), REQUEST_BOUND).await;
    let delivery = sent.map_err(|(error, _)| error).context("produce a record")?;
    Ok((delivery.partition, delivery.offset))
}

/// Every record that is in the topic now (committed ones, in transactions), in the order of partitions and offsets.
/// A topic that does not exist has none, and is not created.
///
/// # Errors
/// When the broker does not answer.
pub async fn read(bootstrap_servers: &str, topic: &str) -> Result<Vec<Record>> {
    let (bootstrap_servers, topic) = (bootstrap_servers.to_owned(), topic.to_owned());
    let reading = tokio::task::spawn_blocking(move || {
        let mut reader = Reader::open(&bootstrap_servers, &topic)?;
        let until = Instant::now() + REQUEST_BOUND;
        let mut records = Vec::new();
        // The broker may just be coming back.
        while let Err(error) = reader.note_ends() {
            if Instant::now() > until {
                return Err(error.context(format!("look where topic {topic} ends")));
            }
            std::thread::park_timeout(POLL_BOUND);
        }
        while !reader.is_at_end() {
            let found = reader.next()?;
            if found.is_none() && Instant::now() > until {
                bail!("the topic {topic} could not be read to its end within {REQUEST_BOUND:?}");
            }
            records.extend(found);
        }
        records.sort_by_key(|record| (record.partition, record.offset));
        Ok(records)
    });
    reading.await?
}

/// Reads from the beginning until there are at least `count` records, as they arrive.
///
/// # Errors
/// When the deadline passes first: says how many there were.
pub async fn wait_for(
    bootstrap_servers: &str,
    topic: &str,
    count: usize,
    deadline: Duration,
) -> Result<Vec<Record>> {
    let (bootstrap_servers, topic) = (bootstrap_servers.to_owned(), topic.to_owned());
    let reading = tokio::task::spawn_blocking(move || {
        let until = Instant::now() + deadline;
        let mut reader = Reader::open(&bootstrap_servers, &topic)?;
        let mut records = Vec::new();
        while records.len() < count {
            if Instant::now() > until {
                let found = records.len();
                bail!("after {deadline:?} topic {topic} has {found} records instead of {count}");
            }
            match reader.next() {
                Ok(found) => records.extend(found),
                // The broker may be down just now, or the topic not there yet.
                Err(_) => reader = Reader::open(&bootstrap_servers, &topic)?,
            }
        }
        Ok(records)
    });
    reading.await?
}

/// Reads a topic from the beginning, without a group. Its calls block.
pub struct Reader {
    consumer: BaseConsumer,
    topic: String,
    partitions: usize,
    /// Of each partition, where it ended when that was looked at: one that grows all the time has no other end.
    ends: HashMap<i32, i64>,
    at_end: HashSet<i32>,
}

impl Reader {
    /// # Errors
    /// When the client cannot be created (a bad address, for instance). The topic need not exist yet.
    pub fn open(bootstrap_servers: &str, topic: &str) -> Result<Self> {
        let consumer: BaseConsumer = client(bootstrap_servers)
            // Required by the client; nothing is committed to it.
            .set("group.id", "testbed-reader")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("allow.auto.create.topics", "false")
            .set("fetch.wait.max.ms", "50")
            .create()?;
        let (ends, at_end) = (HashMap::new(), HashSet::new());
        Ok(Self { consumer, topic: topic.to_owned(), partitions: 0, ends, at_end })
    }

    /// The next record, or `None` when there was none just now.
    ///
    /// # Errors
    /// When the broker does not answer.
    #[allow(clippy::should_implement_trait)] // An iterator would end at the first `None`.
    pub fn next(&mut self) -> Result<Option<Record>> {
        if self.partitions == 0 && !self.assign()? {
            std::thread::park_timeout(POLL_BOUND);
            return Ok(None);
        }
        match self.consumer.poll(POLL_BOUND) {
            None => Ok(None),
            Some(Ok(message)) => {
                let record = record(&message);
                drop(message);
                let end = self.ends.get(&record.partition);
                if end.is_some_and(|end| record.offset + 1 >= *end) {
                    self.at_end.insert(record.partition);
                }
                Ok(Some(record))
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.at_end.insert(partition);
                Ok(None)
            }
            // The client goes on by itself once the broker is back.
            Some(Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown,
            ))) => Ok(None),
            Some(Err(error)) => Err(error).context(format!("read topic {}", self.topic)),
        }
    }

    fn note_ends(&mut self) -> Result<()> {
        if self.partitions == 0 && !self.assign()? {
            return Ok(());
        }
        for partition in 0..i32::try_from(self.partitions)? {
            let (_, end) = self.consumer.fetch_watermarks(&self.topic, partition, REQUEST_BOUND)?;
            self.ends.insert(partition, end);
            if end == 0 {
                self.at_end.insert(partition);
            }
        }
        Ok(())
    }

    /// Whether everything that was in the topic has been read. A topic that does not exist has been.
    fn is_at_end(&mut self) -> bool {
        if self.partitions == 0 {
            return matches!(self.assign(), Ok(false));
        }
        self.at_end.len() == self.partitions
    }

    /// `false` while the topic does not exist.
    fn assign(&mut self) -> Result<bool> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), REQUEST_BOUND)?;
        let Some(topic) = metadata.topics().iter().find(|t| t.name() == self.topic) else {
            return Ok(false);
        };
        let mut assignment = TopicPartitionList::new();
        for partition in topic.partitions() {
            assignment.add_partition_offset(&self.topic, partition.id(), Offset::Beginning)?;
        }
        if assignment.count() > 0 {
            self.consumer.assign(&assignment)?;
        }
        self.partitions = assignment.count();
        Ok(self.partitions > 0)
    }
}

fn client(bootstrap_servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap_servers)
        // A broker that comes back is noticed soon.
        .set("reconnect.backoff.max.ms", "500")
        .set("topic.metadata.refresh.interval.ms", "1000");
    config
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map(|headers| {
        let each = headers.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec)));
        each.collect()
    });
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
        value: message.payload().map(<[u8]>::to_vec),
    }
}
