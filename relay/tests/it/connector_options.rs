//! Options of a connector whose effect no recorded case shows.

use anyhow::{Result, ensure};
use relay::config::WorkerConfig;
use relay::connector_config::ConnectorConfig;
use serde_json::json;
use testbed::unique_name;

use crate::connect_worker::{Worker, example_config, outbox_database};
use crate::outbox::{Outbox, records};

/// Names and values of a configuration that is complete but for what a test adds.
fn parse(given: &[(&str, &str)]) -> ConnectorConfig {
    let base = [
        ("connector.class", "PostgresConnector"),
        ("plugin.name", "pgoutput"),
        ("database.hostname", "order-db"),
        ("database.user", "u"),
        ("database.dbname", "orderdb"),
        ("transforms", "outbox"),
        ("transforms.outbox.type", "io.debezium.transforms.outbox.EventRouter"),
        ("key.converter", "StringConverter"),
        ("value.converter", "JsonConverter"),
    ];
    let all = base.iter().chain(given).map(|(name, value)| ((*name).into(), (*value).into()));
    ConnectorConfig::parse(&all.collect(), &WorkerConfig::default()).expect("good options")
}

#[test]
fn former_names_count_where_the_present_ones_are_not_given() {
    let former = parse(&[
        ("database.server.name", "old"),
        ("schema.blacklist", "hidden"),
        ("table.whitelist", ".*\\.outboxevent"),
    ]);
    assert_eq!(former.topic_prefix, "old");
    assert!(former.table_filter.captures("inventory", "outboxevent"));
    assert!(!former.table_filter.captures("hidden", "outboxevent"));
    assert!(!former.table_filter.captures("inventory", "orders"));
    let former = parse(&[("topic.prefix", "p"), ("table.blacklist", "inventory.orders")]);
    assert!(former.table_filter.captures("inventory", "outboxevent"));
    assert!(!former.table_filter.captures("inventory", "orders"));
    let both = parse(&[("topic.prefix", "new"), ("database.server.name", "old")]);
    assert_eq!(both.topic_prefix, "new");
}

#[tokio::test]
async fn a_column_that_is_not_in_the_include_list_does_not_reach_the_router() -> Result<()> {
    let placement = "transforms.outbox.table.fields.additional.placement";
    let columns = "inventory.outboxevent.(id|aggregatetype|aggregateid|type|payload)";
    let mut outbox = Outbox::new()
        .await?
        .with("column.include.list", columns)
        .with(placement, "type:header,timestamp:header")
        .with("transforms.outbox.table.field.additional.missing", "ignore");
    let (task, control) = outbox.start(10, true)?;
    outbox.streaming().await?;
    outbox.emit("1").await?;
    let record = records(&control, 1).await?.remove(0);
    let names: Vec<&str> = record.headers.iter().map(|(name, _)| name.as_ref()).collect();
    assert_eq!(names, ["id", "type"]);
    task.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn overrides_reach_the_producer_which_refuses_those_that_would_lose_events() -> Result<()> {
    let (database, _sql) = outbox_database().await?;
    let worker = Worker::start(&unique_name("override"), &[]).await?;
    let mut config = example_config(&database)?;
    config["producer.override.acks"] = json!("0");
    let body = json!({"name": "weak", "config": config});
    let (created, answer) = worker.call("POST", "/connectors", Some(&body)).await?;
    ensure!(created == 201, "{answer}");
    let status = worker.states("weak", "RUNNING", Some("FAILED")).await?;
    let trace = status["tasks"][0]["trace"].as_str().unwrap_or_default();
    assert!(trace.contains("producer.override.acks"), "{trace}");
    Ok(())
}
