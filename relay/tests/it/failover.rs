//! A failover of PostgreSQL 17: the primary dies, its standby is promoted and has the connector's slot
//! (`slot.failover`). Real servers, fetched where another version is installed.

use std::sync::Arc;

use anyhow::{Context, Result};
use sqlx::{Connection, PgConnection};
use testbed::proxy::Proxy;
use testbed::server::{Options, Postgres, RunFolder, STANDBY};
use testbed::{PostgresDatabase, Settings, eventually, unique_name};

use crate::exactly_once::Stage;
use crate::outbox::{DEADLINE, Outbox, running, trace_of_failure};

/// A primary, its standby, and the address under which clients find whichever is the primary.
struct Pair {
    // In the order in which they are to go.
    standby: Postgres,
    primary: Postgres,
    address: Proxy,
    database: PostgresDatabase,
    _folders: [RunFolder; 2],
}

impl Pair {
    async fn start() -> Result<Self> {
        let settings = Settings::read();
        // Failover slots came with PostgreSQL 17, and an older one may be installed.
        let settings = Settings { postgres: testbed::ServerChoice::Maven, ..settings };
        let folders = [RunFolder::create(&settings, false)?, RunFolder::create(&settings, false)?];
        let progress = Arc::new(|line: &str| eprintln!("{line}")) as _;
        let primary =
            Postgres::start(&settings, &folders[0], Options::for_tests(), &progress).await?;
        let name = unique_name("db");
        let database = primary.create_database(&name, &name, &unique_name("pw")).await?;
        let standby = primary.standby(&folders[1]).await?;
        let address = Proxy::to(primary.admin().port).await?;
        let database = PostgresDatabase { port: address.port(), ..database };
        Ok(Self { standby, primary, address, database, _folders: folders })
    }

    /// A commit waits for the standby, and so does every logical slot that may fail over.
    async fn wait_for_the_standby(&self) -> Result<()> {
        let mut sql = PgConnection::connect(&self.primary.admin().url()).await?;
        for name in ["synchronized_standby_slots", "synchronous_standby_names"] {
            let set = format!("alter system set {name} = '{STANDBY}'");
            sqlx::raw_sql(sqlx::AssertSqlSafe(set)).execute(&mut sql).await?;
        }
        sqlx::raw_sql("select pg_reload_conf()").execute(&mut sql).await?;
        until(&self.primary, "select sync_state from pg_stat_replication where sync_state = 'sync'")
            .await
    }

    /// Waits until the standby could take over this slot.
    async fn until_synchronized(&self, slot: &str) -> Result<()> {
        let (primary, standby) = (self.primary.admin().url(), self.standby.admin().url());
        let sql = format!(
            "select slot_name from pg_replication_slots \
             where failover and synced and not temporary and slot_name = '{slot}'"
        );
        eventually("the slot at the standby", DEADLINE, || async {
            // A slot is taken over when the primary's has moved on, for which an idle one waits for this.
            let mut sql_on_primary = PgConnection::connect(&primary).await?;
            sqlx::raw_sql("select pg_log_standby_snapshot()").execute(&mut sql_on_primary).await?;
            let mut connection = PgConnection::connect(&standby).await?;
            let row = sqlx::query(sqlx::AssertSqlSafe(sql.clone()));
            Ok(row.fetch_optional(&mut connection).await?.map(drop))
        })
        .await
    }

    async fn fail_over(&mut self) -> Result<()> {
        self.primary.kill().await;
        // Clients may find the standby while it still is one.
        self.address.lead_to(self.standby.admin().port);
        self.standby.promote().await
    }
}

/// Waits for a row.
async fn until(server: &Postgres, sql: &str) -> Result<()> {
    let url = server.admin().url();
    eventually(sql, DEADLINE, || async {
        let mut connection = PgConnection::connect(&url).await?;
        let row = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned()));
        Ok(row.fetch_optional(&mut connection).await?.map(drop))
    })
    .await
}

/// What the database has committed, in order, where each transaction notes its event in a table that stays.
async fn noted(outbox: &mut Outbox) -> Result<Vec<usize>> {
    let ids = outbox.value("select string_agg(id::text, ',' order by id) from inventory.noted");
    let ids = ids.await?.context("nothing was noted")?;
    ids.split(',').map(|id| Ok(id.parse()?)).collect()
}

/// Writes and notes events until the server dies.
async fn emit_until_it_dies(database: &PostgresDatabase, first: usize) -> Result<()> {
    let mut sql = PgConnection::connect(&database.url()).await?;
    for id in first.. {
        let transaction = format!(
            "begin; insert into inventory.outboxevent (aggregatetype, aggregateid, type, payload) \
             values ('Order', '{id}', 'OrderCreated', '{{}}'); delete from inventory.outboxevent; \
             insert into inventory.noted values ({id}); commit"
        );
        if sqlx::raw_sql(sqlx::AssertSqlSafe(transaction)).execute(&mut sql).await.is_err() {
            break;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_standby_has_the_slot_and_no_event_is_lost_or_seen_twice() -> Result<()> {
    let mut pair = Pair::start().await?;
    pair.wait_for_the_standby().await?;
    let outbox = Outbox::on(pair.database.clone()).await?.with("slot.failover", "true");
    let mut stage = Stage::on(outbox).await?;
    stage.outbox.execute("create table inventory.noted (id int primary key)").await?;
    let task = stage.start()?;
    running(&task).await?;
    let emitting = tokio::spawn({
        let database = pair.database.clone();
        async move { emit_until_it_dies(&database, 1).await }
    });
    pair.until_synchronized(&stage.outbox.slot).await?;
    let before = stage.until_committed(100).await?.len();
    pair.fail_over().await?;
    emitting.await??;
    stage.outbox.reconnect().await?;
    let first = noted(&mut stage.outbox).await?.len() + 1;
    assert!(first > before, "the standby has {first} events, and {before} were published");
    let insert =
        format!("insert into inventory.noted select generate_series({first}, {first} + 9)");
    stage.outbox.execute(&insert).await?;
    stage.emit(first..=first + 9).await?;
    let noted = noted(&mut stage.outbox).await?;
    assert_eq!(stage.until_committed(noted.len()).await?, noted);
    assert!(task.stop().await);
    assert_eq!(stage.committed().await?, noted);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_lacks_what_was_published_is_noticed() -> Result<()> {
    let mut pair = Pair::start().await?;
    let outbox = Outbox::on(pair.database.clone()).await?.with("slot.failover", "true");
    let mut stage = Stage::on(outbox).await?;
    let task = stage.start()?;
    running(&task).await?;
    stage.emit(1..=10).await?;
    stage.until_committed(10).await?;
    pair.until_synchronized(&stage.outbox.slot).await?;
    // Nothing makes anybody wait for the standby: what is published now is lost with the primary.
    pair.standby.kill().await;
    stage.emit(11..=20).await?;
    stage.until_committed(20).await?;
    pair.primary.kill().await;
    pair.standby.restart().await?;
    pair.fail_over().await?;
    let trace = trace_of_failure(&task).await?;
    assert!(trace.contains("a standby that lagged was promoted"), "{trace}");
    assert_eq!(stage.committed().await?, (1..=20).collect::<Vec<_>>());
    task.stop().await;
    Ok(())
}
