//! A broker that sleeps for longer than its session: it loses its partitions, and gets them back when it wakes. For a
//! moment nobody leads the topic.
//!
//! At least once only: exactly once, Kafka itself may forget a commit in that moment (docs/guarantees.md, decision 12).

use std::sync::Arc;

use anyhow::{Context as _, Result};
use testbed::Settings;
use testbed::server::{Kafka, Options, Progress, RunFolder};

use crate::flow::Flow;

/// How often it sleeps, while events are emitted without a pause.
const SLEEPS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_sleeps_past_its_session_costs_nothing() -> Result<()> {
    let (settings, quiet): (_, Progress) = (Settings::read(), Arc::new(|_: &str| {}));
    let folder = RunFolder::create(&settings, false)?;
    let around = (&[][..], true);
    let kafka = Options::for_tests();
    let mut kafka = Kafka::start_with_listeners(&settings, &folder, kafka, around, &quiet).await?;
    let flow = Flow::new(kafka.bootstrap_servers(), &[]).await?;
    let worker = flow.streaming().await?;
    let mut last = 0;
    for _ in 0..SLEEPS {
        let emitter = flow.events.emit_from(last + 1);
        kafka.sleep_until_fenced().await?;
        last = emitter.stop().await?;
        let delivered = flow.events.delivered(last).await;
        let arrived = delivered.with_context(|| worker.program.tail())?;
        assert_eq!(arrived.len(), last as usize, "some twice");
    }
    worker.program.terminate().await?;
    kafka.stop().await;
    Ok(())
}
