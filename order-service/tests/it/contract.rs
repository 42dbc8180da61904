//! The events as consumers see them, against the files in `resources/contract/`. The consumer's tests read the same
//! files: what one side changes, the other side notices.
//!
//! A file holds a record: its topic, key, headers in order, and value. How a row becomes a record is the relay's
//! configuration (`register-postgres.json`), tested there; here it is three lines.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use super::service::{CANCEL_REQUEST, ORDER_REQUEST, World};

/// Stands for the event's id in the files, where every run has another one.
const EVENT_ID: &str = "01930a6c-5a7e-7c3a-9d58-2f1b6f0c4e11";

/// Set to write the files instead of comparing them.
const UPDATE: &str = "UPDATE_CONTRACT";

#[tokio::test]
async fn events_are_what_consumers_were_promised() -> Result<()> {
    let world = World::with(&[("OUTBOX_KEEP_ROWS", "true")]).await?;
    world.service.post("/orders", ORDER_REQUEST).await?;
    world.service.put("/orders/1/lines/2", CANCEL_REQUEST).await?;
    // `payload::text` is what the relay reads from the WAL, with PostgreSQL's order of fields and its spaces.
    let rows: Vec<(String, String, String, String)> = sqlx::query_as(
        "select aggregatetype, aggregateid, type, payload::text from inventory.outboxevent order by id",
    )
    .fetch_all(&world.pool)
    .await?;
    assert_eq!(rows.len(), 3);
    for (aggregate_type, aggregate_id, event_type, payload) in rows {
        let record = format!(
            r#"{{
  "topic": "{aggregate_type}Events",
  "key": "{aggregate_id}",
  "headers": [
    {{"name": "id", "value": "{EVENT_ID}"}},
    {{"name": "eventType", "value": "{event_type}"}}
  ],
  "value": {payload}
}}
"#
        );
        serde_json::from_str::<Value>(&record)?;
        compare(&event_type, &record)?;
    }
    Ok(())
}

fn compare(event_type: &str, record: &str) -> Result<()> {
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "..", "resources", "contract"].iter().collect();
    let path = path.join(format!("{}.json", file_name(event_type)));
    // A test's own switch, not a setting of the service.
    if std::env::var_os(UPDATE).is_some() {
        return std::fs::write(&path, record).with_context(|| format!("cannot write {path:?}"));
    }
    let promised = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {path:?}; {UPDATE}=1 writes it"))?;
    assert_eq!(record, promised, "{path:?} differs; if that is meant, {UPDATE}=1 writes it");
    Ok(())
}

/// `OrderCreated` is in `order-created.json`.
fn file_name(event_type: &str) -> String {
    let mut name = String::new();
    for character in event_type.chars() {
        if character.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(character.to_ascii_lowercase());
    }
    name
}
