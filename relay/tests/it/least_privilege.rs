//! The roles of `resources/security/`: the relay and order-service do with them what they have to, and no more.

use anyhow::{Context, Result, bail};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use testbed::{PostgresDatabase, servers, unique_name};

use crate::outbox::{Outbox, keys, records};

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
    let mut outbox = Outbox::with_tables(hardened.service.clone())
        .await?
        .with("database.user", &hardened.relay.user)
        .with("database.password", &hardened.relay.password)
        .with("publication.name", "dbz_publication")
        .with("publication.autocreate.mode", "disabled");
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
