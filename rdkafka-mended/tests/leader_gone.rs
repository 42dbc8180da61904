//! Partitions that have no leader for a moment must not make a consumer read memory that nobody wrote.
//!
//! A real broker answers so for a few milliseconds while it comes back, once in many times; librdkafka's own mock does it
//! when told to. It is spoken to in C's way, because rdkafka's wrapper of it does not have the call.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use rdkafka_mended::client::ClientContext;
use rdkafka_mended::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka_mended::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka_mended::{Offset, TopicPartitionList};
use rdkafka_sys as sys;

const TOPIC: &str = "storage";
const PARTITIONS: i32 = 20;
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn partitions_without_a_leader_are_not_among_those_with_a_new_one() -> Result<()> {
    let mock = Mock::start()?;
    let said = Said::default();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", mock.bootstrap_servers()?).set("group.id", "test");
    config.set("debug", "metadata,fetch").set("fetch.wait.max.ms", "100");
    config.set_log_level(RDKafkaLogLevel::Debug);
    let consumer: BaseConsumer<Said> = config.create_with_context(said.clone())?;
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(TOPIC, partition, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    poll_until(&consumer, &said, &[&format!("Fetch {PARTITIONS}/{PARTITIONS}/")])?;

    for partition in 1..PARTITIONS {
        mock.say_that_nobody_leads(partition)?;
    }
    // The one that has a leader comes last: every answer that tells of a change tells of one that has none.
    for partition in (0..PARTITIONS).rev() {
        mock.lead(partition, 2)?;
    }

    let done = ["Metadata cache updated, propagating changes", "Cache was not updated"];
    poll_until(&consumer, &said, &done)?;
    let lines = said.lines();
    let is_update = |line: &&String| line.contains(&format!("Partition {TOPIC}("));
    let is_true = |line: &&String| line.ends_with("updated with leader 2 and epoch 2");
    let untrue: Vec<_> = lines.iter().filter(is_update).filter(|line| !is_true(line)).collect();
    ensure!(untrue.is_empty(), "of memory that nobody wrote: {untrue:#?}");
    Ok(())
}

/// Two brokers of librdkafka's mock, and a topic that the first leads.
struct Mock {
    client: *mut sys::rd_kafka_t,
    cluster: *mut sys::rd_kafka_mock_cluster_t,
    topic: CString,
}

impl Mock {
    fn start() -> Result<Self> {
        let topic = CString::new(TOPIC)?;
        // SAFETY: the client takes over the configuration; both pointers are checked before they are used.
        let mock = unsafe {
            let conf = sys::rd_kafka_conf_new();
            let kind = sys::rd_kafka_type_t::RD_KAFKA_PRODUCER;
            let client = sys::rd_kafka_new(kind, conf, ptr::null_mut(), 0);
            ensure!(!client.is_null(), "no client for the mock");
            let cluster = sys::rd_kafka_mock_cluster_new(client, 2);
            ensure!(!cluster.is_null(), "no mock");
            Self { client, cluster, topic }
        };
        // SAFETY: the cluster lives, and the topic's name ends with a zero.
        took(unsafe {
            sys::rd_kafka_mock_topic_create(mock.cluster, mock.topic.as_ptr(), PARTITIONS, 1)
        })?;
        for partition in 0..PARTITIONS {
            mock.lead(partition, 1)?;
        }
        Ok(mock)
    }

    fn bootstrap_servers(&self) -> Result<String> {
        // SAFETY: the text belongs to the cluster and ends with a zero.
        let text = unsafe { CStr::from_ptr(sys::rd_kafka_mock_cluster_bootstraps(self.cluster)) };
        Ok(text.to_str()?.to_owned())
    }

    fn lead(&self, partition: i32, broker: i32) -> Result<()> {
        let topic = self.topic.as_ptr();
        // SAFETY: as in `start`.
        took(unsafe {
            sys::rd_kafka_mock_partition_set_leader(self.cluster, topic, partition, broker)
        })
    }

    /// In the next answer that tells the partition's leader, there is none.
    fn say_that_nobody_leads(&self, partition: i32) -> Result<()> {
        let topic = self.topic.as_ptr();
        // SAFETY: as in `start`.
        took(unsafe {
            sys::rd_kafka_mock_partition_push_leader_response(self.cluster, topic, partition, -1, 1)
        })
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        // SAFETY: nothing uses either of them any more.
        unsafe {
            sys::rd_kafka_mock_cluster_destroy(self.cluster);
            sys::rd_kafka_destroy(self.client);
        }
    }
}

fn took(answer: sys::rd_kafka_resp_err_t) -> Result<()> {
    ensure!(answer == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR, "{answer:?}");
    Ok(())
}

/// Keeps what librdkafka logs.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

impl Said {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Said {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, message: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(message.to_owned());
    }
}

impl ConsumerContext for Said {}

/// Polls until librdkafka has said one of these. What polling returns does not matter here: the topic is empty.
fn poll_until(consumer: &BaseConsumer<Said>, said: &Said, words: &[&str]) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < DEADLINE {
        let _ = consumer.poll(Duration::from_millis(100));
        if said.lines().iter().any(|line| words.iter().any(|words| line.contains(words))) {
            return Ok(());
        }
    }
    bail!("not said: {words:?}\n{}", said.lines().join("\n"))
}
