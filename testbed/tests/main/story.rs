//! The example's story, end to end, on its own servers: what a reader of the README does, checked exactly.

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use sqlx::{Connection as _, MySqlConnection, PgConnection, Row as _};
use testbed::deployment::Deployment;
use testbed::eventually;
use testbed::topic::{self, Record};

use crate::flow::{DEADLINE, file, register, start};

#[tokio::test]
async fn an_order_and_its_change_reach_kafka_exactly_and_become_one_shipment() {
    let mut flow = start().await;
    let client = Client::new();
    register(&client, &flow).await.unwrap();
    let again = client
        .post(format!("{}/connectors", flow.relay.url()))
        .json(&file("register-postgres.json"))
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), StatusCode::CONFLICT);

    let order = place_and_cancel(&client, &flow).await;
    let created = file("resources/contract/order-created.json");
    let updated = file("resources/contract/order-line-updated.json");
    let invoiced = file("resources/contract/invoice-created.json");
    assert_eq!(order["id"], created["value"]["id"]);

    let brokers = flow.servers.kafka.bootstrap_servers();
    let orders = topic::wait_for(brokers, "OrderEvents", 2, DEADLINE).await.unwrap();
    let ids = [check_record(&orders[0], &created), check_record(&orders[1], &updated)];
    let invoices = topic::wait_for(brokers, "CustomerEvents", 1, DEADLINE).await.unwrap();
    check_record(&invoices[0], &invoiced);

    check_shipments(&client, &flow, &ids).await;
    check_log(&flow, &[&created, &updated]).await;
    check_order_database(&flow).await;
    // Nothing came after what was waited for.
    assert_eq!(topic::read(brokers, "OrderEvents").await.unwrap().len(), 2);
    assert_eq!(topic::read(brokers, "CustomerEvents").await.unwrap().len(), 1);
    assert_eq!(flow.stop().await, Vec::<String>::new());
}

/// By the old path of 2019, and with the ids of the answer. Returns the changed order.
async fn place_and_cancel(client: &Client, flow: &Deployment) -> Value {
    let orders = format!("{}/order-service/rest/orders", flow.order_service.url());
    let request = file("resources/data/create-order-request.json");
    let answer = client.post(&orders).json(&request).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let placed: Value = answer.json().await.unwrap();
    assert_eq!(placed, file("resources/contract/order-created.json")["value"]);

    let (order, line) = (&placed["id"], &placed["lineItems"][1]["id"]);
    let request = file("resources/data/cancel-order-line-request.json");
    let url = format!("{orders}/{order}/lines/{line}");
    let answer = client.put(url).json(&request).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let changed: Value = answer.json().await.unwrap();
    let mut expected = placed;
    expected["lineItems"][1]["status"] = json!("CANCELLED");
    assert_eq!(changed, expected);

    let list: Value = client.get(&orders).send().await.unwrap().json().await.unwrap();
    assert_eq!(list["orders"], json!([changed]));
    changed
}

/// Key, headers (all of them, in their order) and payload as agreed; returns the event id.
fn check_record(record: &Record, contract: &Value) -> String {
    assert_eq!(record.key_text(), contract["key"].as_str().unwrap());
    let names: Vec<&str> = record.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["id", "eventType"]);
    assert_eq!(record.header("eventType").as_deref(), contract["headers"][1]["value"].as_str());
    let id = record.header("id").unwrap();
    assert_eq!(uuid::Uuid::parse_str(&id).unwrap().to_string(), id);
    let value: Value = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
    assert_eq!(value, contract["value"]);
    id
}

async fn check_shipments(client: &Client, flow: &Deployment, ids: &[String; 2]) {
    let mut mysql = MySqlConnection::connect(&flow.shipment_database.url()).await.unwrap();
    let consumed = eventually("both events in the message log", DEADLINE, async || {
        let query = "select lower(hex(eventId)) from ConsumedMessage order by timeOfReceiving";
        let mut mysql = MySqlConnection::connect(&flow.shipment_database.url()).await?;
        let found: Vec<String> = sqlx::query_scalar(query).fetch_all(&mut mysql).await?;
        Ok((found.len() >= 2).then_some(found))
    });
    let expected: Vec<String> = ids.iter().map(|id| id.replace('-', "")).collect();
    assert_eq!(consumed.await.unwrap(), expected);
    let query = "select customerId, orderId, cast(orderDate as char) from Shipment";
    let rows = sqlx::query(query).fetch_all(&mut mysql).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].get::<i64, _>(0), rows[0].get::<i64, _>(1)), (123, 1));
    assert_eq!(rows[0].get::<String, _>(2), "2019-01-31 12:13:01.000000");
    let url = format!("{}/shipments?orderId=1", flow.shipment_service.url());
    let found: Value = client.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(found["items"].as_array().unwrap().len(), 1, "{found}");
}

/// The lines that the README of 2019 tells its reader to look for.
async fn check_log(flow: &Deployment, events: &[&Value]) {
    for event in events {
        let start =
            format!("Processing '{}' event: ", event["headers"][1]["value"].as_str().unwrap());
        let line = flow.shipment_service.program().unwrap().line(&start, DEADLINE).await.unwrap();
        let logged: Value = serde_json::from_str(line.split_once(&start).unwrap().1).unwrap();
        assert_eq!(logged, event["value"]);
    }
}

async fn check_order_database(flow: &Deployment) {
    let mut postgres = PgConnection::connect(&flow.order_database.url()).await.unwrap();
    let count = async |postgres: &mut PgConnection, query: &'static str| {
        sqlx::query_scalar::<_, i64>(query).fetch_one(postgres).await.unwrap()
    };
    assert_eq!(count(&mut postgres, "select count(*) from inventory.purchaseorder").await, 1);
    assert_eq!(count(&mut postgres, "select count(*) from inventory.outboxevent").await, 0);
    let cancelled = "select count(*) from inventory.orderline where status = 'CANCELLED'";
    assert_eq!(count(&mut postgres, cancelled).await, 1);
}
