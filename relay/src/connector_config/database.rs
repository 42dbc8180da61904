//! `database.*`: where the outbox is and how to log in.

use super::database_tls::DatabaseTls;
use super::options::Options;
use crate::config::WorkerConfig;
use crate::secret::Secret;

/// PostgreSQL's port where none is given.
const PORT_DEFAULT: u64 = 5432;

/// A database and the credentials for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseConfig {
    /// `database.hostname`.
    pub host: String,
    /// `database.port`.
    pub port: u16,
    /// `database.user`: needs the attribute REPLICATION and may read the outbox table.
    pub user: String,
    /// `database.password`.
    pub password: Secret,
    /// `database.dbname`.
    pub name: String,
    /// `database.ssl*`.
    pub tls: DatabaseTls,
    /// `database.initial.statements`: run on each connection that reads tables or the catalogue, not on the stream's.
    pub initial_statements: Vec<String>,
    /// Another address to dial for this one, from the worker's `RELAY_CONNECT_TO`.
    pub dial_instead: Option<String>,
}

impl DatabaseConfig {
    /// `host:port` to open a connection to.
    #[must_use]
    pub fn dial_address(&self) -> String {
        let address = || format!("{}:{}", self.host, self.port);
        self.dial_instead.clone().unwrap_or_else(address)
    }
}

pub(super) fn read(options: &mut Options<'_>, worker: &WorkerConfig) -> DatabaseConfig {
    let host = options.required(&["database.hostname"], "the host name of PostgreSQL");
    let port = options.number("database.port", PORT_DEFAULT, 1..=u64::from(u16::MAX));
    let port = u16::try_from(port).unwrap_or_default();
    let user = options.required(&["database.user"], "a role with the attribute REPLICATION");
    let password = Secret::new(options.text("database.password").unwrap_or_default());
    let name = options.required(&["database.dbname"], "the database that holds the outbox table");
    let initial_statements = options.text("database.initial.statements").unwrap_or_default();
    let initial_statements = statements(&initial_statements);
    let tls = super::database_tls::read(options);
    let dial_instead = worker.connect_to.get(&format!("{host}:{port}")).cloned();
    DatabaseConfig { host, port, user, password, name, tls, initial_statements, dial_instead }
}

/// Statements are separated by semicolons; two of them stand for one within a statement.
fn statements(text: &str) -> Vec<String> {
    let mut statements = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if char == ';' && chars.next_if_eq(&';').is_none() {
            statements.push(String::new());
        } else if let Some(statement) = statements.last_mut() {
            statement.push(char);
        }
    }
    let trimmed = statements.iter().map(|statement| statement.trim().to_owned());
    trimmed.filter(|statement| !statement.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_semicolons_stand_for_one() {
        assert_eq!(statements("set a = 1; select ';;' ;"), ["set a = 1", "select ';'"]);
        assert!(statements(" ; ").is_empty());
    }
}
