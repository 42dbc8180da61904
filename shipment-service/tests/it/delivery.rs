//! Exactly one shipment per order, whatever comes twice.

use std::time::{Duration, Instant};

use anyhow::Result;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::json;
use testbed::{eventually, unique_name};
use uuid::Uuid;

use super::fixture::{Record, SOON, World, client, order};

#[tokio::test]
async fn an_order_becomes_a_shipment_and_the_log_lines_are_those_of_the_original() -> Result<()> {
    let world = World::new().await?;
    let service = world.service().await?;
    let id = Uuid::new_v4();
    world.send(&Record::event(id, "OrderCreated", 1, &order(1))).await?;
    world.shipments(1).await?;

    let expected =
        json!({ "id": 1, "customerId": 123, "orderId": 1, "orderDate": "2019-01-31T12:13:01" });
    assert_eq!(service.get("/shipments/1").await?, (200, expected.clone()));
    assert_eq!(
        service.get("/shipments?orderId=1").await?,
        (200, json!({ "items": [expected], "next": null }))
    );
    let received = service.says("Received 'Order' event").await?;
    let start = format!(
        "Received 'Order' event -- key: \"1\", event id: '{id}', event type: 'OrderCreated', ts: '20"
    );
    assert!(received.contains(&start) && received.ends_with("Z'"), "{received}");
    let processing = service.says("Processing").await?;
    assert!(
        processing.ends_with(&format!("Processing 'OrderCreated' event: {}", order(1))),
        "{processing}"
    );
    let stored: Uuid =
        sqlx::query_scalar("select eventId from ConsumedMessage").fetch_one(&world.pool).await?;
    assert_eq!(stored, id);
    Ok(())
}

#[tokio::test]
async fn an_event_that_comes_five_times_makes_one_shipment() -> Result<()> {
    let world = World::new().await?;
    let service = world.service().await?;
    let event = Record::order_created(1);
    let id = &event.headers[0].1;
    world.send_all(&vec![event.clone(); 5]).await?;
    world.committed_up_to(5).await?;

    assert_eq!(world.order_ids().await?, [1]);
    assert_eq!(world.consumed_messages().await?, 1);
    assert_eq!(service.lines("Processing 'OrderCreated' event"), 1);
    let ignored = format!("Event with UUID {id} was already retrieved, ignoring it");
    assert_eq!(service.lines(&ignored), 4);
    Ok(())
}

#[tokio::test]
async fn two_consumers_that_handle_the_same_events_at_the_same_time_make_one_shipment_each()
-> Result<()> {
    let world = World::with_partitions(1).await?;
    let mut other = world.variables();
    other[3].1 = unique_name("another-group");
    let (one, two) = (world.service().await?, super::fixture::Service::start(&other)?);
    two.ready().await?;
    let events: Vec<Record> = (1..=200).map(Record::order_created).collect();
    world.send_all(&events).await?;
    world.committed_up_to(200).await?;
    two.says(&format!("event id: '{}'", events[199].headers[0].1)).await?;

    let mut ids = world.shipments(200).await?;
    ids.sort_unstable();
    assert_eq!(ids, (1..=200).collect::<Vec<i64>>());
    assert_eq!(world.consumed_messages().await?, 200);
    assert_eq!(world.dead_letter_count().await?, 0);
    drop(one);
    Ok(())
}

#[tokio::test]
async fn another_event_about_the_same_order_makes_no_second_shipment() -> Result<()> {
    let world = World::new().await?;
    let service = world.service().await?;
    world
        .send_all(&[Record::order_created(1), Record::order_created(1), Record::order_created(2)])
        .await?;
    world.committed_up_to(3).await?;

    assert_eq!(world.order_ids().await?, [1, 2]);
    assert_eq!(world.consumed_messages().await?, 3, "the second event is recorded as consumed");
    let warning = service.says("Another event made the shipment of this order already").await?;
    assert!(warning.contains(" WARN "), "{warning}");
    assert_eq!(world.dead_letter_count().await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_duplicate_of_another_key_than_the_order_is_no_shipment() -> Result<()> {
    let world = World::with_partitions(1).await?;
    let service = world.service().await?;
    // Somebody adds a key of their own.
    sqlx::query("alter table Shipment add unique once (customerId)").execute(&world.pool).await?;
    world.send_all(&[Record::order_created(1), Record::order_created(2)]).await?;

    let held = service.says("the consumer holds the message and retries").await?;
    assert!(held.contains("once'"), "the key is named: {held}");
    assert_eq!(world.order_ids().await?, [1]);
    assert_eq!(world.consumed_messages().await?, 1, "what made no shipment is not handled");
    // The database answers, and yet no order comes through.
    eventually("a service that is not ready", SOON, || async {
        let (status, body) = service.get("/health/ready").await?;
        let (database, consumer) = (&body["checks"]["database"], &body["checks"]["consumer"]);
        let holding = (&consumer["status"], &consumer["stage"])
            == (&"DOWN".into(), &"holding a message, the log says why".into());
        Ok((status == 503 && database["status"] == "UP" && holding).then_some(()))
    })
    .await?;
    sqlx::query("alter table Shipment drop key once").execute(&world.pool).await?;
    assert_eq!(world.shipments(2).await?, [1, 2]);
    world.committed_up_to(2).await?;
    service.ready().await?;
    assert_eq!(world.dead_letter_count().await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_line_update_is_logged_and_an_unknown_type_is_warned_about_and_both_are_consumed()
-> Result<()> {
    let world = World::new().await?;
    let service = world.service().await?;
    let payload = r#"{"orderId":1,"orderLineId":2,"oldStatus":"ENTERED","newStatus":"CANCELLED"}"#;
    world
        .send_all(&[
            Record::event(Uuid::new_v4(), "OrderLineUpdated", 1, payload),
            Record::event(Uuid::new_v4(), "OrderForgotten", 1, "{}"),
        ])
        .await?;
    world.committed_up_to(2).await?;

    let line = service.says("Processing 'OrderLineUpdated'").await?;
    assert!(line.ends_with(&format!("Processing 'OrderLineUpdated' event: {payload}")), "{line}");
    assert!(service.says("Unknown event type").await?.contains(" WARN "));
    assert_eq!(world.consumed_messages().await?, 2);
    assert!(world.order_ids().await?.is_empty());
    assert_eq!(world.dead_letter_count().await?, 0);
    Ok(())
}

#[tokio::test]
async fn five_hundred_orders_take_seconds() -> Result<()> {
    let world = World::with_partitions(1).await?;
    let _service = world.service().await?;
    let began = Instant::now();
    world.send_all(&(1..=500).map(Record::order_created).collect::<Vec<_>>()).await?;
    assert_eq!(
        world.shipments(500).await?,
        (1..=500).collect::<Vec<i64>>(),
        "in the order of the partition"
    );
    assert!(began.elapsed() < Duration::from_secs(30), "took {:?}", began.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_an_aborted_kafka_transaction_never_happened() -> Result<()> {
    const BOUND: Duration = Duration::from_secs(30);
    let world = World::with_partitions(1).await?;
    let service = world.service().await?;
    let (servers, topic) = (world.bootstrap_servers.clone(), world.topic.clone());
    tokio::task::spawn_blocking(move || -> Result<()> {
        let producer: BaseProducer =
            client(&servers).set("transactional.id", unique_name("transaction")).create()?;
        producer.init_transactions(BOUND)?;
        for (order_id, commit) in [(1, false), (2, true)] {
            producer.begin_transaction()?;
            let record = Record::order_created(order_id);
            let headers = record.headers.iter().fold(
                rdkafka::message::OwnedHeaders::new(),
                |headers, (key, value)| {
                    headers.insert(rdkafka::message::Header { key, value: Some(value) })
                },
            );
            let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
            producer
                .send(BaseRecord::to(&topic).key(&key).payload(&value).headers(headers))
                .map_err(|(error, _)| error)?;
            producer.flush(BOUND)?;
            if commit {
                producer.commit_transaction(BOUND)?
            } else {
                producer.abort_transaction(BOUND)?
            }
        }
        Ok(())
    })
    .await??;
    assert_eq!(world.shipments(1).await?, [2]);
    assert_eq!(service.lines("Received 'Order' event"), 1);
    Ok(())
}
