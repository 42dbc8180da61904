//! Configuration: read once from the environment, checked before a socket opens.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;
use thiserror::Error;

use crate::outbox::Retention;

const DATABASE_URL: &str = "DATABASE_URL";
const DATABASE_POOL_SIZE: &str = "DATABASE_POOL_SIZE";
const HTTP_ADDRESS: &str = "HTTP_ADDRESS";
const OUTBOX_KEEP_ROWS: &str = "OUTBOX_KEEP_ROWS";
const LOG_FORMAT: &str = "LOG_FORMAT";
const RUST_LOG: &str = "RUST_LOG";

const HTTP_ADDRESS_DEFAULT: &str = "0.0.0.0:8080";

/// Connections to the database. A request holds one for a few milliseconds, so a few serve many clients, and PostgreSQL's
/// default of 100 leaves room for several instances.
const POOL_SIZE_DEFAULT: u32 = 10;
const POOL_SIZE_MAX: u32 = 200;

/// sqlx logs its own retries and notices; ours say what matters.
const LOG_FILTER_DEFAULT: &str = "info,sqlx=warn";

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    pub database: Database,
    /// Connections in the pool.
    pub pool_size: u32,
    /// Where to listen; port 0 takes a free one.
    pub http_address: SocketAddr,
    pub retention: Retention,
    pub log_format: LogFormat,
    /// In `tracing_subscriber`'s `EnvFilter` syntax.
    pub log_filter: String,
}

/// How to reach the database. Its debug form names the server and hides the password.
#[derive(Clone)]
pub struct Database(PgConnectOptions);

/// Lines for people or JSON for machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// A setting that cannot be used. Says what to do, and never shows a value that may hold a password.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{variable} {advice}")]
pub struct ConfigError {
    variable: &'static str,
    advice: String,
}

impl Config {
    /// Reads the process's environment.
    pub fn from_environment() -> Result<Config, ConfigError> {
        // The one place that may read the environment.
        #[allow(clippy::disallowed_methods)]
        Config::from_lookup(|name| std::env::var(name).ok())
    }

    /// Reads settings by name. An empty value counts as not set, as compose files write it.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
        let value = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let text = |name: &str, default: &str| value(name).unwrap_or_else(|| default.to_owned());
        let url = value(DATABASE_URL).ok_or_else(|| {
            refuse(
                DATABASE_URL,
                "is not set; set it to postgres://user:password@host:5432/database",
            )
        })?;
        let pool_size = match value(DATABASE_POOL_SIZE) {
            None => POOL_SIZE_DEFAULT,
            Some(size) => {
                size.parse().ok().filter(|size| (1..=POOL_SIZE_MAX).contains(size)).ok_or_else(
                    || {
                        refuse(
                            DATABASE_POOL_SIZE,
                            format!("must be a number from 1 to {POOL_SIZE_MAX}, not `{size}`"),
                        )
                    },
                )?
            }
        };
        let address = text(HTTP_ADDRESS, HTTP_ADDRESS_DEFAULT);
        let http_address = address.parse().map_err(|_| {
            refuse(
                HTTP_ADDRESS,
                format!(
                    "must be an address and a port such as {HTTP_ADDRESS_DEFAULT}, not `{address}`"
                ),
            )
        })?;
        let retention = match text(OUTBOX_KEEP_ROWS, "false").as_str() {
            "false" => Retention::Delete,
            "true" => Retention::Keep,
            other => {
                return Err(refuse(
                    OUTBOX_KEEP_ROWS,
                    format!("must be true or false, not `{other}`"),
                ));
            }
        };
        let log_format = match text(LOG_FORMAT, "text").as_str() {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            other => {
                return Err(refuse(LOG_FORMAT, format!("must be text or json, not `{other}`")));
            }
        };
        let log_filter = text(RUST_LOG, LOG_FILTER_DEFAULT);
        tracing_subscriber::EnvFilter::from_str(&log_filter).map_err(|error| {
            refuse(RUST_LOG, format!("must be a filter such as {LOG_FILTER_DEFAULT}: {error}"))
        })?;
        Ok(Config {
            database: Database::from_url(&url)?,
            pool_size,
            http_address,
            retention,
            log_format,
            log_filter,
        })
    }
}

impl Database {
    /// Understands `postgres://user:password@host:port/database?sslmode=...`.
    pub fn from_url(url: &str) -> Result<Database, ConfigError> {
        // The parser takes any scheme; a MySQL URL here is a mistake that should show at once.
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(refuse(DATABASE_URL, "must begin with postgres://"));
        }
        PgConnectOptions::from_str(url).map(Database).map_err(|_| {
            // The parser's message may quote the URL, password and all.
            refuse(DATABASE_URL, "must look like postgres://user:password@host:5432/database (percent-encode special characters in the password)")
        })
    }

    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.0
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Database")
            .field("host", &self.0.get_host())
            .field("port", &self.0.get_port())
            .field("name", &self.0.get_database())
            .field("user", &self.0.get_username())
            .field("password", &"***")
            .finish()
    }
}

fn refuse(variable: &'static str, advice: impl Into<String>) -> ConfigError {
    ConfigError { variable, advice: advice.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "postgres://postgresuser:postgrespw@order-db:5432/orderdb";

    fn read(settings: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_lookup(|name| {
            settings.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn check_refused(settings: &[(&str, &str)], variable: &str) {
        let message = read(settings).unwrap_err().to_string();
        assert!(message.starts_with(variable), "{message}");
        assert!(!message.contains("postgrespw"), "{message}");
    }

    #[test]
    fn the_database_is_all_that_must_be_set() {
        let config = read(&[(DATABASE_URL, URL), (OUTBOX_KEEP_ROWS, "")]).unwrap();
        assert_eq!(config.http_address.to_string(), HTTP_ADDRESS_DEFAULT);
        assert_eq!(config.retention, Retention::Delete);
        assert_eq!(config.log_format, LogFormat::Text);
        assert_eq!(config.pool_size, POOL_SIZE_DEFAULT);
    }

    #[test]
    fn a_bad_setting_is_refused_by_name() {
        check_refused(&[], DATABASE_URL);
        check_refused(&[(DATABASE_URL, "mysql://u:postgrespw@h/d")], DATABASE_URL);
        check_refused(&[(DATABASE_URL, "postgres://u:postgrespw@h:port/d")], DATABASE_URL);
        for (name, value) in [
            (HTTP_ADDRESS, "8080"),
            (OUTBOX_KEEP_ROWS, "maybe"),
            (LOG_FORMAT, "xml"),
            (RUST_LOG, "a=b=c"),
            (DATABASE_POOL_SIZE, "0"),
            (DATABASE_POOL_SIZE, "many"),
        ] {
            check_refused(&[(DATABASE_URL, URL), (name, value)], name);
        }
    }

    #[test]
    fn the_password_is_never_shown() {
        let shown = format!("{:?}", read(&[(DATABASE_URL, URL)]).unwrap());
        assert!(shown.contains("order-db") && shown.contains("***"), "{shown}");
        assert!(!shown.contains("postgrespw"), "{shown}");
    }
}
