//! The one set of servers that all test binaries of a cargo run share.

use anyhow::{Context as _, Result};
use tokio::sync::OnceCell;

use crate::database::{MySqlDatabase, PostgresDatabase};
use crate::name::unique_name;
use crate::program::{self, SUPERVISOR};
use crate::server;
use crate::supervisor::{self, Membership};

static SERVERS: OnceCell<Servers> = OnceCell::const_new();

/// The shared PostgreSQL, MySQL-compatible and Kafka servers. Keep apart by database, topic, group and slot names.
pub struct Servers {
    membership: Membership,
}

/// Joins the shared servers; the first caller starts them. They stay until this process and the `cargo` that runs it
/// have ended.
///
/// # Errors
/// When they cannot be fetched or started; the error says why and names the log file.
pub async fn servers() -> Result<&'static Servers> {
    SERVERS
        .get_or_try_init(|| async {
            let join = || {
                let cargo = supervisor::cargo_above();
                supervisor::join(&program::state_folder()?, cargo, || program::program(SUPERVISOR))
            };
            let membership =
                tokio::task::spawn_blocking(join).await.context("join the servers")??;
            Ok(Servers { membership })
        })
        .await
}

impl Servers {
    /// A fresh, empty database with a name of its own, owned by a user of its own who may also replicate.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn postgres_database(&self) -> Result<PostgresDatabase> {
        let name = unique_name("db");
        let admin = self.membership.addresses.postgres.postgres();
        server::create_postgres_database(&admin, &name, &name, &unique_name("pw")).await
    }

    /// The same database as the server's superuser sees it, for what its owner may not do: roles are everybody's, so
    /// give one a name of its own.
    #[must_use]
    pub fn postgres_administrator(&self, database: &PostgresDatabase) -> PostgresDatabase {
        let admin = self.membership.addresses.postgres.postgres();
        PostgresDatabase { name: database.name.clone(), ..admin }
    }

    /// A fresh, empty schema with a name of its own and a user who has only that.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn mysql_database(&self) -> Result<MySqlDatabase> {
        let name = unique_name("db");
        let admin = self.membership.addresses.mysql.mysql();
        server::create_mysql_database(&admin, &name, &name, &unique_name("pw")).await
    }

    /// `127.0.0.1:port` of Kafka; topics are created when first used.
    #[must_use]
    pub fn bootstrap_servers(&self) -> &str {
        &self.membership.addresses.bootstrap_servers
    }
}
