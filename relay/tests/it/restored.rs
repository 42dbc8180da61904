//! A database that was set back to a copy of its files and has gone on from there: the same cluster, timeline and slot,
//! and positions that are in its WAL again, with something else at them.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use relay::task::TaskHandle;
use sqlx::{Connection, PgConnection};
use testbed::proxy::{Network, Proxy};
use testbed::server::{Options, Postgres, RunFolder};
use testbed::{PostgresDatabase, Settings, eventually, unique_name};

use crate::exactly_once::Stage;
use crate::outbox::{DEADLINE, Outbox, keys, records, running, trace_of_failure};

struct Server {
    postgres: Postgres,
    database: PostgresDatabase,
    _folder: RunFolder,
}

impl Server {
    async fn start() -> Result<Self> {
        let settings = Settings::read();
        let folder = RunFolder::create(&settings, false)?;
        let progress = Arc::new(|_: &str| {}) as _;
        let postgres = Postgres::start(&settings, &folder, Options::for_tests(), &progress).await?;
        let name = unique_name("db");
        let database = postgres.create_database(&name, &name, &unique_name("pw")).await?;
        Ok(Self { postgres, database, _folder: folder })
    }

    /// Writes more WAL than there was when it was set back.
    async fn go_far(&self) -> Result<()> {
        let mut admin = PgConnection::connect(&self.postgres.admin().url()).await?;
        for _ in 0..2 {
            sqlx::raw_sql("create table if not exists far (); select pg_switch_wal()")
                .execute(&mut admin)
                .await?;
        }
        Ok(())
    }
}

/// A server of whose outbox a task, which runs, has published three events exactly once.
async fn three_published() -> Result<(Server, Stage, TaskHandle)> {
    let server = Server::start().await?;
    let mut stage = Stage::on(Outbox::on(server.database.clone()).await?).await?;
    let task = stage.start()?;
    running(&task).await?;
    stage.emit(1..=3).await?;
    stage.until_committed(3).await?;
    Ok((server, stage, task))
}

fn says_so(trace: &str) {
    for words in ["does not come again", "set back", "DELETE /connectors/<name>/offsets"] {
        assert!(trace.contains(words), "{words} in {trace}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_noticed_at_least_once_and_nothing_of_it_is_acknowledged() -> Result<()> {
    let mut server = Server::start().await?;
    let mut outbox = Outbox::on(server.database.clone()).await?;
    let (task, control) = outbox.start(100, true)?;
    running(&task).await?;
    outbox.emit("1").await?;
    records(&control, 1).await?;
    task.stop().await;
    let backup = server.postgres.back_up().await?;
    outbox.reconnect().await?;
    let (task, control) = outbox.start(100, true)?;
    running(&task).await?;
    outbox.emit("2").await?;
    records(&control, 1).await?;
    let written = task.written();
    task.stop().await;
    let stored = written.offset().context("a position")?;

    server.postgres.set_back(&backup).await?;
    outbox.reconnect().await?;
    // Below the position that was stored, and above it.
    outbox.emit("3").await?;
    server.go_far().await?;
    outbox.emit("4").await?;
    let (task, control) = outbox.start_with_stored(stored)?;
    says_so(&trace_of_failure(&task).await?);
    assert_eq!(keys(&control.records()), [""; 0]);

    // As the trace says: without the position everything is there.
    let (task, control) = outbox.start(100, true)?;
    eventually("events 3 and 4", DEADLINE, || async {
        let keys = keys(&control.records());
        // PostgreSQL before 17 forgets at a shutdown what was acknowledged last.
        ensure!(keys.ends_with(&["3".to_owned(), "4".to_owned()]) && keys.len() <= 3, "{keys:?}");
        Ok(Some(()))
    })
    .await?;
    task.stop().await;
    Ok(())
}

/// The disk is restored while the relay tries to reach the server.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_noticed_by_a_relay_that_lives_on() -> Result<()> {
    let mut server = Server::start().await?;
    let address = Proxy::to(server.postgres.admin().port).await?;
    let database = PostgresDatabase { port: address.port(), ..server.database.clone() };
    let mut outbox = Outbox::on(database).await?;
    let (task, control) = outbox.start(100, true)?;
    running(&task).await?;
    outbox.emit("1").await?;
    records(&control, 1).await?;
    address.set(Network::Cut);
    let backup = server.postgres.back_up().await?;
    address.set(Network::Good);
    outbox.reconnect().await?;
    outbox.emit("2").await?;
    records(&control, 2).await?;

    address.set(Network::Cut);
    server.postgres.set_back(&backup).await?;
    let mut copy = Outbox::with_tables(server.database.clone()).await?;
    copy.emit("3").await?;
    server.go_far().await?;
    copy.emit("4").await?;
    address.set(Network::Good);
    says_so(&trace_of_failure(&task).await?);
    assert_eq!(keys(&control.records()), ["1", "2"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_noticed_exactly_once() -> Result<()> {
    let (mut server, mut stage, task) = three_published().await?;
    task.stop().await;
    let backup = server.postgres.back_up().await?;
    stage.outbox.reconnect().await?;
    let task = stage.start()?;
    running(&task).await?;
    stage.emit(4..=6).await?;
    stage.until_committed(6).await?;
    task.stop().await;

    server.postgres.set_back(&backup).await?;
    stage.outbox.reconnect().await?;
    stage.emit(7..=8).await?;
    server.go_far().await?;
    stage.emit(9..=9).await?;
    let task = stage.start()?;
    says_so(&trace_of_failure(&task).await?);
    assert_eq!(stage.committed().await?, [1, 2, 3, 4, 5, 6]);
    Ok(())
}

/// A copy that is started before anything was published behind it goes on as if nothing had been.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_without_a_gap_is_gone_on_from() -> Result<()> {
    let (mut server, mut stage, task) = three_published().await?;
    // Its slot stands before what was published: acknowledgements since the last checkpoint are not in it.
    task.abandon();
    server.postgres.kill().await;
    server.postgres.restart().await?;
    let backup = server.postgres.back_up().await?;
    server.postgres.set_back(&backup).await?;
    stage.outbox.reconnect().await?;
    let task = stage.start()?;
    running(&task).await?;
    stage.emit(4..=5).await?;
    assert_eq!(stage.until_committed(5).await?, [1, 2, 3, 4, 5]);
    task.stop().await;
    Ok(())
}
