//! kill -9: nothing lost, nothing twice.

use anyhow::Result;
use testbed::eventually;

use super::fixture::{Record, SOON, World};

#[tokio::test]
async fn a_kill_between_the_transaction_and_the_offset_loses_nothing_and_repeats_nothing()
-> Result<()> {
    let mut world = World::with_partitions(1).await?;
    world.session_timeout_seconds = 2;
    let service = world.service().await?;
    world.send_all(&(1..=400).map(Record::order_created).collect::<Vec<_>>()).await?;
    // Offsets are committed once a second, so transactions are ahead of them nearly always; wait until they are.
    eventually("transactions ahead of the committed offset", SOON, || async {
        let shipments = i64::try_from(world.order_ids().await?.len())?;
        Ok((shipments > world.committed(0).await?).then_some(()))
    })
    .await?;
    service.program.kill().await;
    let (shipments, committed) = (world.order_ids().await?.len(), world.committed(0).await?);
    assert!(shipments as i64 > committed, "{shipments} shipments, {committed} committed");

    let successor = world.service().await?;
    assert_eq!(world.shipments(400).await?, (1..=400).collect::<Vec<i64>>());
    world.committed_up_to(400).await?;
    assert_eq!(world.consumed_messages().await?, 400);
    // What was handled and not committed came again, and only that.
    assert_eq!(
        successor.lines("was already retrieved, ignoring it") as i64,
        shipments as i64 - committed
    );
    assert_eq!(world.dead_letter_count().await?, 0);
    Ok(())
}

#[tokio::test]
async fn kills_at_any_time_under_load_leave_one_shipment_per_order() -> Result<()> {
    let mut world = World::with_partitions(2).await?;
    world.session_timeout_seconds = 2;
    let mut service = world.service().await?;
    world.send_all(&(1..=600).map(Record::order_created).collect::<Vec<_>>()).await?;
    for kill_at in [1, 150, 300] {
        world.shipments(kill_at).await?;
        service.program.kill().await;
        service = world.service().await?;
    }
    let mut ids = world.shipments(600).await?;
    ids.sort_unstable();
    assert_eq!(ids, (1..=600).collect::<Vec<i64>>());
    assert_eq!(world.consumed_messages().await?, 600);
    Ok(())
}
