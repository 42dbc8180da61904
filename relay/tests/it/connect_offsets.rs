//! Source offsets: what another worker (Debezium, or an operator) has stored is honoured, and said in the log.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sqlx::PgConnection;
use testbed::{PostgresDatabase, eventually, servers, unique_name};

use crate::connect_worker::{DEADLINE, Worker, example_config, outbox_database};

/// A worker with two connectors on one outbox: `reader` runs, `other` stands still with a slot of its own.
struct Stage {
    worker: Worker,
    sql: PgConnection,
    _database: PostgresDatabase,
    topic: String,
}

impl Stage {
    /// Three events are published by `reader`; of the second one this has the stored offset.
    async fn new() -> Result<(Self, Value)> {
        let (database, sql) = outbox_database().await?;
        let worker = Worker::start(&unique_name("offset"), &[]).await?;
        let other = example_config(&database)?;
        let topic = other["transforms.outbox.route.topic.replacement"].as_str().unwrap_or_default();
        let topic = topic.replace("${routedByValue}", "Order");
        let mut stage = Self { worker, sql, _database: database, topic };
        stage.create("other", &other).await?;
        stage.worker.states("other", "RUNNING", Some("RUNNING")).await?;
        stage.call("PUT", "other/stop", None).await?;
        stage.worker.states("other", "STOPPED", None).await?;
        let reader = example_config(&stage._database)?;
        stage.create("reader", &reader).await?;
        stage.worker.states("reader", "RUNNING", Some("RUNNING")).await?;
        stage.emit(1).await?;
        let first = stage.offset_after(0).await?;
        stage.emit(2).await?;
        let second = stage.offset_after(first["lsn"].as_u64().context("lsn")?).await?;
        assert_eq!(
            (&second["messageType"], &second["lsn_events_processed"]),
            (&json!("INSERT"), &json!(1))
        );
        assert!(second["lsn_commit"].as_u64() > first["lsn"].as_u64(), "{first} {second}");
        stage.emit(3).await?;
        stage.offset_after(second["lsn"].as_u64().context("lsn")?).await?;
        Ok((stage, second))
    }

    async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let (status, answer) =
            self.worker.call(method, &format!("/connectors/{path}"), body).await?;
        assert!(status < 300, "{method} {path}: {status} {answer}");
        Ok(answer)
    }

    async fn create(&self, name: &str, config: &Value) -> Result<()> {
        self.call("PUT", &format!("{name}/config"), Some(config)).await.map(drop)
    }

    async fn emit(&mut self, id: u32) -> Result<()> {
        let call = format!("call inventory.load_events('Order', {id}, {id}, false, 0)");
        sqlx::raw_sql(sqlx::AssertSqlSafe(call)).execute(&mut self.sql).await?;
        Ok(())
    }

    /// The reader's offset once its change is beyond `lsn`.
    async fn offset_after(&self, lsn: u64) -> Result<Value> {
        eventually("the offset is stored", DEADLINE, || async {
            let (_, answer) = self.worker.get("/connectors/reader/offsets").await?;
            let offset = &answer["offsets"][0]["offset"];
            Ok((offset["lsn"].as_u64() > Some(lsn)).then(|| offset.clone()))
        })
        .await
    }

    /// Gives the other connector an offset and lets it run; the keys of the records that it publishes, in order.
    async fn resume_other(&mut self, offset: &Value, records: usize) -> Result<Vec<String>> {
        let body = json!({"offsets": [{"partition": {"server": "dbserver1"}, "offset": offset}]});
        self.call("PATCH", "other/offsets", Some(&body)).await?;
        let (_, stored) = self.worker.get("/connectors/other/offsets").await?;
        assert_eq!(stored["offsets"][0]["offset"], *offset);
        self.call("PUT", "other/resume", None).await?;
        self.worker.states("other", "RUNNING", Some("RUNNING")).await?;
        // The last event is new, whatever the offset says; with it everything before has been read.
        self.emit(4).await?;
        let kafka = servers().await?.bootstrap_servers();
        let keys = eventually("the other connector's records", DEADLINE, || async {
            let read = testbed::topic::read(kafka, &self.topic).await.unwrap_or_default();
            let keys: Vec<String> = read.iter().map(testbed::topic::Record::key_text).collect();
            Ok((keys.len() >= records).then_some(keys))
        });
        let keys = keys.await.with_context(|| self.worker.program.tail())?;
        for name in ["other", "reader"] {
            self.call("DELETE", name, None).await?;
        }
        Ok(keys)
    }

    async fn log_says(&self, words: &str) -> Result<()> {
        self.worker.program.line(words, DEADLINE).await.map(drop)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stored_offset_covers_beyond_the_slot_is_not_published_again() -> Result<()> {
    let (mut stage, second) = Stage::new().await?;
    assert_eq!(stage.resume_other(&second, 2).await?, ["3", "4"]);
    stage.log_says("the stored source offset is ahead of the slot").await?;
    stage.log_says("skipped the changes that the stored source offset covers").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_of_another_server_skips_nothing() -> Result<()> {
    let (mut stage, _) = Stage::new().await?;
    let strange = json!({"lsn": 1_u64 << 60, "lsn_proc": 1_u64 << 60, "txId": 7});
    assert_eq!(stage.resume_other(&strange, 4).await?, ["1", "2", "3", "4"]);
    stage.log_says("beyond the end of the server's WAL").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_behind_the_slot_is_said_to_be() -> Result<()> {
    let (mut stage, _) = Stage::new().await?;
    assert_eq!(stage.resume_other(&json!({"lsn": 1}), 4).await?, ["1", "2", "3", "4"]);
    stage.log_says("the stored source offset is behind the slot").await
}

/// Within an interval of an hour, only the number of records can be why.
#[tokio::test(flavor = "multi_thread")]
async fn the_offset_of_a_burst_is_stored_before_its_interval_is_over() -> Result<()> {
    let (database, mut sql) = outbox_database().await?;
    let hour = ("OFFSET_FLUSH_INTERVAL_MS", "3600000");
    let worker = Worker::start(&unique_name("burst"), &[hour]).await?;
    let body = json!({"name": "burst", "config": example_config(&database)?});
    worker.call("POST", "/connectors", Some(&body)).await?;
    worker.states("burst", "RUNNING", Some("RUNNING")).await?;
    sqlx::raw_sql("call inventory.load_events('Order', 1, 5000, false, 0)")
        .execute(&mut sql)
        .await?;
    eventually("an offset of the burst", DEADLINE, || async {
        let (_, answer) = worker.get("/connectors/burst/offsets").await?;
        Ok(answer["offsets"][0]["offset"]["lsn"].is_u64().then_some(()))
    })
    .await
    .with_context(|| worker.program.tail())?;
    worker.call("DELETE", "/connectors/burst", None).await?;
    Ok(())
}
