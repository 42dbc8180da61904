//! Events with numbers as aggregate ids: written to an outbox, and looked for in the topic.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use sqlx::{Connection, PgConnection};
use testbed::{PostgresDatabase, eventually, topic};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::connect_worker::DEADLINE;

/// Where events are written and where they arrive.
pub(crate) struct NumberedEvents {
    url: String,
    bootstrap_servers: String,
    topic: String,
}

impl NumberedEvents {
    /// Of a connector with [`example_config`](crate::connect_worker::example_config) and this slot.
    pub(crate) fn new(database: &PostgresDatabase, slot: &str, bootstrap_servers: &str) -> Self {
        let topic = format!("OrderEvents_{slot}");
        Self { url: database.url(), bootstrap_servers: bootstrap_servers.to_owned(), topic }
    }

    /// One transaction for each.
    pub(crate) async fn emit(&self, first: u32, last: u32) -> Result<()> {
        let mut sql = PgConnection::connect(&self.url).await?;
        emit(&mut sql, first, last).await
    }

    /// Emits one after the other until it is told to stop.
    pub(crate) fn emit_from(&self, first: u32) -> Emitter {
        let (stop, mut stopped) = oneshot::channel();
        let url = self.url.clone();
        let emitting = tokio::spawn(async move {
            let mut sql = PgConnection::connect(&url).await?;
            let mut id = first;
            loop {
                emit(&mut sql, id, id).await?;
                if stopped.try_recv().is_ok() {
                    return Ok(id);
                }
                id += 1;
            }
        });
        Emitter { stop, emitting }
    }

    /// Inserts rows that stay, in one transaction.
    pub(crate) async fn keep(&self, first: u32, last: u32) -> Result<()> {
        let mut sql = PgConnection::connect(&self.url).await?;
        let insert = format!(
            "insert into inventory.outboxevent select gen_random_uuid(), 'Order', n::text, 'OrderCreated', now(), '{{}}' \
             from generate_series({first}, {last}) n"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(insert)).execute(&mut sql).await?;
        Ok(())
    }

    /// The numbers in the topic, in its order.
    pub(crate) async fn arrived(&self) -> Result<Vec<u32>> {
        let records = topic::read(&self.bootstrap_servers, &self.topic).await?;
        records.iter().map(|record| Ok(record.key_text().parse()?)).collect()
    }

    /// Waits until there are more than so many.
    pub(crate) async fn more_than(&self, count: usize) -> Result<()> {
        eventually(&format!("more than {count} events"), DEADLINE, || async {
            Ok((self.arrived().await?.len() > count).then_some(()))
        })
        .await
    }

    /// Waits until `1..=last` are in the topic; their first occurrences must come in the order of the commits.
    pub(crate) async fn delivered(&self, last: u32) -> Result<Vec<u32>> {
        let expected: Vec<u32> = (1..=last).collect();
        eventually(&format!("events 1 to {last} in {}", self.topic), DEADLINE, || async {
            let all = self.arrived().await?;
            let mut seen = BTreeSet::new();
            let first: Vec<u32> = all.iter().copied().filter(|id| seen.insert(*id)).collect();
            let count = first.len();
            ensure!(first == expected, "{count} of {last}, the last {:?}", first.last());
            Ok(Some(all))
        })
        .await
    }
}

async fn emit(sql: &mut PgConnection, first: u32, last: u32) -> Result<()> {
    let call = format!("call inventory.load_events('Order', {first}, {last}, false, 0)");
    sqlx::raw_sql(sqlx::AssertSqlSafe(call)).execute(sql).await?;
    Ok(())
}

/// Somebody who emits.
pub(crate) struct Emitter {
    stop: oneshot::Sender<()>,
    emitting: JoinHandle<Result<u32>>,
}

impl Emitter {
    /// Stops it, and returns the last number.
    pub(crate) async fn stop(self) -> Result<u32> {
        let _ = self.stop.send(());
        self.emitting.await?
    }
}
