//! Real Debezium and the relay take each other's place, again and again, while orders flow: nothing is lost, nothing
//! that a stored position covers comes again, and each order has one shipment.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use anyhow::ensure;
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::{Connection as _, MySqlConnection, PgConnection};
use testbed::deployment::{Deployment, OFFSET_STORAGE_TOPIC};
use testbed::server::Connect;
use testbed::topic::{self, Record};
use testbed::{Settings, eventually};

use crate::flow::{DEADLINE, file, register_at, start_without_relay, until_running};
use crate::steady_orders::{CUSTOMERS, SteadyOrders};

/// At least so many are placed, spread over all workers and all changes of workers.
const ORDERS: usize = 1000;

/// Placed while a worker runs, and again while none does.
const SHARE: usize = 100;

/// More than one, so that a worker with another partitioner would be noticed.
const PARTITIONS: i32 = 6;

const ORDER_TOPIC: &str = "OrderEvents";
const CUSTOMER_TOPIC: &str = "CustomerEvents";

/// Positions are stored this often. What was written since the last time may come again after a `kill -9`.
const OFFSET_FLUSH_INTERVAL_MS: &str = "1000";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Worker {
    Debezium,
    Relay,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// SIGTERM: the worker stores how far it came.
    Stop,
    /// `kill -9`
    Kill,
}

/// Who works, and how it ends.
const SHIFTS: [(Worker, End); 4] = [
    (Worker::Debezium, End::Stop),
    (Worker::Relay, End::Stop),
    (Worker::Debezium, End::Kill),
    (Worker::Relay, End::Kill),
];

/// What a worker left: the records of both topics by partition and offset, and those of them that may come again.
struct Left {
    written: HashSet<Place>,
    may_repeat: HashSet<Place>,
}

type Place = (&'static str, i32, i64);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debezium_and_the_relay_take_each_others_place_while_orders_flow() {
    let mut swap = Box::pin(Swap::start()).await;
    let database = swap.traces_in_the_database().await;
    let mut orders = SteadyOrders::begin(&swap.client, swap.flow.order_service.url());
    let mut left = Vec::new();
    for (number, (worker, end)) in SHIFTS.into_iter().enumerate() {
        if number > 0 {
            swap.start_worker(worker).await;
        }
        let placed = orders.more(SHARE).await;
        topic::wait_for(swap.brokers(), ORDER_TOPIC, placed, DEADLINE).await.unwrap();
        left.push(swap.end_worker(worker, end).await);
        // These wait in the slot for the next worker.
        orders.more(SHARE).await;
    }
    if swap.debezium_would_refuse().await {
        // As decision 10 says, the relay puts it right: it starts and stops.
        swap.say("the relay was killed before it stored what it had acknowledged");
        swap.start_worker(Worker::Relay).await;
        left.push(swap.end_worker(Worker::Relay, End::Stop).await);
        assert!(!swap.debezium_would_refuse().await, "a relay that was stopped leaves no such gap");
    }
    swap.start_worker(Worker::Debezium).await;
    orders.until(ORDERS).await;
    orders.more(SHARE).await;
    let placed = orders.stop().await;
    assert!(placed >= ORDERS);
    swap.check_end(placed, &left).await;
    assert_eq!(swap.traces_in_the_database().await, database);
    swap.debezium.stop().await.unwrap();
    assert_eq!(swap.flow.stop().await, Vec::<String>::new());
}

/// The flow with two workers for one place: same group, same storage topics, same port.
struct Swap {
    flow: Deployment,
    debezium: Connect,
    client: Client,
    began: Instant,
}

impl Swap {
    /// Debezium works first: it creates the storage topics, the publication and the slot.
    async fn start() -> Self {
        let began = Instant::now();
        let mut flow = start_without_relay().await;
        flow.relay.set_variable("OFFSET_FLUSH_INTERVAL_MS", OFFSET_FLUSH_INTERVAL_MS);
        let client = Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
        let brokers = flow.servers.kafka.bootstrap_servers();
        for topic in [ORDER_TOPIC, CUSTOMER_TOPIC] {
            topic::create(brokers, topic, PARTITIONS).await.unwrap();
        }
        let mut options = flow.connect_options();
        let interval = ("offset.flush.interval.ms", OFFSET_FLUSH_INTERVAL_MS);
        options.settings.push((interval.0.to_owned(), interval.1.to_owned()));
        let progress = std::sync::Arc::new(|text: &str| eprintln!("testbed: {text}"));
        let settings = Settings::read();
        let debezium = Connect::start(&settings, &flow.folder, options, &(progress as _)).await;
        let swap = Self { flow, debezium: debezium.unwrap(), client, began };
        swap.say(&format!("{} answers", swap.debezium.version()));
        register_at(&swap.client, swap.url(), &swap.connector()).await.unwrap();
        swap.say("its connector runs");
        swap
    }

    fn say(&self, text: &str) {
        println!("{:5.1} s: {text}", self.began.elapsed().as_secs_f32());
    }

    fn brokers(&self) -> &str {
        self.flow.servers.kafka.bootstrap_servers()
    }

    /// Of whichever worker runs.
    fn url(&self) -> &str {
        self.flow.relay.url()
    }

    /// `register-postgres.json`, with the address of this database.
    fn connector(&self) -> Value {
        let mut connector = file("register-postgres.json");
        connector["config"]["database.hostname"] = json!(self.flow.order_database.host);
        connector["config"]["database.port"] = json!(self.flow.order_database.port.to_string());
        connector
    }

    /// Starts a worker in the place of the one before, and asks it what it has found.
    async fn start_worker(&mut self, worker: Worker) {
        let stored = self.stored_offset().await;
        match worker {
            Worker::Debezium => self.debezium.restart().await.unwrap(),
            Worker::Relay => {
                self.flow.relay.start().unwrap();
                self.flow.relay.wait_until_ready().await.unwrap();
            }
        }
        self.say(&format!("{worker:?} answers"));
        let connectors = self.get("/connectors").await;
        assert_eq!(connectors, json!(["outbox-connector"]));
        until_running(&self.client, self.url()).await.unwrap();
        self.say(&format!("{worker:?} runs the connector"));
        let mut expected = self.connector()["config"].take();
        let mut found = self.get("/connectors/outbox-connector/config").await;
        // The relay shows a mask, Kafka Connect the password.
        expected["name"] = json!("outbox-connector");
        for config in [&mut expected, &mut found] {
            config["database.password"].take();
        }
        assert_eq!(found, expected);
        assert!(stored["lsn"].is_u64(), "{stored}");
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.client.get(format!("{}{path}", self.url())).send().await.unwrap();
        answer.json().await.unwrap()
    }

    async fn end_worker(&mut self, worker: Worker, end: End) -> Left {
        let covered = match end {
            End::Stop => None,
            End::Kill => Some(self.covered_by_a_stored_offset().await),
        };
        match (worker, end) {
            (Worker::Debezium, End::Stop) => self.debezium.stop().await.unwrap(),
            (Worker::Debezium, End::Kill) => self.debezium.kill().await,
            (Worker::Relay, End::Stop) => self.flow.relay.terminate().await.unwrap(),
            (Worker::Relay, End::Kill) => self.flow.relay.kill().await,
        }
        let written: HashSet<Place> = self.places().await;
        // A worker that was stopped has stored a position that covers all that it wrote.
        let covered = covered.unwrap_or_else(|| written.clone());
        let may_repeat: HashSet<Place> = written.difference(&covered).copied().collect();
        self.say(&format!(
            "{worker:?} is gone ({end:?}), {} records are there, {} may come again",
            written.len(),
            may_repeat.len()
        ));
        Left { written, may_repeat }
    }

    /// Records that a position covers which is in the offset topic. The second position that is stored after they were
    /// read was taken after the first was stored: at that time they had been confirmed.
    async fn covered_by_a_stored_offset(&self) -> HashSet<Place> {
        let places = self.places().await;
        let before = self.stored_offsets().await.len();
        eventually("two more stored positions", DEADLINE, async || {
            Ok((self.stored_offsets().await.len() >= before + 2).then_some(()))
        })
        .await
        .unwrap();
        places
    }

    async fn places(&self) -> HashSet<Place> {
        let mut places = HashSet::new();
        for topic in [ORDER_TOPIC, CUSTOMER_TOPIC] {
            let records = topic::read(self.brokers(), topic).await.unwrap();
            places.extend(records.iter().map(|record| place(topic, record)));
        }
        places
    }

    async fn stored_offsets(&self) -> Vec<Record> {
        let records = topic::read(self.brokers(), OFFSET_STORAGE_TOPIC).await.unwrap();
        assert!(records.iter().all(|record| {
            record.key_text() == r#"["outbox-connector",{"server":"dbserver1"}]"#
        }));
        let partitions: BTreeSet<i32> = records.iter().map(|record| record.partition).collect();
        assert_eq!(partitions.len(), 1, "compaction would keep two positions: {partitions:?}");
        records
    }

    async fn stored_offset(&self) -> Value {
        let records = self.stored_offsets().await;
        serde_json::from_slice(records.last().unwrap().value.as_deref().unwrap()).unwrap()
    }

    /// Debezium's own condition: it does not start where the slot's `restart_lsn` is beyond the stored `lsn_proc`. After a
    /// kill of the relay that is so when PostgreSQL has logged its running transactions (every 15 s) between the position
    /// that was stored last and the one that was acknowledged last, which is up to `offset.flush.interval.ms` ahead.
    async fn debezium_would_refuse(&self) -> bool {
        let stored = self.stored_offset().await["lsn_proc"].as_i64().unwrap();
        let mut postgres = PgConnection::connect(&self.flow.order_database.url()).await.unwrap();
        let query = "select (restart_lsn - '0/0')::int8 from pg_replication_slots";
        let restart: i64 = sqlx::query_scalar(query).fetch_one(&mut postgres).await.unwrap();
        restart > stored
    }

    /// What a worker that does not accept its predecessor's would replace.
    async fn traces_in_the_database(&self) -> Vec<String> {
        let mut postgres = PgConnection::connect(&self.flow.order_database.url()).await.unwrap();
        let query = "select 'publication ' || oid || ' ' || pubname from pg_publication \
                     union all select 'table ' || tablename from pg_publication_tables \
                     union all select 'slot ' || slot_name || ' ' || plugin from pg_replication_slots order by 1";
        sqlx::query_scalar(query).fetch_all(&mut postgres).await.unwrap()
    }
}

fn place(topic: &'static str, record: &Record) -> Place {
    (topic, record.partition, record.offset)
}

// ---- the end

impl Swap {
    async fn check_end(&self, placed: usize, left: &[Left]) {
        let mut postgres = PgConnection::connect(&self.flow.order_database.url()).await.unwrap();
        let query = "select id from inventory.purchaseorder";
        let ordered: Vec<i64> = sqlx::query_scalar(query).fetch_all(&mut postgres).await.unwrap();
        let ordered: BTreeSet<i64> = ordered.into_iter().collect();
        assert_eq!(ordered.len(), placed);
        let mut repeated = 0;
        for topic in [ORDER_TOPIC, CUSTOMER_TOPIC] {
            let records = self.all_events_of(topic, &ordered).await;
            let again = check_repeats(topic, &records, left);
            assert_eq!(records.len(), ordered.len() + again);
            repeated += again;
            check_keys(topic, &records, left);
        }
        self.say(&format!("{placed} orders; {repeated} of {} events came again", 2 * placed));
        self.check_shipments(&ordered).await;
    }

    /// Waits until each order has an event in the topic.
    async fn all_events_of(&self, topic: &str, ordered: &BTreeSet<i64>) -> Vec<Record> {
        eventually("event of each order", DEADLINE, async || {
            let records = topic::read(self.brokers(), topic).await?;
            let found: BTreeSet<i64> = records.iter().map(order_of).collect();
            let missing: Vec<_> = ordered.difference(&found).collect();
            ensure!(missing.is_empty(), "{topic} lacks {} orders: {missing:?}", missing.len());
            Ok(Some(records))
        })
        .await
        .unwrap_or_else(|error| {
            // Its last words say why, where it does not run.
            let log = self.debezium.log().unwrap_or_default();
            let errors: Vec<&str> = log.lines().filter(|line| line.contains("rror")).collect();
            panic!("{error:?}\nKafka Connect said:\n{}", errors.join("\n"))
        })
    }

    async fn check_shipments(&self, ordered: &BTreeSet<i64>) {
        let shipped = eventually("shipment of each order", DEADLINE, async || {
            let mut mysql = MySqlConnection::connect(&self.flow.shipment_database.url()).await?;
            let query = "select orderId from Shipment";
            let shipped: Vec<i64> = sqlx::query_scalar(query).fetch_all(&mut mysql).await?;
            Ok((shipped.len() >= ordered.len()).then_some(shipped))
        });
        let shipped = shipped.await.unwrap();
        assert_eq!(shipped.len(), ordered.len(), "an order was shipped twice");
        assert_eq!(&shipped.into_iter().collect::<BTreeSet<_>>(), ordered);
    }
}

/// The order that an event is about, as its payload says.
fn order_of(record: &Record) -> i64 {
    let payload: Value = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
    let field = match record.header("eventType").as_deref() {
        Some("OrderCreated") => "id",
        Some("InvoiceCreated") => "orderId",
        other => panic!("an event of type {other:?}"),
    };
    payload[field].as_i64().unwrap()
}

/// Each order has one event; its record comes again only if the worker that wrote it was killed before it stored a
/// position that covers it. Returns how many came again.
fn check_repeats(topic: &'static str, records: &[Record], left: &[Left]) -> usize {
    let mut by_event: BTreeMap<String, Vec<&Record>> = BTreeMap::new();
    let mut events_of_order: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    for record in records {
        let id = record.header("id").unwrap();
        events_of_order.entry(order_of(record)).or_default().insert(id.clone());
        by_event.entry(id).or_default().push(record);
    }
    assert!(events_of_order.values().all(|ids| ids.len() == 1), "an order has two events");
    for (id, records) in &by_event {
        // All but the last were repeated.
        for record in &records[..records.len() - 1] {
            let place = place(topic, record);
            let writer = left.iter().find(|left| left.written.contains(&place));
            let may_repeat = writer.is_some_and(|left| left.may_repeat.contains(&place));
            let places: Vec<_> = records.iter().map(|r| (r.partition, r.offset)).collect();
            assert!(
                may_repeat,
                "{id} came again, its position had been stored: {topic} {places:?}"
            );
        }
    }
    records.len() - by_event.len()
}

/// Each key stays on its partition, whoever writes, and its orders keep their order.
fn check_keys(topic: &'static str, records: &[Record], left: &[Left]) {
    let mut by_key: BTreeMap<String, Vec<&Record>> = BTreeMap::new();
    for record in records {
        by_key.entry(record.key_text()).or_default().push(record);
    }
    let partitions: BTreeSet<i32> = records.iter().map(|record| record.partition).collect();
    assert_eq!(partitions.len(), usize::try_from(PARTITIONS).unwrap(), "of {topic}");
    for (key, records) in &by_key {
        let partitions: BTreeSet<i32> = records.iter().map(|record| record.partition).collect();
        assert_eq!(partitions.len(), 1, "key {key} of {topic} lies on {partitions:?}");
        let mut seen = BTreeSet::new();
        let firsts: Vec<i64> =
            records.iter().map(|r| order_of(r)).filter(|order| seen.insert(*order)).collect();
        assert!(firsts.is_sorted(), "key {key} of {topic}: {firsts:?}");
    }
    if topic == CUSTOMER_TOPIC {
        assert_eq!(by_key.len(), usize::try_from(CUSTOMERS).unwrap());
        for (key, records) in by_key {
            let shifts: BTreeSet<usize> =
                records.iter().map(|record| shift_of(&place(topic, record), left)).collect();
            // The last is Debezium's. Between it and those before, the relay may have had to put its position right,
            // whichever keys were left to that.
            let mut all = (0..SHIFTS.len()).chain([left.len()]);
            assert!(
                all.all(|shift| shifts.contains(&shift)),
                "key {key}: not all workers, {shifts:?}"
            );
        }
    }
}

/// Which worker wrote it: the first that left it behind.
fn shift_of(place: &Place, left: &[Left]) -> usize {
    left.iter().position(|left| left.written.contains(place)).unwrap_or(left.len())
}
