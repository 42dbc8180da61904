//! The life of the process: configuration, waiting, the topic that comes later, the stop.

use std::time::{Duration, Instant};

use anyhow::Result;
use rdkafka::mocking::MockCluster;

use super::fixture::{Record, SOON, Service, World};
use super::proxy::Proxy;

#[tokio::test]
async fn a_wrong_variable_ends_the_process_and_is_named() -> Result<()> {
    for (name, value) in
        [("DATABASE_URL", "mysql://user:hunter2@host"), ("BOOTSTRAP_SERVERS", "kafka")]
    {
        let mut variables = vec![
            ("DATABASE_URL", "mysql://user:hunter2@127.0.0.1:1/db".to_owned()),
            ("BOOTSTRAP_SERVERS", "127.0.0.1:1".to_owned()),
        ];
        variables.retain(|(other, _)| *other != name);
        variables.push((name, value.to_owned()));
        let service = Service::start(&variables)?;
        let status = service.program.wait(SOON).await?;
        assert_eq!(status.code(), Some(2));
        let said = service.says(name).await?;
        assert!(said.contains("set it to"), "{said}");
        assert!(!service.program.output().concat().contains("hunter2"));
    }
    Ok(())
}

#[tokio::test]
async fn the_service_waits_for_mysql_and_kafka_and_says_so() -> Result<()> {
    let world = World::with_partitions(1).await?;
    world.send(&Record::order_created(1)).await?;
    let mysql = Proxy::to(format!("{}:{}", world.mysql.host, world.mysql.port)).await?;
    let kafka = Proxy::to(world.bootstrap_servers.clone()).await?;
    mysql.cut();
    kafka.cut();
    let mut variables = world.variables_through(mysql.port());
    variables[1].1 = format!("127.0.0.1:{}", kafka.port());
    let service = Service::start(&variables)?;
    service.says("Waiting for MySQL").await?;
    service.says("Waiting for Kafka").await?;
    assert_eq!(service.get("/health/live").await?.0, 200);
    let (status, body) = service.get("/health/ready").await?;
    assert_eq!(status, 503, "{body}");
    kafka.heal();
    service.says("Kafka is there").await?;
    mysql.heal();
    service.says("MySQL is there").await?;
    assert_eq!(world.shipments(1).await?, [1]);
    assert_eq!(service.lines("Waiting for MySQL") + service.lines("Waiting for Kafka"), 2);
    assert_eq!(service.lines(" ERROR "), 0);
    Ok(())
}

#[tokio::test]
async fn a_stop_while_waiting_ends_at_once() -> Result<()> {
    let variables = [
        ("DATABASE_URL", "mysql://user:password@127.0.0.1:1/db".to_owned()),
        ("BOOTSTRAP_SERVERS", "127.0.0.1:1".to_owned()),
    ];
    let service = Service::start(&variables)?;
    service.says("Waiting for Kafka").await?;
    let began = Instant::now();
    assert!(service.program.terminate().await?.success());
    assert!(began.elapsed() < Duration::from_secs(5), "took {:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_stop_while_kafka_is_away_keeps_its_bound() -> Result<()> {
    // librdkafka's own broker for tests: the shared one can't be taken away from the others.
    let kafka = MockCluster::new(1)?;
    let world = World::on(&kafka.bootstrap_servers()).await?;
    kafka.create_topic(&world.topic, 1, 1)?;
    let service = world.service().await?;
    world.send_all(&(1..=50).map(Record::order_created).collect::<Vec<_>>()).await?;
    world.shipments(50).await?;
    kafka.broker_down(1)?;
    service.says("Kafka is away").await?;
    assert_eq!(service.get("/health/ready").await?.0, 503);
    assert_eq!(service.get("/health/live").await?.0, 200);
    let began = Instant::now();
    let status = service.program.terminate().await?;
    assert!(status.success(), "{status} {}", service.program.tail());
    assert!(began.elapsed() < Duration::from_secs(10), "took {:?}", began.elapsed());
    let last = service.says("Consumer stopped").await?;
    assert!(last.contains("drained.handled=50 "), "{last}");
    Ok(())
}

#[tokio::test]
async fn a_stop_ends_at_once_when_mysql_is_there_and_kafka_never_was() -> Result<()> {
    let world = World::on("127.0.0.1:1").await?;
    let service = Service::start(&world.variables())?;
    service.says("MySQL is there").await?;
    service.says("Waiting for Kafka").await?;
    let began = Instant::now();
    assert!(service.program.terminate().await?.success());
    assert!(began.elapsed() < Duration::from_secs(5), "took {:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_topic_that_is_created_by_its_first_event_is_picked_up_within_seconds() -> Result<()> {
    let world = World::new().await?;
    let service = world.service().await?;
    service.says("Waiting for the topic").await?;
    let began = Instant::now();
    world.send(&Record::order_created(1)).await?;
    assert_eq!(world.shipments(1).await?, [1]);
    assert!(began.elapsed() < Duration::from_secs(15), "took {:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_stop_under_load_commits_what_was_handled_so_that_the_next_start_repeats_nothing()
-> Result<()> {
    let world = World::with_partitions(1).await?;
    let service = world.service().await?;
    world.send_all(&(1..=600).map(Record::order_created).collect::<Vec<_>>()).await?;
    world.shipments(20).await?;
    let began = Instant::now();
    let status = service.program.terminate().await?;
    assert!(status.success(), "{}", service.program.tail());
    assert!(began.elapsed() < Duration::from_secs(10), "took {:?}", began.elapsed());
    let handled = world.order_ids().await?.len();
    assert!((20..600).contains(&handled), "{handled}: stopped under load");
    let said = service.says("Consumer stopped").await?;
    assert!(said.contains(&format!("drained.handled={handled} ")), "{handled}: {said}");
    assert_eq!(world.committed(0).await?, i64::try_from(handled)?);

    let successor = world.service().await?;
    assert_eq!(world.shipments(600).await?, (1..=600).collect::<Vec<i64>>());
    assert_eq!(successor.lines("was already retrieved"), 0);
    Ok(())
}

#[tokio::test]
async fn an_interrupted_migration_is_run_again() -> Result<()> {
    let world = World::with_partitions(1).await?;
    assert!(world.service().await?.program.terminate().await?.success());
    // What a kill between a `create table` and its bookkeeping leaves.
    sqlx::query("update _sqlx_migrations set success = false where version = 2")
        .execute(&world.pool)
        .await?;
    let _service = world.service().await?;
    world.send(&Record::order_created(1)).await?;
    assert_eq!(world.shipments(1).await?, [1]);
    Ok(())
}
