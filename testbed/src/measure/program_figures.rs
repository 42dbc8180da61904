//! What our programs take up: memory when idle, bytes of the binary and of the container image.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;
use tokio::process::Command;

use super::process_figures::memory;
use super::stage::{ORDER_SERVICE, RELAY, SHIPMENT_SERVICE, STEP_BOUND, Stage};
use super::start::Running;
use super::stopwatch::time_until;
use crate::program::workspace;

/// Docker answers within moments or is not there.
const DOCKER_BOUND: Duration = Duration::from_secs(10);

/// What docker-compose.yml names its project, and so the first word of its images.
const COMPOSE_PROJECT: &str = "outbox";

const ORDER: &str = "resources/data/create-order-request.json";

/// One of our programs.
#[derive(Debug, Clone, Serialize)]
pub struct ProgramFigures {
    pub name: String,
    /// Resident memory (VmRSS) after it has handled an order and was left alone.
    pub idle_rss_bytes: u64,
    pub binary_bytes: u64,
    pub image: Image,
}

/// The container image of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Image {
    /// Its size as Docker counts it.
    Bytes(u64),
    /// `docker compose build` has not been run here.
    NotBuilt,
    /// No Docker engine answers.
    NoEngine,
}

/// Places an order, waits for its shipment, leaves the programs alone for `quiet` and looks at them.
pub(super) async fn measure(
    quiet: Duration,
    stage: &Stage,
    running: &Running,
) -> Result<Vec<ProgramFigures>> {
    stage.say("placing an order");
    ship_an_order(stage, running).await?;
    stage.say(&format!("leaving the programs alone for {} s", quiet.as_secs()));
    tokio::time::sleep(quiet).await;
    let engine = docker(&["version", "--format", "{{.Server.Version}}"]).await.is_some();
    let mut all = Vec::new();
    let programs = [
        (ORDER_SERVICE, &running.order_service),
        (RELAY, &running.relay),
        (SHIPMENT_SERVICE, &running.shipment_service),
    ];
    for (name, started) in programs {
        let path = stage.program(name);
        let binary = std::fs::metadata(&path).with_context(|| path.display().to_string())?;
        all.push(ProgramFigures {
            name: name.to_owned(),
            idle_rss_bytes: memory(started.program.pid(), "VmRSS")?,
            binary_bytes: binary.len(),
            image: if engine { image(name).await } else { Image::NoEngine },
        });
    }
    Ok(all)
}

async fn ship_an_order(stage: &Stage, running: &Running) -> Result<()> {
    let order = std::fs::read(workspace().join(ORDER)).context(ORDER)?;
    let url = running.order_service.url("/order-service/rest/orders");
    let request = stage.http.post(url).header("content-type", "application/json").body(order);
    let answer = request.send().await.and_then(reqwest::Response::error_for_status);
    let answer = answer.with_context(|| running.order_service.program.tail())?;
    let answer: serde_json::Value = serde_json::from_str(&answer.text().await?)?;
    let id = answer["id"].as_i64().context("the answer to an order has no id")?;
    let url = running.shipment_service.url(&format!("/shipments/{id}"));
    let shipped = time_until("shipment", Instant::now(), STEP_BOUND, || async {
        Ok(stage.http.get(&url).send().await?.status().is_success())
    });
    shipped.await.with_context(|| {
        format!("{}\n{}", running.relay.program.tail(), running.shipment_service.program.tail())
    })?;
    Ok(())
}

async fn image(program: &str) -> Image {
    let name = format!("{COMPOSE_PROJECT}-{program}");
    let size = docker(&["image", "inspect", "--format", "{{.Size}}", &name]).await;
    size.and_then(|text| text.parse().ok()).map_or(Image::NotBuilt, Image::Bytes)
}

/// What a docker command prints, if it succeeds in time.
async fn docker(arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("docker");
    let running = command.args(arguments).kill_on_drop(true).output();
    let output = tokio::time::timeout(DOCKER_BOUND, running).await.ok()?.ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
