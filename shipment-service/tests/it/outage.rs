//! A database that is away is no poison: nothing is lost, nothing overtakes, nobody leaves the group.

use std::time::Duration;

use anyhow::Result;
use rdkafka::mocking::MockCluster;
use testbed::eventually;
use tokio::time::Instant;

use super::fixture::{Record, SOON, Service, World};
use super::proxy::Proxy;

async fn proxied(world: &World) -> Result<(Proxy, Service)> {
    let proxy = Proxy::to(format!("{}:{}", world.mysql.host, world.mysql.port)).await?;
    let service = Service::start(&world.variables_through(proxy.port()))?;
    service.ready().await?;
    Ok((proxy, service))
}

#[tokio::test]
async fn a_database_that_goes_away_and_comes_back_loses_nothing() -> Result<()> {
    let mut world = World::with_partitions(1).await?;
    world.session_timeout_seconds = 3;
    let (proxy, service) = proxied(&world).await?;
    world.send_all(&(1..=50).map(Record::order_created).collect::<Vec<_>>()).await?;
    world.shipments(10).await?;
    proxy.cut();
    world.send_all(&(51..=100).map(Record::order_created).collect::<Vec<_>>()).await?;
    service.says("MySQL is away").await?;
    // Longer than the patience of the loop and the session timeout of the group.
    let outage = Instant::now() + Duration::from_secs(4);
    eventually("attempts through the whole outage", SOON, || async {
        let (live, _) = service.get("/health/live").await?;
        assert_eq!(live, 200, "an outage of the database is no reason to be restarted");
        let (ready, body) = service.get("/health/ready").await?;
        assert_eq!((ready, &body["checks"]["database"]["status"]), (503, &"DOWN".into()), "{body}");
        Ok((Instant::now() >= outage).then_some(()))
    })
    .await?;
    let done = world.order_ids().await?.len();
    assert!(done < 100, "the proxy was cut");
    assert!(
        world.committed(0).await? <= i64::try_from(done)?,
        "no offset runs ahead of its transaction"
    );
    assert_eq!(service.get("/shipments").await?.0, 503);

    proxy.heal();
    assert_eq!(world.shipments(100).await?, (1..=100).collect::<Vec<i64>>(), "none lost, in order");
    world.committed_up_to(100).await?;
    service.says("MySQL takes events again").await?;
    assert_eq!(world.consumed_messages().await?, 100);
    assert_eq!(world.dead_letter_count().await?, 0, "an outage is no poison");
    assert_eq!(service.lines("MySQL is away"), 1, "said once, not for every attempt");
    assert_eq!(service.lines("Partitions were taken"), 0, "the group kept the member");
    service.ready().await?;
    Ok(())
}

#[tokio::test]
async fn a_connection_that_leads_nowhere_is_given_up_and_nothing_is_lost() -> Result<()> {
    let world = World::with_partitions(1).await?;
    let (proxy, service) = proxied(&world).await?;
    world.send_all(&(1..=100).map(Record::order_created).collect::<Vec<_>>()).await?;
    world.shipments(10).await?;
    proxy.freeze();
    service.says("MySQL is away").await?;
    proxy.heal();
    assert_eq!(world.shipments(100).await?, (1..=100).collect::<Vec<i64>>());
    world.committed_up_to(100).await?;
    assert_eq!(world.consumed_messages().await?, 100);
    assert_eq!(world.dead_letter_count().await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_member_that_kafka_no_longer_hears_is_not_ready_until_the_group_has_it_again()
-> Result<()> {
    // librdkafka's own broker for tests: the shared one can't be slowed down for the others.
    let kafka = MockCluster::new(1)?;
    let mut world = World::on(&kafka.bootstrap_servers()).await?;
    world.session_timeout_seconds = 3;
    kafka.create_topic(&world.topic, 1, 1)?;
    let service = world.service().await?;
    world.send(&Record::order_created(1)).await?;
    world.shipments(1).await?;
    // Connected, and without an answer for longer than the session lasts: no broker is down.
    kafka.broker_round_trip_time(1, Duration::from_secs(8))?;
    service.says("lost=true").await?;
    let (ready, body) = service.get("/health/ready").await?;
    assert_eq!((ready, &body["checks"]["consumer"]["status"]), (503, &"DOWN".into()), "{body}");
    assert_eq!(service.get("/health/live").await?.0, 200);
    kafka.broker_round_trip_time(1, Duration::ZERO)?;
    service.ready().await?;
    Ok(())
}

#[tokio::test]
async fn a_stop_in_the_middle_of_an_outage_keeps_its_bound_and_loses_nothing() -> Result<()> {
    let world = World::with_partitions(1).await?;
    let (proxy, service) = proxied(&world).await?;
    proxy.cut();
    world.send(&Record::order_created(1)).await?;
    service.says("MySQL is away").await?;
    let began = Instant::now();
    let status = service.program.terminate().await?;
    assert!(status.success(), "{status} {}", service.program.tail());
    assert!(began.elapsed() < Duration::from_secs(10), "took {:?}", began.elapsed());
    let last = service.says("Consumer stopped").await?;
    assert!(last.contains("drained.abandoned=true"), "{last}");
    assert_eq!(world.committed(0).await?, 0);

    let _successor = world.service().await?;
    assert_eq!(world.shipments(1).await?, [1]);
    Ok(())
}

#[tokio::test]
async fn a_partition_that_moves_during_an_outage_is_handled_by_its_new_owner() -> Result<()> {
    let world = World::with_partitions(2).await?;
    let (proxy, stuck) = proxied(&world).await?;
    proxy.cut();
    let on = |partition: i32, order_id: i64| {
        let mut record = Record::order_created(order_id);
        record.partition = Some(partition);
        record
    };
    world.send_all(&[on(0, 1), on(1, 2), on(0, 3), on(1, 4)]).await?;
    stuck.says("MySQL is away").await?;
    // The newcomer has a way to the database, and takes one of the two partitions: the group rebalances although a
    // message is in work.
    let healthy = world.service().await?;
    let ids = world.shipments(2).await?;
    assert!(ids == [1, 3] || ids == [2, 4], "one partition, in order: {ids:?}");
    proxy.heal();
    let mut ids = world.shipments(4).await?;
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3, 4]);
    assert_eq!(world.consumed_messages().await?, 4);
    drop(healthy);
    Ok(())
}

#[tokio::test]
async fn an_event_is_logged_as_processed_once_however_often_its_transaction_was_tried() -> Result<()>
{
    let world = World::with_partitions(1).await?;
    let service = world.service().await?;
    // The first insert succeeds, the second fails: each attempt is rolled back in its middle.
    sqlx::query("rename table Shipment to Elsewhere").execute(&world.pool).await?;
    world.send(&Record::order_created(1)).await?;
    service.says("MySQL does not take the event: the consumer holds the message").await?;
    service.says("the consumer still holds the message").await?;
    sqlx::query("rename table Elsewhere to Shipment").execute(&world.pool).await?;
    assert_eq!(world.shipments(1).await?, [1]);
    world.committed_up_to(1).await?;
    assert_eq!(service.lines("Processing 'OrderCreated'"), 1);
    assert_eq!(world.consumed_messages().await?, 1);
    assert_eq!(world.dead_letter_count().await?, 0);
    Ok(())
}
