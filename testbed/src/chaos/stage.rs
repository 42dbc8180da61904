//! The flow that is hurt: started, watched, counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::{Connection as _, MySqlConnection, Row as _};

use super::count::{Arrival, Counts, ORDER_TOPIC, ShipmentSide, count, is_complete};
use super::{Plan, STEP_BOUND, arrivals, load, truth};
use crate::config::Settings;
use crate::database::{mysql_options, statement};
use crate::deployment::{Deployment, DeploymentOptions, Event, Part, Ports, Programs};
use crate::links::Links;
use crate::program::{Program, workspace};
use crate::server::RunFolder;
use crate::topic;
use crate::wait::eventually;

/// More than one, so that the order of keys is not the order of everything.
const PARTITIONS: i32 = 6;

const CUSTOMER_TOPIC: &str = "CustomerEvents";

/// The connector as a user registers it.
const CONNECTOR_FILE: &str = "register-postgres.json";

/// The successor of a shipment-service that was killed waits so long for its partitions.
const SESSION_TIMEOUT_SECONDS: &str = "2";

const REQUEST_BOUND: Duration = Duration::from_secs(30);

/// Looks at the end that must find the same as the one before: nothing arrives any more.
const LOOKS_AT_REST: usize = 2;

/// When everything is acknowledged, what has not come after this time is not on its way: the relay's producer, a
/// rebalance and the consumer took less than 5 s together.
const SILENCE_AT_REST: Duration = Duration::from_secs(15);

/// Between two looks, each of which reads everything.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// Everything, running.
pub(super) struct Stage {
    pub(super) flow: Deployment,
    http: Client,
    say: Say,
    began: Instant,
    /// The proxies between the parts, where there are any.
    pub(super) links: Option<Arc<Links>>,
}

impl Stage {
    /// Starts everything and registers the connector.
    pub(super) async fn set(
        plan: &Plan,
        progress: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::set_on(plan, Ports::free(), None, Arc::new(progress)).await
    }

    /// The same, with a proxy on each connection.
    pub(super) async fn set_with_links(
        plan: &Plan,
        progress: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<Self> {
        let ports = Ports::free();
        let links = Arc::new(Links::to(&ports).await?);
        Self::set_on(plan, ports, Some(links), Arc::new(progress)).await
    }

    async fn set_on(
        plan: &Plan,
        ports: Ports,
        links: Option<Arc<Links>>,
        say: Say,
    ) -> Result<Self> {
        let settings = Settings::read();
        let programs = tokio::task::spawn_blocking(Programs::build).await??;
        let folder = RunFolder::create(&settings, plan.keep)?;
        if plan.keep {
            say(&format!("data and logs: {}", folder.path().display()));
        }
        let told = Arc::clone(&say);
        let options = DeploymentOptions {
            ports,
            // A kill leaves what was written to the system's cache, and every commit is written there.
            durable: false,
            with_relay: false,
            links: links.clone(),
            // A single node forgets commits when it comes back before its old registration is fenced (decision 12).
            controller_apart: plan.exactly_once,
            observer: Arc::new(move |event| {
                if let Event::Progress(text) = event {
                    told(text);
                }
            }),
        };
        let start = Deployment::start(&settings, folder, programs, options);
        let flow = Box::pin(start).await?;
        let http = Client::builder().timeout(REQUEST_BOUND).build()?;
        let mut stage = Self { flow, http, say, began: Instant::now(), links };
        stage.prepare(plan).await?;
        stage.say("everything is up");
        Ok(stage)
    }

    async fn prepare(&mut self, plan: &Plan) -> Result<()> {
        let brokers = self.flow.servers.kafka.bootstrap_servers();
        for topic in [ORDER_TOPIC, CUSTOMER_TOPIC] {
            topic::create(brokers, topic, PARTITIONS).await?;
        }
        let timeout = ("GROUP_SESSION_TIMEOUT_SECONDS", SESSION_TIMEOUT_SECONDS);
        self.flow.shipment_service.set_variable(timeout.0, timeout.1);
        if plan.exactly_once {
            // The worker's own switch in Kafka Connect, beside the connector's.
            self.flow.relay.set_variable("CONNECT_EXACTLY_ONCE_SOURCE_SUPPORT", "enabled");
        }
        if let Some(sabotage) = plan.sabotage {
            sabotage.prepare(&mut self.flow).await?;
        }
        self.flow.relay.start()?;
        self.flow.relay.wait_until_ready().await?;
        self.register(plan.exactly_once).await?;
        truth::begin(&self.flow.order_database).await
    }

    async fn register(&self, exactly_once: bool) -> Result<()> {
        let file = workspace().join(CONNECTOR_FILE);
        let text = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        let mut connector: Value = serde_json::from_slice(&text).context(CONNECTOR_FILE)?;
        if exactly_once {
            connector["config"]["exactly.once.support"] = json!("required");
        }
        let url = format!("{}/connectors", self.flow.relay.url());
        let answer = self.http.post(url).json(&connector).send().await?;
        let status = answer.status();
        ensure!(
            status.is_success(),
            "the relay refuses the connector: {status} {}",
            answer.text().await?
        );
        self.until_streaming().await
    }

    /// Waits until connector and task run.
    pub(super) async fn until_streaming(&self) -> Result<()> {
        eventually("running connector", STEP_BOUND, async || {
            let url = format!("{}/connectors/outbox-connector/status", self.flow.relay.url());
            let status: Value = self.http.get(url).send().await?.json().await?;
            if status["tasks"][0]["state"] == json!("FAILED") {
                return Ok(Some(Err(anyhow!("the task failed: {status}"))));
            }
            let states = (&status["connector"]["state"], &status["tasks"][0]["state"]);
            ensure!(states == (&json!("RUNNING"), &json!("RUNNING")), "{status}");
            Ok(Some(Ok(())))
        })
        .await?
    }

    /// After the last blow: every part says that it is ready, and nothing has ended that nobody killed.
    pub(super) async fn until_all_ready(&self) -> Result<()> {
        let ready = async {
            self.flow.order_service.wait_until_ready().await?;
            self.flow.relay.wait_until_ready().await?;
            self.flow.shipment_service.wait_until_ready().await?;
            self.until_streaming().await
        };
        let ready = ready.await;
        self.unless_ended_by_itself(ready)
    }

    /// What came of a wait, unless something has ended that nobody killed: then that is the error, and how it ended. It is
    /// the cause of what was waited for in vain, and the next kill and start would hide it.
    pub(super) fn unless_ended_by_itself<T>(&self, waited: Result<T>) -> Result<T> {
        let ended = self.flow.ended();
        let ended: Vec<String> =
            ended.into_iter().map(|(name, status)| format!("{name}: {status}")).collect();
        ensure!(ended.is_empty(), "ended by itself: {}", ended.join(", "));
        waited
    }

    /// Whether the part's own health is good.
    pub(super) async fn is_ready(&self, part: &Part) -> bool {
        let answer = self.http.get(format!("{}/health/ready", part.url())).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    pub(super) fn say(&self, text: &str) {
        (self.say)(&format!("{:6.1} s  {text}", self.began.elapsed().as_secs_f32()));
    }

    /// Places one order and returns its id.
    pub(super) async fn place_order(&self) -> Result<i64> {
        let url = self.flow.order_service.url();
        load::place(&self.http, url, 1).await.map(|(order, _)| order)
    }

    /// How many events the shipment side has handled.
    ///
    /// # Errors
    /// When its database does not answer just now.
    pub(super) async fn handled(&self) -> Result<u64> {
        let mut mysql = self.mysql().await?;
        let query = "select count(*) from ConsumedMessage";
        let handled: i64 = sqlx::query_scalar(query).fetch_one(&mut mysql).await?;
        mysql.close().await?;
        Ok(handled.unsigned_abs())
    }

    /// How many shipments there are.
    ///
    /// # Errors
    /// When the database does not answer just now.
    pub(super) async fn shipments(&self) -> Result<u64> {
        let mut mysql = self.mysql().await?;
        let query = "select count(*) from Shipment";
        let shipments: i64 = sqlx::query_scalar(query).fetch_one(&mut mysql).await?;
        mysql.close().await?;
        Ok(shipments.unsigned_abs())
    }

    /// Waits until the shipment side has handled so many more events: the whole flow works.
    pub(super) async fn until_more_are_handled(&self, more: u64) -> Result<()> {
        let now = async || self.handled().await.map(Some);
        let before = eventually("answer from MySQL", STEP_BOUND, now).await?;
        eventually("events that are handled", STEP_BOUND, async || {
            Ok((self.handled().await? >= before + more).then_some(()))
        })
        .await
    }

    pub(super) async fn mysql(&self) -> Result<MySqlConnection> {
        Ok(MySqlConnection::connect_with(&mysql_options(&self.flow.shipment_database)).await?)
    }

    /// Waits until nothing moves any more and counts. What is missing then is lost: either the bound has passed, or the
    /// relay has acknowledged everything and nothing has come for a while.
    pub(super) async fn count(&self, bound: Duration) -> Result<Counts> {
        let counted = self.count_at_rest(bound).await;
        let counts = self.unless_ended_by_itself(counted)?;
        let mut mysql = self.mysql().await?;
        // Last: a server that finds an index damaged answers no question from it any more.
        let damaged = damaged_tables(&mut mysql).await.context("check MySQL's tables")?;
        mysql.close().await?;
        Ok(Counts { damaged, ..counts })
    }

    async fn count_at_rest(&self, bound: Duration) -> Result<Counts> {
        let began = Instant::now();
        let database = &self.flow.order_database;
        let wal_end = truth::wal_end(database).await?;
        let mut before: Option<Counts> = None;
        let (mut same, mut same_since) = (0, Instant::now());
        loop {
            let acknowledged = truth::is_acknowledged(database, &wal_end).await?;
            let committed = truth::events(database).await?;
            let orders = truth::orders(database).await?;
            let arrived = self.arrived().await?;
            let side = self.shipment_side().await?;
            let complete = is_complete(&committed, &arrived, &side);
            let counts = count(&committed, &orders, arrived, &side);
            if before.as_ref() == Some(&counts) {
                same += 1;
            } else {
                (same, same_since) = (0, Instant::now());
            }
            let at_rest = complete && same >= LOOKS_AT_REST
                || acknowledged && same_since.elapsed() >= SILENCE_AT_REST;
            if at_rest || began.elapsed() >= bound {
                return Ok(counts);
            }
            before = Some(counts);
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn arrived(&self) -> Result<Vec<Arrival>> {
        let brokers = self.flow.servers.kafka.bootstrap_servers();
        let mut arrived = arrivals::read(brokers, ORDER_TOPIC).await?;
        arrived.extend(arrivals::read(brokers, CUSTOMER_TOPIC).await?);
        Ok(arrived)
    }

    async fn shipment_side(&self) -> Result<ShipmentSide> {
        let mut mysql = self.mysql().await?;
        let query = "select orderId from Shipment";
        let shipments = sqlx::query_scalar(query).fetch_all(&mut mysql).await?;
        let query = "select lower(hex(eventId)) from ConsumedMessage";
        let handled = sqlx::query_scalar(query).fetch_all(&mut mysql).await?;
        mysql.close().await?;
        Ok(ShipmentSide { shipments, handled })
    }

    /// The last lines of each program, where something went wrong.
    fn say_last_words(&self) {
        for part in [&self.flow.order_service, &self.flow.relay, &self.flow.shipment_service] {
            self.say(&part.program().map_or_else(|| "not running".to_owned(), Program::tail));
        }
    }

    /// Restarts the relay on a server that gives up a silent connection after `timeout`: it is read when a stream
    /// begins.
    pub(super) async fn shorten_wal_sender_timeout(&mut self, timeout: &str) -> Result<()> {
        truth::set_wal_sender_timeout(&self.flow.order_database, timeout).await?;
        self.flow.relay.terminate().await?;
        self.flow.relay.start()?;
        self.until_streaming().await
    }

    /// Ends the programs in order, and the servers without; after a failure it says what the programs said last. What
    /// does not end in order after all this is a defect, too.
    pub(super) async fn strike_the_set<T>(self, outcome: Result<T>) -> Result<T> {
        if outcome.is_err() {
            self.say_last_words();
        }
        let Deployment { mut order_service, mut relay, mut shipment_service, .. } = self.flow;
        let (orders, relayed, shipments) = tokio::join!(
            order_service.terminate(),
            relay.terminate(),
            shipment_service.terminate()
        );
        let outcome = outcome?;
        let failed = [orders, relayed, shipments].into_iter().filter_map(Result::err);
        let failed: Vec<String> = failed.map(|error| format!("{error:#}")).collect();
        ensure!(failed.is_empty(), "{}", failed.join("\n"));
        Ok(outcome)
    }
}

/// What MySQL itself finds wrong with the tables that are counted; empty when it says of each that it is sound.
async fn damaged_tables(mysql: &mut MySqlConnection) -> Result<Vec<String>> {
    let mut damaged = Vec::new();
    for table in ["Shipment", "ConsumedMessage"] {
        // Not a prepared statement: MySQL cannot prepare this one.
        let query = statement(format!("check table {table}"));
        let messages = sqlx::raw_sql(query).fetch_all(&mut *mysql).await?;
        ensure!(!messages.is_empty(), "MySQL says nothing about {table}");
        for message in messages {
            let (kind, text): (String, String) =
                (message.try_get("Msg_type")?, message.try_get("Msg_text")?);
            if kind != "status" || text != "OK" {
                damaged.push(format!("{table}: {text}"));
            }
        }
    }
    Ok(damaged)
}
