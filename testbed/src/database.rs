//! Addresses and credentials of a database that a test or the demo uses.

use sqlx::AssertSqlSafe;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;

/// A PostgreSQL database, owned by a user that may also replicate.
#[derive(Clone)]
pub struct PostgresDatabase {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    pub name: String,
}

impl PostgresDatabase {
    /// `postgres://user:password@host:port/name`
    #[must_use]
    pub fn url(&self) -> String {
        let Self { host, port, user, password, name } = self;
        format!("postgres://{user}:{password}@{host}:{port}/{name}")
    }
}

/// A MySQL schema and the user that has only that.
#[derive(Clone)]
pub struct MySqlDatabase {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    pub name: String,
}

impl MySqlDatabase {
    /// `mysql://user:password@host:port/name`
    #[must_use]
    pub fn url(&self) -> String {
        let Self { host, port, user, password, name } = self;
        format!("mysql://{user}:{password}@{host}:{port}/{name}")
    }
}

pub(crate) fn postgres_options(database: &PostgresDatabase) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host(&database.host)
        .port(database.port)
        .username(&database.user)
        .password(&database.password)
        .database(&database.name)
}

pub(crate) fn mysql_options(database: &MySqlDatabase) -> MySqlConnectOptions {
    MySqlConnectOptions::new()
        .host(&database.host)
        .port(database.port)
        .username(&database.user)
        .password(&database.password)
        .database(&database.name)
}

/// SQL with names in it, which cannot be parameters. The names are our own, never a stranger's.
pub(crate) fn statement(sql: String) -> AssertSqlSafe<String> {
    AssertSqlSafe(sql)
}
