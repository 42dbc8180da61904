//! The whole flow as the end-to-end tests see it: started on its own servers, spoken to over REST.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use testbed::deployment::{Deployment, DeploymentOptions, Ports, Programs};
use testbed::server::RunFolder;
use testbed::{Settings, eventually};

/// For a single fact; the machine may be busy with other tests.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Everything up, on free ports, the connector not registered.
pub(crate) async fn start() -> Deployment {
    let settings = Settings::read();
    let programs = tokio::task::spawn_blocking(Programs::build).await.unwrap().unwrap();
    let folder = RunFolder::create(&settings, false).unwrap();
    let options = DeploymentOptions {
        ports: Ports::free(),
        durable: false,
        with_relay: true,
        observer: Arc::new(|_| {}),
    };
    Box::pin(Deployment::start(&settings, folder, programs, options)).await.unwrap()
}

pub(crate) fn file(path: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Registers `register-postgres.json` as it is and waits until connector and task run. RUNNING means that the slot
/// exists: an order that is placed before that leaves nothing in it, its outbox rows are deleted in their transaction.
pub(crate) async fn register(client: &Client, flow: &Deployment) -> Result<()> {
    let connectors = format!("{}/connectors", flow.relay.url());
    let answer =
        client.post(format!("{connectors}/")).json(&file("register-postgres.json")).send().await?;
    ensure!(answer.status() == StatusCode::CREATED, "{}", answer.text().await?);
    eventually("running connector", DEADLINE, || async {
        let url = format!("{connectors}/outbox-connector/status");
        let status: Value = client.get(url).send().await?.json().await?;
        let states = (&status["connector"]["state"], &status["tasks"][0]["state"]);
        ensure!(states == (&json!("RUNNING"), &json!("RUNNING")), "{status}");
        Ok(Some(()))
    })
    .await
}
