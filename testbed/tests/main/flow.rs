//! The whole flow as the end-to-end tests see it: started on its own servers, spoken to over REST.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use testbed::deployment::{Deployment, DeploymentOptions, Event, Ports, Programs};
use testbed::server::RunFolder;
use testbed::{Settings, eventually};

/// For a single fact; the machine may be busy with other tests.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Everything up, on free ports, the connector not registered.
pub(crate) async fn start() -> Deployment {
    start_with(true).await
}

/// Everything but the relay, whose place is taken by Kafka Connect.
pub(crate) async fn start_without_relay() -> Deployment {
    start_with(false).await
}

async fn start_with(with_relay: bool) -> Deployment {
    let settings = Settings::read();
    let programs = tokio::task::spawn_blocking(Programs::build).await.unwrap().unwrap();
    let folder = RunFolder::create(&settings, false).unwrap();
    let options = DeploymentOptions {
        ports: Ports::free(),
        durable: false,
        with_relay,
        links: None,
        controller_apart: false,
        observer: Arc::new(|text| {
            if let Event::Progress(text) = text {
                eprintln!("testbed: {text}");
            }
        }),
    };
    Box::pin(Deployment::start(&settings, folder, programs, options)).await.unwrap()
}

pub(crate) fn file(path: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Registers `register-postgres.json` as it is and waits until connector and task run.
pub(crate) async fn register(client: &Client, flow: &Deployment) -> Result<()> {
    register_at(client, flow.relay.url(), &file("register-postgres.json")).await
}

/// Registers the example's connector, configured like this, at a worker, and waits until connector and task run.
/// RUNNING means that the slot exists: an order that is placed before that leaves nothing in it, its outbox rows are
/// deleted in their transaction.
pub(crate) async fn register_at(client: &Client, url: &str, connector: &Value) -> Result<()> {
    let answer = client.post(format!("{url}/connectors/")).json(connector).send().await?;
    ensure!(answer.status() == StatusCode::CREATED, "{}", answer.text().await?);
    until_running(client, url).await
}

/// Waits until the example's connector and its task run at this worker.
pub(crate) async fn until_running(client: &Client, url: &str) -> Result<()> {
    eventually("running connector", DEADLINE, || async {
        let url = format!("{url}/connectors/outbox-connector/status");
        let status: Value = client.get(url).send().await?.json().await?;
        let states = (&status["connector"]["state"], &status["tasks"][0]["state"]);
        ensure!(states == (&json!("RUNNING"), &json!("RUNNING")), "{status}");
        Ok(Some(()))
    })
    .await
}

/// Places one order of this customer; `url` is that of the order-service.
pub(crate) async fn place_order(client: &Client, url: &str, customer: u32) -> Result<()> {
    let line = json!({"item": "Debezium in Action", "quantity": 2, "totalPrice": 39.98});
    let order =
        json!({"customerId": customer, "orderDate": "2019-01-31T12:13:01", "lineItems": [line]});
    let answer = client.post(format!("{url}/orders")).json(&order).send().await?;
    ensure!(answer.status().is_success(), "{}", answer.status());
    answer.json::<Value>().await?;
    Ok(())
}
