//! How long our programs take to start: from exec until they are of use.

use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use super::load;
use super::stage::{STEP_BOUND, Stage, Started};
use super::stopwatch::Spread;
use super::topic_end::{self, TopicEnd};
use crate::topic;

/// Kind of the events that the starts of the relay are timed with.
const AGGREGATE_TYPE: &str = "Start";

const READY: &str = "/health/ready";

/// Times from the launch of a program. The small guard that ties it to us runs first and is in them.
#[derive(Debug, Clone, Serialize)]
pub struct Starts {
    /// Until the event that waited is in its topic; the connector was in the config topic.
    pub relay_to_first_event: Spread,
    /// Until `GET /health/ready` answers 200; the first start also creates the tables.
    pub order_service_to_ready: Spread,
    /// Until `GET /health/ready` answers 200; the first start also creates the tables.
    pub shipment_service_to_ready: Spread,
}

/// Our programs after their last start.
pub(super) struct Running {
    pub(super) order_service: Started,
    pub(super) shipment_service: Started,
    pub(super) relay: Started,
}

pub(super) async fn measure(count: u32, stage: &Stage) -> Result<(Starts, Running)> {
    stage.say("starting order-service");
    let (order_service_to_ready, order_service) =
        services(count, stage, || stage.start_order_service()).await?;
    stage.say("starting shipment-service");
    let (shipment_service_to_ready, shipment_service) =
        services(count, stage, || stage.start_shipment_service()).await?;
    stage.say("starting the relay");
    let (relay_to_first_event, relay) = relays(count, stage).await?;
    let starts = Starts { relay_to_first_event, order_service_to_ready, shipment_service_to_ready };
    Ok((starts, Running { order_service, shipment_service, relay }))
}

/// Starts a service `count` times; the last one stays.
async fn services(
    count: u32,
    stage: &Stage,
    start: impl Fn() -> Result<Started>,
) -> Result<(Spread, Started)> {
    let mut times = Vec::new();
    loop {
        let began = Instant::now();
        let service = start()?;
        times.push(stage.time_until_ok(&service, READY, began).await?);
        if times.len() == count as usize {
            return Ok((Spread::of(&times), service));
        }
        service.terminate().await?;
    }
}

/// Starts the relay `count` times, each with one event waiting; the last one stays.
async fn relays(count: u32, stage: &Stage) -> Result<(Spread, Started)> {
    let mut connection = stage.connect().await?;
    load::create_procedures(&mut connection).await?;
    topic::create(stage.bootstrap_servers(), &super::stage::topic_of(AGGREGATE_TYPE), 1).await?;
    // The one before those that count: creates slot and publication, and registers the connector.
    let mut relay = stage.start_relay(true)?;
    stage.wait_for_slot(&relay, true).await?;
    write_and_wait(stage, &mut connection, || Ok(None))
        .await
        .with_context(|| relay.program.tail())?;
    let mut times = Vec::new();
    for _ in 0..count {
        relay.terminate().await?;
        stage.wait_for_slot(&relay, false).await?;
        let mut next = None;
        let arrived = write_and_wait(stage, &mut connection, || {
            let began = Instant::now();
            next = Some(stage.start_relay(false)?);
            Ok(Some(began))
        });
        let arrived = arrived.await;
        relay = next.context("the relay was not started")?;
        let (began, arrived) = arrived.with_context(|| relay.program.tail())?;
        times.push(arrived.duration_since(began.unwrap_or(arrived)));
    }
    Ok((Spread::of(&times), relay))
}

/// Commits an event, does `then`, and waits until the event is in its topic. Returns what `then` returned, and when.
async fn write_and_wait(
    stage: &Stage,
    connection: &mut PgConnection,
    then: impl FnOnce() -> Result<Option<Instant>>,
) -> Result<(Option<Instant>, Instant)> {
    let end: TopicEnd = stage.topic_end(AGGREGATE_TYPE)?;
    let (end, before) = tokio::task::spawn_blocking(move || {
        let before = end.get();
        (end, before)
    })
    .await?;
    let before = before?;
    load::write_event(connection, Uuid::new_v4(), AGGREGATE_TYPE, 1).await?;
    let began = then()?;
    let reached =
        tokio::task::spawn_blocking(move || end.wait_for(before, 1, topic_end::OFTEN, STEP_BOUND))
            .await??;
    Ok((began, reached.all))
}
