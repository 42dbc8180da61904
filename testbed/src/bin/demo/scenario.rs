//! The example's scenario: register, order, cancel. Each hop is shown as it happens and checked exactly.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use testbed::deployment::Deployment;
use testbed::eventually;
use tokio::sync::mpsc;

use crate::checks::Checks;
use crate::launch::LogLine;
use crate::outbox::{self, Onlooker, OutboxRow};
use crate::screen::{Screen, millis, one_line};
use crate::shipments;
use crate::topics::{self, Follower};

/// For one hop; the usual is milliseconds.
const HOP_BOUND: Duration = Duration::from_secs(30);

/// The root of the repository.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Plays it on a fresh deployment and returns whether everything held.
pub(crate) async fn play(
    screen: Screen,
    deployment: &Deployment,
    lines: &mut mpsc::Receiver<LogLine>,
) -> Result<bool> {
    let client = Client::builder().timeout(HOP_BOUND).build()?;
    let onlooker = Onlooker::start(&deployment.order_database.url()).await?;
    let brokers = deployment.servers.kafka.bootstrap_servers();
    let mut scene = Scene {
        screen,
        deployment,
        lines,
        client,
        onlooker,
        order_events: Follower::start(brokers, "OrderEvents")?,
        customer_events: Follower::start(brokers, "CustomerEvents")?,
        checks: Checks::default(),
        event_ids: Vec::new(),
    };
    let played = async {
        scene.register().await?;
        scene.place_order().await?;
        scene.cancel_line().await?;
        scene.look_at_the_end().await
    };
    if let Err(error) = Box::pin(played).await {
        scene.checks.missing(&error);
    }
    screen.title("Result");
    let held = scene.checks.conclude(screen);
    scene.onlooker.stop().await?;
    Ok(held)
}

struct Scene<'a> {
    screen: Screen,
    deployment: &'a Deployment,
    lines: &'a mut mpsc::Receiver<LogLine>,
    client: Client,
    onlooker: Onlooker,
    order_events: Follower,
    customer_events: Follower,
    checks: Checks,
    /// Of the events in `OrderEvents`.
    event_ids: Vec<String>,
}

/// One event of the scenario.
struct Expected {
    aggregate: (&'static str, &'static str),
    event_type: &'static str,
    payload: Value,
}

impl Scene<'_> {
    async fn register(&mut self) -> Result<()> {
        self.screen.title("1. Register the connector");
        let url = format!("http://localhost:{}/connectors", self.deployment.ports.relay);
        let began = Instant::now();
        let path = format!("{url}/");
        let (status, _) = self.request(Method::POST, &path, "register-postgres.json").await?;
        self.checks.expect("the connector is created", status == 201, || status.to_string());
        let state = async || {
            let answer = self.client.get(format!("{url}/outbox-connector/status")).send().await?;
            let status: Value = answer.json().await?;
            let states = (&status["connector"]["state"], &status["tasks"][0]["state"]);
            if *states.1 == json!("FAILED") {
                return Ok(Some(Err(status["tasks"][0]["trace"].to_string())));
            }
            Ok((states == (&json!("RUNNING"), &json!("RUNNING"))).then_some(Ok(())))
        };
        match eventually("running connector", HOP_BOUND, state).await? {
            Ok(()) => self.screen.hop("relay", "connector and task RUNNING", Some(began.elapsed())),
            Err(trace) => bail!("the connector's task failed: {trace}"),
        }
        // An order that is placed before the slot exists leaves nothing in it.
        let lsn = eventually("replication slot that is read", HOP_BOUND, || {
            outbox::relay_slot(&self.deployment.order_database)
        });
        let slot = format!("slot {} is read, confirmed up to {}", outbox::RELAY_SLOT, lsn.await?);
        self.screen.hop("PostgreSQL", &slot, Some(began.elapsed()));
        // What the slot of the onlooker saw of the start does not belong to the story.
        self.onlooker.new_rows().await?;
        Ok(())
    }

    async fn place_order(&mut self) -> Result<()> {
        self.screen.title("2. Place an order");
        let began = Instant::now();
        let url = self.orders_url("");
        let body = "resources/data/create-order-request.json";
        let (status, answer) = self.request(Method::POST, &url, body).await?;
        let order = contract("order-created.json")?;
        self.checks.expect("the order is taken with 200", status == 200, || status.to_string());
        self.checks.expect_json("the answer is the order", &order, &answer);
        let invoice = contract("invoice-created.json")?;
        let expected = [
            Expected { aggregate: ("Order", "1"), event_type: "OrderCreated", payload: order },
            Expected {
                aggregate: ("Customer", "123"),
                event_type: "InvoiceCreated",
                payload: invoice,
            },
        ];
        self.follow(began, &expected).await?;
        self.screen.note("(The first event of each kind also creates its topic; see how long the next one takes.)");
        Ok(())
    }

    async fn cancel_line(&mut self) -> Result<()> {
        self.screen.title("3. Cancel one of its lines");
        let began = Instant::now();
        let url = self.orders_url("/1/lines/2");
        let body = "resources/data/cancel-order-line-request.json";
        let (status, answer) = self.request(Method::PUT, &url, body).await?;
        let mut order = contract("order-created.json")?;
        order["lineItems"][1]["status"] = json!("CANCELLED");
        self.checks.expect("the change is taken with 200", status == 200, || status.to_string());
        self.checks.expect_json("the answer is the changed order", &order, &answer);
        let payload = contract("order-line-updated.json")?;
        let expected =
            [Expected { aggregate: ("Order", "1"), event_type: "OrderLineUpdated", payload }];
        self.follow(began, &expected).await
    }

    /// From the WAL to MySQL.
    async fn follow(&mut self, began: Instant, expected: &[Expected]) -> Result<()> {
        let rows = self.onlooker.new_rows().await?;
        for row in &rows {
            self.show_row(row);
        }
        let count = rows.len();
        self.checks.expect("outbox rows in the WAL", count == expected.len(), || count.to_string());
        for expected in expected {
            let what = expected.event_type;
            let row = rows.iter().find(|row| row.event_type == what);
            let row = row.with_context(|| format!("no outbox row of type {what} in the WAL"))?;
            let aggregate = (row.aggregate_type.as_str(), row.aggregate_id.as_str());
            self.checks.expect(
                &format!("{what}: aggregate in the outbox"),
                aggregate == expected.aggregate,
                || format!("{aggregate:?}"),
            );
            self.checks.expect(
                &format!("{what}: the row is deleted in its transaction"),
                row.is_deleted,
                || "it is not".into(),
            );
            self.expect_record(began, expected, &row.event_id).await?;
            if expected.aggregate.0 == "Order" {
                self.event_ids.push(row.event_id.replace('-', ""));
            }
        }
        for expected in expected.iter().filter(|expected| expected.aggregate.0 == "Order") {
            self.expect_processing(began, expected.event_type, &expected.payload).await?;
        }
        Ok(())
    }

    async fn expect_record(&mut self, began: Instant, expected: &Expected, id: &str) -> Result<()> {
        let (topic, follower) = match expected.aggregate.0 {
            "Order" => ("OrderEvents", &mut self.order_events),
            _ => ("CustomerEvents", &mut self.customer_events),
        };
        let arrival = follower.next(HOP_BOUND).await?;
        topics::show(self.screen, topic, &arrival, arrival.at.duration_since(began));
        let record = &arrival.record;
        let what = |part: &str| format!("{}: {part} of the record", expected.event_type);
        let key = record.key.as_deref();
        self.checks.expect(&what("key"), key == Some(expected.aggregate.1.as_bytes()), || {
            record.key_text()
        });
        let header = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
        let headers = [header("id", id), header("eventType", expected.event_type)];
        self.checks.expect(&what("headers"), record.headers == headers, || {
            format!("{:?}", record.headers)
        });
        self.checks.expect_json(&what("value"), &expected.payload, &record.value_text());
        Ok(())
    }

    /// The line that the shipment service of 2019 wrote, too.
    async fn expect_processing(
        &mut self,
        began: Instant,
        event_type: &str,
        payload: &Value,
    ) -> Result<()> {
        let text = format!("Processing '{event_type}' event: ");
        let line = loop {
            let next = tokio::time::timeout(HOP_BOUND, self.lines.recv()).await;
            let next =
                next.ok().flatten().with_context(|| format!("no log line with \"{text}\""))?;
            if next.program == "shipment-service" && next.text.contains(&text) {
                break next;
            }
        };
        let (_, json) = line.text.split_once(&text).unwrap_or_default();
        self.screen.hop(
            "shipment-service",
            &format!("{text}{json}"),
            Some(line.at.duration_since(began)),
        );
        self.checks.expect_json(&format!("{event_type}: the logged event"), payload, json);
        self.expect_consumed(began, event_type).await
    }

    /// Visible in MySQL: the event in the message log, and with the first one the shipment.
    async fn expect_consumed(&mut self, began: Instant, event_type: &str) -> Result<()> {
        let url = self.deployment.shipment_database.url();
        let awaited = self.event_ids.last().cloned().unwrap_or_default();
        let what = format!("consumed {event_type} in MySQL");
        eventually(&what, HOP_BOUND, async || {
            let ids = shipments::consumed_event_ids(&url).await?;
            Ok(ids.contains(&awaited).then_some(()))
        })
        .await?;
        let after = began.elapsed();
        if event_type == "OrderCreated" {
            for shipment in shipments::all(&url).await? {
                let shipments::Shipment { id, customer_id, order_id, order_date } = shipment;
                let row = format!(
                    "Shipment: id {id}, customerId {customer_id}, orderId {order_id}, orderDate {order_date}"
                );
                self.screen.hop("MySQL", &row, Some(after));
            }
        }
        self.screen.hop("MySQL", &format!("ConsumedMessage: eventId {awaited}"), Some(after));
        Ok(())
    }

    async fn look_at_the_end(&mut self) -> Result<()> {
        let url = self.deployment.shipment_database.url();
        let found = shipments::all(&url).await?;
        let is_right = match &found[..] {
            [one] => {
                (one.order_id, one.customer_id) == (1, 123)
                    && one.order_date.starts_with("2019-01-31 12:13:01")
            }
            _ => false,
        };
        self.checks.expect("exactly one shipment, of the order", is_right, || format!("{found:?}"));
        let consumed = shipments::consumed_event_ids(&url).await?;
        self.checks.expect(
            "exactly both order events are consumed",
            consumed == self.event_ids,
            || format!("{consumed:?}"),
        );
        let surplus = self.order_events.surplus() + self.customer_events.surplus();
        self.checks.expect("no further record in the topics", surplus == 0, || surplus.to_string());
        let rows = self.onlooker.new_rows().await?;
        self.checks.expect("no further outbox row", rows.is_empty(), || format!("{rows:?}"));
        Ok(())
    }

    /// Sends a file of the repository, and shows request and answer.
    async fn request(&self, method: Method, url: &str, file: &str) -> Result<(u16, String)> {
        let body = fs::read_to_string(Path::new(ROOT).join(file))
            .with_context(|| format!("read {file}"))?;
        self.screen.hop("curl", &format!("{method} {url}"), None);
        self.screen.detail(
            if file.starts_with("register") { "file" } else { "body" },
            &if file.starts_with("register") { file.to_owned() } else { one_line(&body) },
        );
        let began = Instant::now();
        let request = self.client.request(method, url).header("content-type", "application/json");
        let answer = request.body(body).send().await.with_context(|| format!("call {url}"))?;
        let status = answer.status().as_u16();
        let text = answer.text().await?;
        self.screen.detail("answer", &format!("{status} in {}", millis(began.elapsed())));
        if !file.starts_with("register") || status >= 400 {
            self.screen.detail("", &one_line(&text));
        }
        Ok((status, text))
    }

    fn show_row(&self, row: &OutboxRow) {
        let OutboxRow {
            lsn, transaction, event_id, aggregate_type, aggregate_id, event_type, ..
        } = row;
        let life = if row.is_deleted { "inserted and deleted" } else { "inserted" };
        self.screen.hop(
            "PostgreSQL WAL",
            &format!("{lsn}  outbox row {life} in transaction {transaction}"),
            None,
        );
        self.screen.detail(
            "event",
            &format!("{event_type} of {aggregate_type} {aggregate_id}, id {event_id}"),
        );
    }

    fn orders_url(&self, path: &str) -> String {
        format!(
            "http://localhost:{}/order-service/rest/orders{path}",
            self.deployment.ports.order_service
        )
    }
}

/// The payload that the services have agreed on.
fn contract(file: &str) -> Result<Value> {
    let path = Path::new(ROOT).join("resources/contract").join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut record: Value = serde_json::from_str(&text)?;
    Ok(record["value"].take())
}
