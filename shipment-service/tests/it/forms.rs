//! Each form that a producer writes arrives as a shipment: the tolerant reader end to end.

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::fixture::{Record, World, order};

fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

#[tokio::test]
async fn the_original_the_envelopes_and_the_form_of_2019_arrive_as_shipments() -> Result<()> {
    let world = World::with_partitions(1).await?;
    let service = world.service().await?;
    let event = |order_id: i64, value: String| {
        Record::event(Uuid::new_v4(), "OrderCreated", order_id, &value)
    };

    let plain = event(1, order(1));
    let mut original = event(2, quoted(&order(2)));
    original.key = Some("\"2\"".to_owned());
    let envelope = event(3, format!(r#"{{"schema":{{"type":"struct"}},"payload":{}}}"#, order(3)));
    let envelope_of_text =
        event(4, format!(r#"{{"schema":{{"type":"string"}},"payload":{}}}"#, quoted(&order(4))));
    let mut of_2019 = event(
        5,
        format!(
            r#"{{"eventType":"OrderCreated","ts_ms":1548936781000,"payload":{}}}"#,
            quoted(&order(5))
        ),
    );
    of_2019.headers = vec![("eventId".to_owned(), Uuid::new_v4().to_string())];
    let mut quoted_headers = event(6, order(6));
    for (_, value) in &mut quoted_headers.headers {
        *value = quoted(value);
    }
    world.send_all(&[plain, original, envelope, envelope_of_text, of_2019, quoted_headers]).await?;
    world.committed_up_to(6).await?;

    assert_eq!(world.order_ids().await?, [1, 2, 3, 4, 5, 6]);
    for order_id in 1..=6 {
        assert_eq!(service.lines(&format!("Received 'Order' event -- key: \"{order_id}\", ")), 1);
        assert_eq!(
            service.lines(&format!("Processing 'OrderCreated' event: {}", order(order_id))),
            1
        );
    }
    Ok(())
}

/// A record as order-service's tests write it down, in `resources/contract/`: the contract between the two services.
#[derive(Deserialize)]
struct Golden {
    topic: String,
    key: String,
    headers: Vec<GoldenHeader>,
    /// As text, so that it is sent with the spaces and the order of fields that it has there.
    value: Box<RawValue>,
}

#[derive(Deserialize)]
struct GoldenHeader {
    name: String,
    value: String,
}

#[tokio::test]
async fn the_golden_messages_of_the_order_service_are_understood() -> Result<()> {
    let world = World::with_partitions(1).await?;
    let service = world.service().await?;
    let files = golden_files()?;
    let mut event_types = Vec::new();
    for golden in files.iter().filter(|golden| golden.topic == "OrderEvents") {
        let mut headers: Vec<(String, String)> = golden
            .headers
            .iter()
            .map(|header| (header.name.clone(), header.value.clone()))
            .collect();
        assert_eq!(headers[0].0, "id");
        // The files share one event id, which stands for any.
        headers[0].1 = Uuid::new_v4().to_string();
        event_types.push(headers[1].1.clone());
        let value = Some(golden.value.get().as_bytes().to_vec());
        world
            .send(&Record { key: Some(golden.key.clone()), headers, value, partition: None })
            .await?;
    }
    event_types.sort();
    assert_eq!(event_types, ["OrderCreated", "OrderLineUpdated"], "the contract has one of each");
    world.committed_up_to(2).await?;

    assert_eq!(world.dead_letter_count().await?, 0);
    assert_eq!(world.consumed_messages().await?, 2);
    for event_type in &event_types {
        assert_eq!(service.lines(&format!("Processing '{event_type}' event: {{")), 1);
    }
    let created = files.iter().find(|golden| golden.headers[1].value == "OrderCreated");
    let order: Value = serde_json::from_str(created.context("an OrderCreated")?.value.get())?;
    let (_, shipment) = service.get(&format!("/shipments/{}", order["id"])).await?;
    assert_eq!(shipment["orderId"], order["id"]);
    assert_eq!(shipment["customerId"], order["customerId"]);
    let date = |value: &Value| value.as_str().map(str::to_owned).context("a date as text");
    assert!(
        date(&shipment["orderDate"])?.starts_with(&date(&order["orderDate"])?),
        "{shipment} of {order}"
    );
    Ok(())
}

fn golden_files() -> Result<Vec<Golden>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../resources/contract");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("the contract in {folder}"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = std::fs::read_to_string(&path)?;
            files.push(serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?);
        }
    }
    Ok(files)
}
