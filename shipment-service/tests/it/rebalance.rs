//! Instances come and go: nothing lost, nothing twice, the order per key is kept.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use testbed::eventually;

use super::fixture::{Record, SOON, Service, World, order};

/// Orders of 20 keys; the numbers of a key rise.
fn load(from: i64, to: i64) -> Vec<Record> {
    (from..to)
        .map(|id| Record::event(uuid::Uuid::new_v4(), "OrderCreated", id % 20, &order(id)))
        .collect()
}

async fn handles_something(service: &Service) -> Result<()> {
    eventually("a message handled by this instance", SOON, || async {
        Ok((service.lines("Processing 'OrderCreated'") > 0).then_some(()))
    })
    .await
}

#[tokio::test]
async fn instances_that_come_and_go_under_load_lose_nothing_and_repeat_nothing() -> Result<()> {
    let mut world = World::with_partitions(4).await?;
    world.session_timeout_seconds = 2;
    let one = world.service().await?;
    world.send_all(&load(0, 200)).await?;
    handles_something(&one).await?;
    let two = world.service().await?;
    world.send_all(&load(200, 400)).await?;
    handles_something(&two).await?;
    let status = one.program.terminate().await?;
    assert!(status.success(), "{}", one.program.tail());
    world.send_all(&load(400, 600)).await?;
    let three = world.service().await?;
    handles_something(&three).await?;
    two.program.kill().await;
    world.send_all(&load(600, 800)).await?;

    let ids = world.shipments(800).await?;
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..800).collect::<Vec<i64>>(), "each order once");
    let mut last_of_key = HashMap::new();
    for id in ids {
        let before = last_of_key.insert(id % 20, id);
        assert!(before.is_none_or(|before| before < id), "order {id} after {before:?}");
    }
    assert_eq!(world.consumed_messages().await?, 800);
    assert_eq!(world.dead_letter_count().await?, 0);
    Ok(())
}

/// The partitions of the last line that says so: `partitions=[1] lost=false`.
async fn taken_partition(service: &Service) -> Result<i32> {
    let line = service.says("Partitions were taken by the group").await?;
    let (_, from) = line.split_once("partitions=[").context("partitions")?;
    let (number, _) = from.split_once(']').context("one partition")?;
    Ok(number.parse()?)
}

#[tokio::test]
async fn a_partition_that_left_an_idle_instance_and_came_back_loses_no_message() -> Result<()> {
    let world = World::with_partitions(2).await?;
    let one = world.service().await?;
    one.says("Partitions were given").await?;
    let guest = world.service().await?;
    let partition = taken_partition(&one).await?;
    let given = format!("Partitions were given by the group partitions=[{partition}]");
    guest.says(&given).await?;
    assert!(guest.program.terminate().await?.success(), "{}", guest.program.tail());
    one.says(&given).await?;

    for order_id in 1..=3 {
        let mut record = Record::order_created(order_id);
        record.partition = Some(partition);
        world.send(&record).await?;
    }
    assert_eq!(world.shipments(3).await?, [1, 2, 3]);
    Ok(())
}
