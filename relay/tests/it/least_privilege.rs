//! The roles of `resources/security/`: the relay and order-service do with them what they have to, and no more.

use anyhow::{Context, Result, bail};
use relay::source_offset::SourceOffset;
use relay::task::TaskHandle;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use testbed::{PostgresDatabase, eventually, servers, unique_name};

use crate::exactly_once::Stage;
use crate::outbox::{DEADLINE, Outbox, keys, records, running};

const ROLES: &str = include_str!("../../../resources/security/1-roles.sql");
const OUTBOX: &str = include_str!("../../../resources/security/2-outbox.sql");
const MIGRATIONS: [&str; 2] = [
    include_str!("../../../order-service/migrations/0001_create_orders.sql"),
    include_str!("../../../order-service/migrations/0002_create_outbox.sql"),
];

/// SQLSTATE of somebody who may not.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// A database as the two files leave it, with roles of its own.
struct Hardened {
    service: PostgresDatabase,
    relay: PostgresDatabase,
}

impl Hardened {
    async fn new() -> Result<Self> {
        let servers = servers().await?;
        let database = servers.postgres_administrator(&servers.postgres_database().await?);
        let mut admin = PgConnection::connect(&database.url()).await?;
        let role = |role: &str| {
            let (user, password) = (unique_name(role), unique_name("pw"));
            PostgresDatabase { user, password, ..database.clone() }
        };
        let (service, relay) = (role("order_service"), role("outbox_relay"));
        let named = |sql: &str| {
            sql.replace("order_service", &service.user).replace("outbox_relay", &relay.user)
        };
        run(&mut admin, &named(ROLES)).await?;
        for role in [&service, &relay] {
            let password = format!("alter role {} password '{}'", role.user, role.password);
            run(&mut admin, &password).await?;
        }
        let mut owner = PgConnection::connect(&service.url()).await?;
        for migration in MIGRATIONS {
            run(&mut owner, migration).await.context("as order-service")?;
        }
        run(&mut admin, &named(OUTBOX)).await?;
        Ok(Self { service, relay })
    }

    /// Written by the service's role, read by the relay's.
    async fn outbox(&self) -> Result<Outbox> {
        Ok(Outbox::with_tables(self.service.clone())
            .await?
            .with("database.user", &self.relay.user)
            .with("database.password", &self.relay.password)
            .with("publication.name", "dbz_publication")
            .with("publication.autocreate.mode", "disabled"))
    }
}

async fn run(connection: &mut PgConnection, sql: &str) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await?;
    Ok(())
}

async fn refused(database: &PostgresDatabase, sql: &str) -> Result<()> {
    let mut connection = PgConnection::connect(&database.url()).await?;
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await;
    let Err(sqlx::Error::Database(error)) = done else { bail!("not refused: {sql}") };
    assert_eq!(error.code().as_deref(), Some(INSUFFICIENT_PRIVILEGE), "{sql}: {error}");
    Ok(())
}

#[tokio::test]
async fn the_relay_s_role_reads_the_outbox_and_nothing_else() -> Result<()> {
    let hardened = Hardened::new().await?;
    let mut outbox = hardened.outbox().await?;
    outbox
        .execute(
            "insert into inventory.outboxevent values \
             (gen_random_uuid(), 'Order', '1', 'OrderCreated', now(), '{}')",
        )
        .await?;
    let (task, control) = outbox.start(10, true)?;
    outbox.streaming().await?;
    outbox
        .execute(
            "insert into inventory.outboxevent values \
             (gen_random_uuid(), 'Order', '2', 'OrderCreated', now(), '{}')",
        )
        .await?;
    // One from the snapshot, one from the WAL.
    let published = keys(&records(&control, 2).await?);
    assert_eq!(published, ["1", "2"]);
    task.stop().await;

    for sql in [
        "select * from inventory.purchaseorder",
        "select * from inventory.orderline",
        "insert into inventory.outboxevent (id) values (gen_random_uuid())",
        "delete from inventory.outboxevent",
        "create table inventory.mine (id int)",
        "create table public.mine (id int)",
        "create schema mine",
        "create publication mine for table inventory.outboxevent",
        "create role mine",
        "alter system set ssl = off",
        "select pg_read_file('PG_VERSION')",
    ] {
        refused(&hardened.relay, sql).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_s_role_is_enough_for_exactly_once_a_canary_and_a_slot_made_anew() -> Result<()> {
    let hardened = Hardened::new().await?;
    let stage = Stage::on(hardened.outbox().await?).await?;
    let mut stage = stage
        .with("snapshot.mode", "when_needed")
        .with("relay.canary.interval.ms", "20")
        .with("relay.slot.poll.interval.ms", "20");
    let watched = async |task: &TaskHandle| {
        eventually("a look at the slot and a canary", DEADLINE, || async {
            let state = task.health().look();
            Ok((state.slot.is_some() && state.canary.count() > 0).then_some(()))
        })
        .await
    };
    let task = stage.start()?;
    running(&task).await?;
    // As the example's order-service leaves it: the id comes from the service.
    let keep = |ids: &str| {
        format!(
            "insert into inventory.outboxevent \
             select gen_random_uuid(), 'Order', id, 'OrderCreated', now(), '{{}}' \
             from generate_series({ids}) id"
        )
    };
    stage.outbox.execute(&keep("1, 3")).await?;
    stage.until_committed(3).await?;
    stage.outbox.execute("delete from inventory.outboxevent").await?;
    watched(&task).await?;
    task.stop().await;

    // As an operator loses it; the role that owns nothing may do so, too.
    let mut relay = PgConnection::connect(&hardened.relay.url()).await?;
    let drop = format!("select pg_drop_replication_slot('{}')", stage.outbox.slot);
    run(&mut relay, &drop).await?;
    stage.outbox.execute(&keep("4, 5")).await?;
    let stored = SourceOffset::from_json(&stage.position().await?)?;
    let task = stage.outbox.start_to_kafka(&stage.worker, Some(stored))?;
    assert_eq!(stage.until_committed(5).await?, [1, 2, 3, 4, 5]);
    watched(&task).await?;
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_service_s_role_cannot_replicate_and_nobody_else_comes_in() -> Result<()> {
    let hardened = Hardened::new().await?;
    for sql in [
        "select pg_create_logical_replication_slot('mine', 'pgoutput')",
        "select * from pg_logical_slot_get_changes('mine', null, null)",
        "alter role current_user replication",
        "create role mine",
        "alter system set wal_level = minimal",
    ] {
        refused(&hardened.service, sql).await?;
    }
    // Another user of the same server has no business in this database.
    let other = servers().await?.postgres_database().await?;
    let other = PostgresDatabase { name: hardened.service.name.clone(), ..other };
    let Err(sqlx::Error::Database(error)) = PgConnection::connect(&other.url()).await else {
        bail!("let in")
    };
    assert_eq!(error.code().as_deref(), Some(INSUFFICIENT_PRIVILEGE), "{error}");
    Ok(())
}
