//! A stored position that does not belong to the slot that is there stops the task, and says what is missing.

use anyhow::{Context, Result};
use relay::source_offset::SourceOffset;
use serde_json::{Value, json};
use testbed::topic;

use crate::exactly_once::Stage;
use crate::outbox::{Outbox, keys, records, running, trace_of_failure};

/// Whose connector has published one event, and was stopped.
async fn stage_with_position() -> Result<Stage> {
    let mut stage = Stage::new().await?;
    let task = stage.start()?;
    running(&task).await?;
    stage.emit(1..=1).await?;
    stage.until_committed(1).await?;
    task.stop().await;
    Ok(stage)
}

impl Stage {
    /// Stores the last position with other fields.
    async fn store(&self, changes: &[(&str, Value)]) -> Result<()> {
        let mut position = self.position().await?;
        for (name, value) in changes {
            position[*name] = value.clone();
        }
        self.write(&position).await
    }

    async fn write(&self, position: &Value) -> Result<()> {
        let key = Some(br#"["outbox-connector",{"server":"dbserver1"}]"#.as_slice());
        let value = position.to_string();
        topic::produce(&self.kafka, &self.offsets, key, &[], Some(value.as_bytes())).await.map(drop)
    }

    async fn refused_with(&self, words: &[&str]) -> Result<()> {
        let task = self.start()?;
        let trace = trace_of_failure(&task).await?;
        for word in words {
            assert!(trace.contains(word), "{word}: {trace}");
        }
        assert!(trace.contains("DELETE /connectors/<name>/offsets"), "{trace}");
        // It stays so: nothing was stored or made anew by the attempt.
        task.stop().await;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_made_anew_is_noticed() -> Result<()> {
    let mut stage = stage_with_position().await?;
    let slot = stage.outbox.slot.clone();
    stage.outbox.execute(&format!("select pg_drop_replication_slot('{slot}')")).await?;
    stage.emit(2..=2).await?;
    stage
        .outbox
        .execute(&format!("select pg_create_logical_replication_slot('{slot}', 'pgoutput')"))
        .await?;
    for _ in 0..2 {
        stage.refused_with(&["it was dropped and made anew", "were not published"]).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_moved_is_noticed() -> Result<()> {
    let mut stage = stage_with_position().await?;
    let slot = stage.outbox.slot.clone();
    stage.emit(2..=2).await?;
    stage
        .outbox
        .execute(&format!("select pg_replication_slot_advance('{slot}', pg_current_wal_lsn())"))
        .await?;
    stage.refused_with(&["or moved by somebody else"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_dropped_is_noticed() -> Result<()> {
    let mut stage = stage_with_position().await?;
    let slot = stage.outbox.slot.clone();
    stage.outbox.execute(&format!("select pg_drop_replication_slot('{slot}')")).await?;
    stage.refused_with(&["is gone, which the stored position"]).await?;
    assert_eq!(stage.outbox.slots().await?, "", "a slot was made");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_database_cluster_is_noticed() -> Result<()> {
    let stage = stage_with_position().await?;
    stage.store(&[("relay_system_id", json!("1234567890123456789"))]).await?;
    stage.refused_with(&["system identifier 1234567890123456789", "not here"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_timeline_is_noticed() -> Result<()> {
    let stage = stage_with_position().await?;
    stage.store(&[("relay_timeline", json!(7))]).await?;
    stage.refused_with(&["timeline 7", "a standby that lagged was promoted"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_set_back_is_noticed() -> Result<()> {
    let stage = stage_with_position().await?;
    let far = json!(1_u64 << 60);
    stage.store(&[("lsn_proc", far.clone()), ("relay_lsn_flush", far)]).await?;
    stage.refused_with(&["beyond the end of the server's WAL", "to a backup"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_of_debezium_is_taken_up_exactly_once() -> Result<()> {
    let mut stage = stage_with_position().await?;
    stage.emit(2..=2).await?;
    // Without the relay's fields, as Debezium would have stored it.
    let position = stage.position().await?;
    let of_debezium: serde_json::Map<String, Value> = position
        .as_object()
        .context("no object")?
        .iter()
        .filter(|(name, _)| !name.starts_with("relay_"))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    stage.write(&Value::Object(of_debezium)).await?;
    let task = stage.start()?;
    assert_eq!(stage.until_committed(2).await?, [1, 2]);
    task.stop().await;
    assert!(stage.position().await?["relay_system_id"].is_string());
    Ok(())
}

/// At least once, the position is what a task tells of its work.
async fn told_at_least_once(outbox: &mut Outbox) -> Result<SourceOffset> {
    let (task, control) = outbox.start(100, true)?;
    outbox.streaming().await?;
    outbox.emit("1").await?;
    records(&control, 1).await?;
    let written = task.written();
    task.stop().await;
    written.offset().context("nothing was told")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_slot_is_noticed_at_least_once_as_well() -> Result<()> {
    let mut outbox = Outbox::new().await?;
    let told = told_at_least_once(&mut outbox).await?;
    assert_eq!(told.identity().map(|identity| identity.slot.as_str()), Some(&*outbox.slot));
    let slot = outbox.slot.clone();
    outbox.execute(&format!("select pg_drop_replication_slot('{slot}')")).await?;
    let (task, _control) = outbox.start_with_stored(told.clone())?;
    let trace = trace_of_failure(&task).await?;
    assert!(trace.contains("is gone, which the stored position"), "{trace}");
    // Who asks for a snapshot when it is needed has decided about that.
    let outbox = outbox.with("snapshot.mode", "when_needed");
    let (task, _control) = outbox.start_with_stored(told)?;
    running(&task).await?;
    task.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_still_there_goes_on_at_least_once() -> Result<()> {
    let mut outbox = Outbox::new().await?;
    let told = told_at_least_once(&mut outbox).await?;
    outbox.emit("2").await?;
    let (task, control) = outbox.start_with_stored(told)?;
    assert_eq!(keys(&records(&control, 1).await?), ["2"]);
    task.stop().await;
    Ok(())
}
