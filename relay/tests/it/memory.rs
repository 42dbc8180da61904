//! Memory and back-pressure: what a large transaction, large payloads, a broker that is away and a slow one cost.
//!
//! The broker is the test's own, since it is stopped; PostgreSQL ends a stream whose reader is silent for three
//! seconds.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use testbed::server::{Kafka, Options, Progress, RunFolder};
use testbed::{Settings, eventually, servers, topic, unique_name};
use tokio_util::sync::CancellationToken;

use crate::connect_worker::{Worker, example_config, outbox_database};

/// How much more than when it was idle the relay may use, whatever happens.
const ABOVE_IDLE_MAX: u64 = 64 << 20;

/// PostgreSQL's `wal_sender_timeout` here.
const SENDER_TIMEOUT: &str = "3s";

/// How large the load is.
struct Load {
    /// Rows of the one large transaction.
    rows: u32,
    /// Rows with a payload of a mebibyte.
    large: u32,
    /// How long the broker is away.
    away: Duration,
    /// Within this time each part must be through.
    deadline: Duration,
}

#[tokio::test]
async fn memory_stays_bounded_whatever_the_transaction_the_payload_and_the_broker() -> Result<()> {
    let (away, deadline) = (Duration::from_secs(10), Duration::from_secs(120));
    run(Load { rows: 200_000, large: 100, away, deadline }).await
}

#[tokio::test]
#[ignore = "the long form, some 15 minutes: cargo memory"]
async fn memory_stays_bounded_in_the_long_form() -> Result<()> {
    let (away, deadline) = (Duration::from_secs(600), Duration::from_secs(900));
    run(Load { rows: 1_000_000, large: 500, away, deadline }).await
}

/// Everything of a database transaction is in one Kafka transaction, or in several: neither is held in memory.
#[tokio::test]
async fn memory_stays_bounded_with_exactly_once() -> Result<()> {
    for boundary in ["poll", "connector"] {
        let options = [("exactly.once.support", "required"), ("transaction.boundary", boundary)];
        let mut bounded = Bounded::start(Duration::from_secs(120), &options).await?;
        bounded.insert(200_000, 100).await?;
        bounded.all_arrive(&format!("one large transaction, {boundary}")).await?;
        bounded.insert(100, 1 << 20).await?;
        bounded.all_arrive(&format!("payloads of a mebibyte, {boundary}")).await?;
        bounded.worker.program.terminate().await?;
        bounded.kafka.stop().await;
    }
    Ok(())
}

/// A relay on a broker of its own.
struct Bounded {
    kafka: Kafka,
    worker: Worker,
    sql: PgConnection,
    /// The server's superuser, who alone may see when a reader answered.
    administrator: PgConnection,
    slot: String,
    reader: Option<Numbers>,
    /// Rows that were inserted.
    inserted: u32,
    idle: u64,
    deadline: Duration,
}

async fn run(load: Load) -> Result<()> {
    let mut bounded = Bounded::start(load.deadline, &[]).await?;
    let sender = bounded.sender().await?;
    bounded.insert(load.rows, 100).await?;
    bounded.all_arrive("one large transaction").await?;

    bounded.insert(1, 1 << 20).await?;
    bounded.insert(load.large, 1 << 20).await?;
    bounded.all_arrive("payloads of a mebibyte").await?;

    bounded.kafka.kill().await;
    let since = Instant::now();
    // The large ones first: they wait for the broker, and everything else behind them.
    bounded.insert(load.large, 1 << 20).await?;
    bounded.insert(load.rows / 2, 100).await?;
    bounded.replies_for(load.away.saturating_sub(since.elapsed())).await?;
    bounded.kafka.restart().await?;
    bounded.all_arrive("a broker that is away").await?;

    let slow = bounded.slow_broker()?;
    bounded.insert(load.rows / 4, 100).await?;
    bounded.insert(load.large / 4, 1 << 20).await?;
    bounded.replies_for(Duration::from_secs(4)).await?;
    slow.end().await?;
    bounded.all_arrive("a slow broker").await?;

    ensure!(bounded.sender().await? == sender, "PostgreSQL has ended the stream meanwhile");
    bounded.worker.program.terminate().await?;
    bounded.kafka.stop().await;
    Ok(())
}

impl Bounded {
    async fn start(deadline: Duration, options: &[(&str, &str)]) -> Result<Self> {
        let (database, mut sql) = outbox_database().await?;
        let timeout =
            format!("alter role current_user set wal_sender_timeout = '{SENDER_TIMEOUT}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(timeout)).execute(&mut sql).await?;
        let administrator = servers().await?.postgres_administrator(&database);
        let administrator = PgConnection::connect(&administrator.url()).await?;
        let settings = Settings::read();
        let folder = RunFolder::create(&settings, false)?;
        let quiet: Progress = Arc::new(|_: &str| {});
        let kafka = Kafka::start(&settings, &folder, Options::for_tests(), &quiet).await?;
        let (topics, topic) = (unique_name("bounded"), unique_name("events"));
        create(kafka.bootstrap_servers(), &topic).await?;
        let mut config = example_config(&database)?;
        config["transforms.outbox.route.topic.replacement"] = json!(topic);
        for (option, value) in options {
            config[*option] = json!(value);
        }
        let slot = config["slot.name"].as_str().context("no slot")?.to_owned();
        let worker = Worker::start_only(kafka.bootstrap_servers(), &topics, &[])?;
        worker.ready().await?;
        let (status, answer) = worker.call("PUT", "/connectors/c/config", Some(&config)).await?;
        ensure!(status == 201, "{answer}");
        worker.states("c", "RUNNING", Some("RUNNING")).await?;
        let reader = Some(Numbers::open(kafka.bootstrap_servers(), &topic)?);
        let mut bounded = Self {
            kafka,
            worker,
            sql,
            administrator,
            slot,
            reader,
            inserted: 0,
            idle: 0,
            deadline,
        };
        // The first event makes the producer and its buffers.
        bounded.insert(1, 100).await?;
        bounded.arrive().await?;
        bounded.idle = bounded.memory("VmRSS")?;
        bounded.forget_peak()?;
        Ok(bounded)
    }

    /// Inserts rows in one transaction, numbered on, with a filling of so many bytes.
    async fn insert(&mut self, rows: u32, bytes: u32) -> Result<()> {
        let (from, to) = (self.inserted, self.inserted + rows);
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
            "insert into inventory.outboxevent (id, aggregatetype, aggregateid, type, timestamp, payload) \
             select gen_random_uuid(), 'Order', (n % 100)::text, 'OrderCreated', now(), \
             jsonb_build_object('n', n, 'fill', repeat('x', {bytes})) \
             from generate_series({from}, {}) n",
            to - 1
        )))
        .execute(&mut self.sql)
        .await?;
        self.inserted = to;
        Ok(())
    }

    /// Waits until everything has arrived, in order.
    async fn arrive(&mut self) -> Result<()> {
        let (until, deadline) = (self.inserted, self.deadline);
        let mut reader = self.reader.take().context("no reader")?;
        let reading = tokio::task::spawn_blocking(move || {
            reader.read_to(until, deadline)?;
            anyhow::Ok(reader)
        });
        self.reader = Some(reading.await?.with_context(|| self.worker.program.tail())?);
        Ok(())
    }

    /// The same; then the most memory that the relay has used meanwhile must be near that of an idle one.
    async fn all_arrive(&mut self, what: &str) -> Result<()> {
        self.arrive().await?;
        let peak = self.memory("VmHWM")?;
        let above = peak.saturating_sub(self.idle);
        println!("{what}: {} MB above {} MB", above >> 20, self.idle >> 20);
        ensure!(above < ABOVE_IDLE_MAX, "{what}: {} MB above idle", above >> 20);
        self.forget_peak()
    }

    /// The process of PostgreSQL that streams.
    async fn sender(&mut self) -> Result<i32> {
        let (pid,): (Option<i32>,) =
            sqlx::query_as("select active_pid from pg_replication_slots where slot_name = $1")
                .bind(&self.slot)
                .fetch_one(&mut self.sql)
                .await?;
        pid.context("nobody reads from the slot")
    }

    /// Waits until the relay has answered PostgreSQL for so long, from now on.
    async fn replies_for(&mut self, time: Duration) -> Result<()> {
        let sender = self.sender().await?;
        let seconds = time.as_secs_f64();
        let (now,): (f64,) = sqlx::query_as("select extract(epoch from clock_timestamp())::float8")
            .fetch_one(&mut self.administrator)
            .await?;
        let sql = tokio::sync::Mutex::new(&mut self.administrator);
        eventually("the relay answers PostgreSQL", time + Duration::from_secs(60), || async {
            let mut sql = sql.lock().await;
            let replied: Option<(Option<f64>,)> = sqlx::query_as(
                "select extract(epoch from reply_time)::float8 from pg_stat_replication where pid = $1",
            )
            .bind(sender)
            .fetch_optional(&mut **sql)
            .await?;
            let Some((replied,)) = replied else { bail!("PostgreSQL has ended the stream") };
            Ok(replied.filter(|replied| replied - now >= seconds).map(|_| ()))
        })
        .await
    }

    /// Lets the broker run for a tenth of the time.
    fn slow_broker(&self) -> Result<SlowBroker> {
        let pid = self.kafka.pid().context("the broker does not run")?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let running = tokio::spawn(async move {
            while !stopped.is_cancelled() {
                signal(pid, "STOP")?;
                // Not a wait for something: it is the slowness itself.
                tokio::time::sleep(Duration::from_millis(180)).await;
                signal(pid, "CONT")?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        });
        Ok(SlowBroker { stop, running })
    }

    fn memory(&self, field: &str) -> Result<u64> {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.worker.program.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kibibytes.context("no such figure")? << 10)
    }

    /// The peak counts anew from here.
    fn forget_peak(&self) -> Result<()> {
        let path = format!("/proc/{}/clear_refs", self.worker.program.pid());
        Ok(std::fs::write(path, "5")?)
    }
}

struct SlowBroker {
    stop: CancellationToken,
    running: tokio::task::JoinHandle<Result<()>>,
}

impl SlowBroker {
    async fn end(self) -> Result<()> {
        self.stop.cancel();
        self.running.await?
    }
}

fn signal(pid: u32, name: &str) -> Result<()> {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status()?;
    ensure!(status.success(), "signal {name}");
    Ok(())
}

async fn create(bootstrap_servers: &str, name: &str) -> Result<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap_servers);
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    let new = NewTopic::new(name, 1, TopicReplication::Fixed(1));
    let new = new.set("max.message.bytes", "4194304");
    for created in admin.create_topics([&new], &AdminOptions::new()).await? {
        created.map_err(|(topic, error)| anyhow::anyhow!("create {topic}: {error}"))?;
    }
    Ok(())
}

/// Reads the events and keeps none: their numbers must come one after the other.
struct Numbers {
    reader: topic::Reader,
    next: u32,
}

impl Numbers {
    fn open(bootstrap_servers: &str, name: &str) -> Result<Self> {
        Ok(Self { reader: topic::Reader::open(bootstrap_servers, name)?, next: 0 })
    }

    fn read_to(&mut self, end: u32, deadline: Duration) -> Result<()> {
        let until = Instant::now() + deadline;
        while self.next < end {
            ensure!(Instant::now() < until, "event {} is not there after {deadline:?}", self.next);
            // The broker may just be coming back.
            let Ok(Some(record)) = self.reader.next() else { continue };
            let value = record.value.as_deref().context("no value")?;
            let payload: Value = serde_json::from_slice(value)?;
            ensure!(payload["n"] == self.next, "{} in place of {}", payload["n"], self.next);
            self.next += 1;
        }
        Ok(())
    }
}
