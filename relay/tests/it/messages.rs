//! Logical decoding messages, from `pg_logical_emit_message` to the sink.

use anyhow::Result;
use relay::record::Record;

use crate::outbox::{Outbox, records};

const CONTENT: &str = r#"{"id":"e1","aggregatetype":"Order","aggregateid":"1","type":"OrderCreated","payload":{"id":1}}"#;

fn texts(records: &[Record]) -> Vec<(&str, String, String)> {
    let text = |bytes: &Option<Vec<u8>>| {
        String::from_utf8_lossy(bytes.as_deref().unwrap_or_default()).into_owned()
    };
    records
        .iter()
        .map(|record| (record.topic.as_str(), text(&record.key), text(&record.value)))
        .collect()
}

#[tokio::test]
async fn messages_are_an_outbox_without_a_table() -> Result<()> {
    let class = "io.debezium.connector.postgresql.transforms.DecodeLogicalDecodingMessageContent";
    let mut outbox = Outbox::new()
        .await?
        .with("transforms", "decode,outbox")
        .with("transforms.decode.type", class);
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    for transactional in ["true", "false"] {
        let emit =
            format!("select pg_logical_emit_message({transactional}, 'outbox', '{CONTENT}')");
        outbox.execute(&emit).await?;
    }
    outbox.emit("2").await?;
    let records = records(&control, 3).await?;
    let event = |key: &str| ("OrderEvents", key.to_owned(), format!("{{\"id\":{key}}}"));
    assert_eq!(texts(&records), [event("1"), event("1"), event("2")]);
    let names: Vec<&str> = records[0].headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["id", "eventType"]);
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn messages_pass_by_a_router_and_are_chosen_by_prefix() -> Result<()> {
    let mut outbox = Outbox::new().await?.with("message.prefix.include.list", "audit.*");
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    outbox
        .execute(
            "select pg_logical_emit_message(true, 'other', 'x'); \
             select pg_logical_emit_message(true, 'audit-1', 'x')",
        )
        .await?;
    outbox.emit("1").await?;
    let records = records(&control, 2).await?;
    let texts = texts(&records);
    assert_eq!((texts[0].0, texts[0].1.as_str()), ("dbserver1.message", "Struct{prefix=audit-1}"));
    assert!(texts[0].2.contains(r#""message":{"prefix":"audit-1","content":"eA=="}"#));
    assert_eq!(texts[1].0, "OrderEvents");
    task.stop().await;
    Ok(())
}
