//! The database: its pool of connections, waiting for it at start, and the migrations.

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};
use tracing::{info, warn};

use crate::config::Config;
use crate::failure::is_unavailable;

/// How long a request waits for a free connection. Longer would only move the queue from the client to us.
const ACQUIRE_DURATION_MAX: Duration = Duration::from_secs(3);

/// A connection that does not answer a ping within this time leads nowhere. Without this bound it would keep its place in
/// the pool until TCP gives up, after a quarter of an hour: ten requests that were under way when the network or the
/// server froze would shut everybody else out, long after the database is back.
const PING_DURATION_MAX: Duration = Duration::from_secs(2);

/// The server ends a statement after this time: ours take milliseconds.
const STATEMENT_DURATION_MAX: &str = "5s";

/// How long a line change waits for another change of the same order.
const LOCK_DURATION_MAX: &str = "3s";

/// The server ends a transaction that waits for us for so long, in case we vanished without closing the connection: its
/// lock on an order must not outlive us for hours.
const IDLE_IN_TRANSACTION_DURATION_MAX: &str = "15s";

/// One attempt to connect at start.
const CONNECT_DURATION_MAX: Duration = Duration::from_secs(5);

/// The migrations, the wait for another instance that is migrating included.
const MIGRATE_DURATION_MAX: Duration = Duration::from_secs(300);

/// First pause between two attempts at start; it doubles up to the second.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(100);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);

/// What readiness may take.
const CHECK_DURATION_MAX: Duration = Duration::from_secs(2);

/// Shown in `pg_stat_activity`.
const APPLICATION_NAME: &str = "order-service";

/// A pool that connects when it is first used, so that it can exist before the database does.
pub(crate) fn pool(config: &Config) -> PgPool {
    let options = config.database.options().clone().application_name(APPLICATION_NAME).options([
        ("statement_timeout", STATEMENT_DURATION_MAX),
        ("lock_timeout", LOCK_DURATION_MAX),
        ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_DURATION_MAX),
    ]);
    PgPoolOptions::new()
        .max_connections(config.pool_size)
        .acquire_timeout(ACQUIRE_DURATION_MAX)
        // Both checks are ours, because sqlx's own have no time limit.
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(ping(connection)))
        .after_release(|connection, _| Box::pin(ping(connection)))
        .connect_lazy_with(options)
}

/// An error makes the pool drop the connection as it is, without a word to a server that may not be there.
async fn ping(connection: &mut PgConnection) -> sqlx::Result<bool> {
    match tokio::time::timeout(PING_DURATION_MAX, connection.ping()).await {
        Ok(answer) => answer.map(|()| true),
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

/// Waits for the database as long as it takes, and brings its schema up to date. An error means that waiting does not
/// help: someone has to look.
pub(crate) async fn prepare(config: &Config) -> anyhow::Result<()> {
    let options = config.database.options().clone().application_name(APPLICATION_NAME);
    let mut delay = RETRY_DELAY_MIN;
    let mut last_reason = String::new();
    loop {
        match migrate(&options).await {
            Ok(()) => {
                info!(
                    db.host = options.get_host(),
                    db.port = options.get_port(),
                    "the database is ready and its schema up to date"
                );
                return Ok(());
            }
            Err(Trouble::Waiting(reason)) => {
                // Each reason once, not each attempt.
                if reason != last_reason {
                    warn!(
                        db.host = options.get_host(),
                        db.port = options.get_port(),
                        error = reason,
                        "waiting for the database"
                    );
                    last_reason = reason;
                }
            }
            Err(Trouble::Final(error)) => return Err(error),
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY_DELAY_MAX);
    }
}

/// Whether the database answers, within a bound.
pub(crate) async fn answers(pool: &PgPool) -> bool {
    let check = sqlx::query("select 1").execute(pool);
    matches!(tokio::time::timeout(CHECK_DURATION_MAX, check).await, Ok(Ok(_)))
}

enum Trouble {
    Waiting(String),
    Final(anyhow::Error),
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        if is_unavailable(&error) {
            Trouble::Waiting(error.to_string())
        } else {
            Trouble::Final(
                anyhow::Error::new(error).context("cannot use the database; check DATABASE_URL"),
            )
        }
    }
}

async fn migrate(options: &PgConnectOptions) -> Result<(), Trouble> {
    // First a connection alone: its error says why there is none, where a pool's says that it took too long.
    let connection =
        tokio::time::timeout(CONNECT_DURATION_MAX, PgConnection::connect_with(options))
            .await
            .map_err(|_| Trouble::Waiting("no answer to the attempt to connect".to_owned()))??;
    // It has served; how its end goes does not matter.
    let _ = connection.close().await;
    // A pool for this alone, closed afterwards: a failed run leaves the migrations' advisory lock with its session.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(CONNECT_DURATION_MAX)
        .connect_lazy_with(options.clone());
    let mut migrations: Migrator = sqlx::migrate!();
    // An instance of an older version may start after a newer one has migrated: what it does not know is not its business.
    migrations.set_ignore_missing(true);
    let migrated = tokio::time::timeout(MIGRATE_DURATION_MAX, migrations.run(&pool)).await;
    pool.close().await;
    match migrated {
        Ok(Ok(())) => Ok(()),
        Err(_) => Err(Trouble::Waiting("another instance is still migrating".to_owned())),
        Ok(Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)))
            if is_unavailable(&error) =>
        {
            Err(Trouble::Waiting(error.to_string()))
        }
        Ok(Err(error)) => Err(Trouble::Final(anyhow::Error::new(error).context(
            "cannot bring the schema up to date; compare the table _sqlx_migrations with the folder migrations",
        ))),
    }
}
