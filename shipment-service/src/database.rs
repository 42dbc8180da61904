//! The connections to MySQL, and the wait for it at the start.

use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::mysql::{MySqlConnection, MySqlPoolOptions};
use sqlx::{Connection, Executor, MySqlPool};
use tokio::time::timeout;

use crate::backoff::Backoff;
use crate::config::DatabaseUrl;

/// One for the consumer, one for the health check, the rest for REST.
const CONNECTIONS_MAX: u32 = 8;
/// A server that does not let us in within this time is away.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// A server that does not answer a ping within this time is away. Without it a half-open connection, whose packets go
/// nowhere, would keep its place in the pool until TCP gives up after a quarter of an hour.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// Shorter than the server's own patience below, so that it is always we who close an idle connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Seconds. `wait_timeout`: a transaction whose client vanished without a word is rolled back after this time, so
/// that its locks don't stay for the default of eight hours. `innodb_lock_wait_timeout`: below the timeout of an attempt.
const SESSION: &str = "set session wait_timeout = 30, session innodb_lock_wait_timeout = 2";
/// A migration can wait for another instance that migrates; nobody's tables here take longer.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(60);

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// A pool that connects when it is first used, so that REST and health checks can answer before MySQL does.
pub(crate) fn pool(url: &DatabaseUrl) -> MySqlPool {
    MySqlPoolOptions::new()
        .max_connections(CONNECTIONS_MAX)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(IDLE_TIMEOUT)
        // Both checks are ours, because sqlx's own have no time limit.
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(async move { Ok(answers(connection).await) }))
        .after_release(|connection, _| {
            Box::pin(async move {
                if answers(connection).await { Ok(true) } else { Err(sqlx::Error::WorkerCrashed) }
            })
        })
        .after_connect(|connection, _| {
            Box::pin(async move { connection.execute(SESSION).await.map(|_| ()) })
        })
        .connect_lazy_with(url.options())
}

async fn answers(connection: &mut MySqlConnection) -> bool {
    matches!(timeout(PING_TIMEOUT, connection.ping()).await, Ok(Ok(())))
}

/// Waits until MySQL answers, however long that takes, and creates the tables.
///
/// # Errors
/// A migration that no waiting can repair: the database was made by another version of this service.
pub(crate) async fn prepare(pool: &MySqlPool, url: &DatabaseUrl) -> anyhow::Result<()> {
    let mut backoff = Backoff::new();
    loop {
        let problem = match timeout(MIGRATION_TIMEOUT, migrate(pool)).await {
            Ok(Ok(())) => break,
            Ok(Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _))) => {
                error.to_string()
            }
            Ok(Err(error)) => {
                return Err(anyhow::Error::from(error)
                    .context(format!("the tables at {url} can't be migrated")));
            }
            Err(_) => format!("the migration took longer than {} s", MIGRATION_TIMEOUT.as_secs()),
        };
        if backoff.attempt() == 0 {
            tracing::info!(db.url = %url, error = problem, "Waiting for MySQL");
        } else {
            tracing::debug!(db.url = %url, error = problem, "MySQL is still not there");
        }
        tokio::time::sleep(backoff.next()).await;
    }
    tracing::info!(db.url = %url, "MySQL is there, and the tables are up to date");
    Ok(())
}

/// Runs the migrations, on a connection of their own: when it is closed, sqlx's lock against other instances that
/// migrate goes with it, whatever happened.
///
/// MySQL commits each DDL statement by itself, so a kill in the middle leaves a migration marked as begun. Each of
/// ours can be run again; so the mark is taken away, still under the lock, and that is what happens.
async fn migrate(pool: &MySqlPool) -> Result<(), MigrateError> {
    let mut connection = pool.acquire().await?;
    connection.close_on_drop();
    match MIGRATIONS.run(&mut *connection).await {
        Err(MigrateError::Dirty(version)) => {
            tracing::info!(migration.version = version, "Running an interrupted migration again");
            sqlx::query("delete from _sqlx_migrations where version = ? and success = false")
                .bind(version)
                .execute(&mut *connection)
                .await?;
            MIGRATIONS.run(&mut *connection).await
        }
        other => other,
    }
}
