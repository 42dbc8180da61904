//! Changes that cannot be published: kept in the dead letter topic, in the order of their key.

use anyhow::{Context, Result};
use relay::record::Record;
use relay::task::TaskState;
use serde_json::{Value, json};

use crate::connect_worker::{Worker, example_config, outbox_database};
use crate::outbox::{DEADLINE, Outbox, keys, records, trace_of_failure};

const LETTERS: &str = "letters";

/// An outbox whose rows may lack what decides the topic, and a connector that keeps what it cannot publish.
async fn outbox() -> Result<Outbox> {
    let outbox = Outbox::new().await?;
    let mut outbox =
        outbox.with("errors.tolerance", "all").with("errors.deadletterqueue.topic.name", LETTERS);
    outbox.execute("alter table inventory.outboxevent alter aggregatetype drop not null").await?;
    Ok(outbox)
}

/// Inserts a row; no aggregate type: it can be routed nowhere.
async fn emit(outbox: &mut Outbox, id: &str, aggregate_type: Option<&str>) -> Result<()> {
    let aggregate_type = aggregate_type.map_or("null".to_owned(), |text| format!("'{text}'"));
    outbox
        .execute(&format!(
            "insert into inventory.outboxevent (aggregatetype, aggregateid, type, payload) \
             values ({aggregate_type}, '{id}', 'OrderCreated', '{{\"of\": \"{id}\"}}')"
        ))
        .await
}

fn letter(record: &Record) -> Result<Value> {
    Ok(serde_json::from_slice(record.value.as_deref().context("no value")?)?)
}

/// Topic and key of each record.
fn addresses(records: &[Record]) -> Vec<(&str, String)> {
    records.iter().map(|record| record.topic.as_str()).zip(keys(records)).collect()
}

#[tokio::test]
async fn a_row_that_cannot_be_published_is_a_dead_letter_and_the_stream_goes_on() -> Result<()> {
    let mut outbox = outbox().await?;
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    emit(&mut outbox, "7", None).await?;
    emit(&mut outbox, "8", Some("no legal name")).await?;
    emit(&mut outbox, "9", Some("Order")).await?;
    let records = records(&control, 3).await?;
    let expected = [(LETTERS, "7"), (LETTERS, "8"), ("OrderEvents", "9")];
    assert_eq!(addresses(&records), expected.map(|(topic, key)| (topic, key.to_owned())));
    let routed = letter(&records[0])?;
    assert_eq!(routed["kind"], "failed");
    assert_eq!((&routed["stage"], &routed["topic"]), (&json!("TRANSFORMATION"), &Value::Null));
    assert_eq!(routed["change"]["operation"], "c");
    assert_eq!(routed["change"]["table"]["name"], "outboxevent");
    assert_eq!(routed["change"]["after"]["aggregateid"], "7");
    assert_eq!(routed["change"]["after"]["payload"], r#"{"of": "7"}"#);
    assert!(routed["position"]["lsn"].as_str().is_some_and(|lsn| lsn.contains('/')), "{routed}");
    let named = letter(&records[1])?;
    assert_eq!(
        (&named["stage"], &named["topic"]),
        (&json!("KAFKA_PRODUCE"), &json!("no legal nameEvents"))
    );
    assert!(records[0].headers.is_empty(), "nobody asked for headers");
    assert_eq!(task.state(), TaskState::Running);
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn nothing_is_acknowledged_before_its_dead_letter_is_confirmed() -> Result<()> {
    let mut outbox = outbox().await?;
    let (task, control) = outbox.start(100, false)?;
    outbox.streaming().await?;
    emit(&mut outbox, "6", Some("Order")).await?;
    emit(&mut outbox, "7", None).await?;
    let failed = outbox.wal_end().await?;
    records(&control, 2).await?;
    control.confirm_oldest();
    // What the next acknowledgement says, which this one brings, is before the row that failed.
    outbox.emit("8").await?;
    records(&control, 3).await?;
    assert!(!outbox.acknowledged(&failed).await?);
    control.confirm_all();
    outbox.until_acknowledged(&failed).await?;
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn later_events_of_a_parked_key_wait_behind_its_dead_letter() -> Result<()> {
    let mut outbox = outbox().await?;
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    // Its topic is known, so that the key of another topic is another one.
    emit(&mut outbox, "7", Some("bad name")).await?;
    emit(&mut outbox, "7", Some("Order")).await?;
    // Its topic is not known: the key waits in every topic.
    emit(&mut outbox, "8", None).await?;
    emit(&mut outbox, "8", Some("Order")).await?;
    emit(&mut outbox, "9", Some("Order")).await?;
    emit(&mut outbox, "8", Some("Customer")).await?;
    let records = records(&control, 6).await?;
    let expected = [
        (LETTERS, "7"),
        ("OrderEvents", "7"),
        (LETTERS, "8"),
        (LETTERS, "8"),
        ("OrderEvents", "9"),
        (LETTERS, "8"),
    ];
    assert_eq!(addresses(&records), expected.map(|(topic, key)| (topic, key.to_owned())));
    let parked = letter(&records[3])?;
    assert_eq!((&parked["kind"], &parked["topic"]), (&json!("parked"), &json!("OrderEvents")));
    assert_eq!(parked["change"]["after"]["payload"], r#"{"of": "8"}"#);
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn where_keys_may_pass_later_events_of_a_dead_letter_s_key_go_on() -> Result<()> {
    let mut outbox = outbox().await?.with("relay.errors.parked.key", "pass");
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    emit(&mut outbox, "8", None).await?;
    emit(&mut outbox, "8", Some("Order")).await?;
    let records = records(&control, 2).await?;
    assert_eq!(records[1].topic, "OrderEvents");
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn more_parked_keys_than_may_be_stop_the_task() -> Result<()> {
    let mut outbox = outbox()
        .await?
        .with("relay.errors.parked.key", "park")
        .with("relay.errors.parked.keys.max", "2");
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    for id in ["1", "2", "1", "3"] {
        emit(&mut outbox, id, None).await?;
    }
    let trace = trace_of_failure(&task).await?;
    assert!(trace.contains("relay.errors.parked.keys.max"), "{trace}");
    assert_eq!(keys(&control.records()), ["1", "2", "1"]);
    Ok(())
}

#[tokio::test]
async fn context_headers_are_those_of_kafka_connect() -> Result<()> {
    let mut outbox = outbox()
        .await?
        .with("relay.errors.parked.key", "park")
        .with("errors.deadletterqueue.context.headers.enable", "true");
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    emit(&mut outbox, "7", None).await?;
    emit(&mut outbox, "7", Some("Order")).await?;
    let records = records(&control, 2).await?;
    let text = |(name, value): &(String, Option<Vec<u8>>)| {
        (name.clone(), String::from_utf8(value.clone().unwrap_or_default()).unwrap_or_default())
    };
    let failed: Vec<(String, String)> = records[0].headers.iter().map(text).collect();
    let reason = "column aggregatetype, which decides the topic, is null";
    let class = "org.apache.kafka.connect.errors.DataException";
    let expected = [
        ("__connect.errors.topic", ""),
        ("__connect.errors.partition", "-1"),
        ("__connect.errors.offset", "-1"),
        ("__connect.errors.connector.name", "outbox-connector"),
        ("__connect.errors.task.id", "0"),
        ("__connect.errors.stage", "TRANSFORMATION"),
        ("__connect.errors.class.name", "io.debezium.transforms.outbox.EventRouter"),
        ("__connect.errors.exception.class.name", class),
        ("__connect.errors.exception.message", reason),
        ("__connect.errors.exception.stacktrace", &format!("{class}: {reason}")),
    ];
    assert_eq!(failed, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let parked: Vec<(String, String)> = records[1].headers.iter().map(text).collect();
    assert_eq!(parked.len(), 7, "nothing went wrong with this one: {parked:?}");
    assert_eq!(parked[0].1, "OrderEvents");
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn without_tolerance_a_dead_letter_topic_changes_nothing() -> Result<()> {
    let mut outbox = outbox().await?.with("errors.tolerance", "none");
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    emit(&mut outbox, "7", None).await?;
    let trace = trace_of_failure(&task).await?;
    assert!(trace.contains("TRANSFORMATION") && trace.contains("aggregatetype"), "{trace}");
    assert!(control.records().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_whole_change_is_one_dead_letter_also_where_a_part_of_it_could_be_published() -> Result<()>
{
    // Without a router a delete is an event, which this converter refuses, and a tombstone, which it does not.
    let mut outbox = outbox()
        .await?
        .with("table.include.list", "inventory.other")
        .with("transforms", "")
        .with("value.converter", "org.apache.kafka.connect.converters.ByteArrayConverter");
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    outbox.execute("insert into inventory.other values (1, 'x')").await?;
    outbox.execute("delete from inventory.other").await?;
    outbox.execute("insert into inventory.other values (2, 'y')").await?;
    let records = records(&control, 3).await?;
    assert!(records.iter().all(|record| record.topic == LETTERS), "{records:?}");
    assert_eq!(keys(&records), ["Struct{id=1}", "Struct{id=1}", "Struct{id=2}"]);
    let deleted = letter(&records[1])?;
    assert_eq!(deleted["stage"], "VALUE_CONVERTER");
    assert_eq!(deleted["topic"], "dbserver1.inventory.other");
    assert_eq!(
        (&deleted["change"]["operation"], &deleted["change"]["before"]["id"]),
        (&json!("d"), &json!("1"))
    );
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn failures_are_logged_in_kafka_connect_s_words_where_that_is_asked_for() -> Result<()> {
    for (messages, told) in [("false", false), ("true", true)] {
        let (database, mut sql) = outbox_database().await?;
        let mut config = example_config(&database)?;
        config["errors.tolerance"] = json!("all");
        config["errors.log.enable"] = json!("true");
        config["errors.log.include.messages"] = json!(messages);
        config["transforms.outbox.table.field.event.timestamp"] = json!("type");
        let worker = Worker::start(&testbed::unique_name("logged"), &[]).await?;
        let (status, answer) = worker.call("PUT", "/connectors/c/config", Some(&config)).await?;
        assert_eq!(status, 201, "{answer}");
        worker.states("c", "RUNNING", Some("RUNNING")).await?;
        sqlx::raw_sql(
            "insert into inventory.outboxevent (id, aggregatetype, aggregateid, type, timestamp, payload) \
             values (gen_random_uuid(), 'Order', '1', 'OrderCreated', now(), '{\"sold\": \"tea\"}')",
        )
        .execute(&mut sql)
        .await?;
        let line = worker.program.line("Error encountered in task c-0", DEADLINE).await?;
        assert!(line.contains("Executing stage 'TRANSFORMATION' with class"), "{line}");
        assert_eq!(line.contains("tea"), told, "{line}");
        worker.program.terminate().await?;
    }
    Ok(())
}
