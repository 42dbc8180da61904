//! Reads the configuration, once, and checks it before a socket opens. The only file that touches the environment.

mod kafka_security;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use sqlx::mysql::MySqlConnectOptions;

pub(crate) use kafka_security::KafkaSecurity;

const DATABASE_URL: &str = "DATABASE_URL";
const BOOTSTRAP_SERVERS: &str = "BOOTSTRAP_SERVERS";
const ORDER_TOPIC_NAME: &str = "ORDER_TOPIC_NAME";
const GROUP_ID: &str = "GROUP_ID";
const GROUP_SESSION_TIMEOUT_SECONDS: &str = "GROUP_SESSION_TIMEOUT_SECONDS";
const DEAD_LETTER_TOPIC_NAME: &str = "DEAD_LETTER_TOPIC_NAME";
const HTTP_ADDRESS: &str = "HTTP_ADDRESS";
const LOG_FILTER: &str = "RUST_LOG";
const LOG_FORMAT: &str = "LOG_FORMAT";

/// Kafka's own bound on the name of a topic. Characters.
const TOPIC_NAME_LENGTH_MAX: usize = 249;

/// The brokers' default minimum (`group.min.session.timeout.ms`): the successor of an instance that was killed waits so
/// long. Seconds.
const SESSION_TIMEOUT_DEFAULT: u64 = 6;
/// Above this `max.poll.interval.ms` (five minutes) would be the shorter of the two, which librdkafka refuses. Seconds.
const SESSION_TIMEOUT_MAX: u64 = 300;

/// Everything that can be set from outside.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) database: DatabaseUrl,
    pub(crate) bootstrap_servers: String,
    pub(crate) kafka_security: KafkaSecurity,
    pub(crate) order_topic: String,
    pub(crate) group_id: String,
    /// After this time without a sign of life the group gives the partitions to others.
    pub(crate) session_timeout: Duration,
    pub(crate) dead_letter_topic: String,
    pub(crate) http_address: SocketAddr,
    pub(crate) log: LogConfig,
}

/// How the log is written.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// A filter in the syntax of `RUST_LOG`.
    pub(crate) filter: String,
    pub(crate) format: LogFormat,
}

/// The two forms of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Where MySQL is and who we are there. Shows host, port and database only; never the password.
#[derive(Clone)]
pub(crate) struct DatabaseUrl(MySqlConnectOptions);

impl DatabaseUrl {
    pub(crate) fn options(&self) -> MySqlConnectOptions {
        self.0.clone()
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = self.0.get_database().unwrap_or_default();
        write!(formatter, "mysql://***@{}:{}/{database}", self.0.get_host(), self.0.get_port())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A variable that is missing or wrong, with what to do about it. Never holds the value of a secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {problem}")]
pub struct ConfigError {
    variable: &'static str,
    problem: String,
}

impl ConfigError {
    fn new(variable: &'static str, problem: impl Into<String>) -> ConfigError {
        ConfigError { variable, problem: problem.into() }
    }
}

impl Config {
    /// The configuration from the environment of the process.
    ///
    /// # Errors
    /// The first variable that is missing or wrong.
    pub fn from_env() -> Result<Config, ConfigError> {
        // The one place that reads the environment.
        #[allow(clippy::disallowed_methods)]
        Config::from_variables(|name| std::env::var(name).ok())
    }

    /// How the log is written.
    pub fn log(&self) -> &LogConfig {
        &self.log
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
        // Compose files write `NAME: ${NAME:-}` for "not set", so empty means the same.
        let get = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let order_topic = topic(ORDER_TOPIC_NAME, get(ORDER_TOPIC_NAME), "OrderEvents")?;
        let dead_letter_topic = topic(
            DEAD_LETTER_TOPIC_NAME,
            get(DEAD_LETTER_TOPIC_NAME),
            &format!("{order_topic}.dlq"),
        )?;
        if dead_letter_topic == order_topic {
            return Err(ConfigError::new(
                DEAD_LETTER_TOPIC_NAME,
                "is the order topic itself: a poison message would come back for ever; name another topic",
            ));
        }
        Ok(Config {
            database: database(get(DATABASE_URL))?,
            bootstrap_servers: bootstrap_servers(get(BOOTSTRAP_SERVERS))?,
            kafka_security: KafkaSecurity::read(&get)?,
            order_topic,
            group_id: get(GROUP_ID).unwrap_or_else(|| "shipment-service".to_owned()),
            session_timeout: session_timeout(get(GROUP_SESSION_TIMEOUT_SECONDS))?,
            dead_letter_topic,
            http_address: http_address(get(HTTP_ADDRESS))?,
            log: LogConfig {
                filter: get(LOG_FILTER).unwrap_or_else(|| "info".to_owned()),
                format: log_format(get(LOG_FORMAT))?,
            },
        })
    }
}

fn database(value: Option<String>) -> Result<DatabaseUrl, ConfigError> {
    const FORM: &str = "set it to mysql://user:password@host:3306/database";
    let value =
        value.ok_or_else(|| ConfigError::new(DATABASE_URL, format!("is not set; {FORM}")))?;
    // The parser's own message is left out: it may quote the password.
    let options = value
        .starts_with("mysql://")
        .then(|| MySqlConnectOptions::from_str(&value).ok())
        .flatten()
        .ok_or_else(|| ConfigError::new(DATABASE_URL, format!("is not a MySQL URL; {FORM}")))?;
    if options.get_database().is_none_or(str::is_empty) {
        return Err(ConfigError::new(DATABASE_URL, format!("names no database; {FORM}")));
    }
    Ok(DatabaseUrl(options))
}

fn bootstrap_servers(value: Option<String>) -> Result<String, ConfigError> {
    const FORM: &str = "set it to host:port, or several of these with commas between";
    let value =
        value.ok_or_else(|| ConfigError::new(BOOTSTRAP_SERVERS, format!("is not set; {FORM}")))?;
    let is_server = |server: &str| {
        server.trim().rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
        })
    };
    if !value.split(',').all(is_server) {
        return Err(ConfigError::new(BOOTSTRAP_SERVERS, format!("is `{value}`; {FORM}")));
    }
    Ok(value)
}

fn topic(name: &'static str, value: Option<String>, default: &str) -> Result<String, ConfigError> {
    let value = value.unwrap_or_else(|| default.to_owned());
    let legal = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    if value.len() > TOPIC_NAME_LENGTH_MAX
        || !value.chars().all(legal)
        || value == "."
        || value == ".."
    {
        return Err(ConfigError::new(
            name,
            format!(
                "is `{value}`, which is not the name of a topic; use at most {TOPIC_NAME_LENGTH_MAX} letters, digits, `.`, `_` and `-`"
            ),
        ));
    }
    Ok(value)
}

fn session_timeout(value: Option<String>) -> Result<Duration, ConfigError> {
    let Some(value) = value else { return Ok(Duration::from_secs(SESSION_TIMEOUT_DEFAULT)) };
    let seconds = value.parse().ok().filter(|seconds| (1..=SESSION_TIMEOUT_MAX).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| {
        ConfigError::new(
            GROUP_SESSION_TIMEOUT_SECONDS,
            format!("is `{value}`; set it to whole seconds from 1 to {SESSION_TIMEOUT_MAX}"),
        )
    })
}

fn http_address(value: Option<String>) -> Result<SocketAddr, ConfigError> {
    let value = value.unwrap_or_else(|| "0.0.0.0:8081".to_owned());
    value.parse().map_err(|_| {
        ConfigError::new(
            HTTP_ADDRESS,
            format!("is `{value}`; set it to an IP address and port, such as 0.0.0.0:8081"),
        )
    })
}

fn log_format(value: Option<String>) -> Result<LogFormat, ConfigError> {
    match value.as_deref() {
        None | Some("text") => Ok(LogFormat::Text),
        Some("json") => Ok(LogFormat::Json),
        Some(other) => {
            Err(ConfigError::new(LOG_FORMAT, format!("is `{other}`; set it to text or json")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 2] = [
        (DATABASE_URL, "mysql://mysqluser:mysqlpw@shipment-db:3306/inventory"),
        (BOOTSTRAP_SERVERS, "kafka:9092"),
    ];

    fn read(changes: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_variables(|name| {
            let of = |pairs: &[(&str, &str)]| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            };
            of(changes).or_else(|| of(&GOOD))
        })
    }

    #[test]
    fn two_variables_are_enough() {
        let config = read(&[]).unwrap();
        assert_eq!(config.order_topic, "OrderEvents");
        assert_eq!(config.dead_letter_topic, "OrderEvents.dlq");
        assert_eq!(config.group_id, "shipment-service");
        assert_eq!(config.session_timeout, Duration::from_secs(6));
        assert_eq!(config.http_address, "0.0.0.0:8081".parse().unwrap());
        assert_eq!(config.log.format, LogFormat::Text);
        assert_eq!(config.log.filter, "info");
    }

    #[test]
    fn the_dead_letter_topic_follows_the_order_topic_unless_it_is_set() {
        assert_eq!(read(&[(ORDER_TOPIC_NAME, "a.b")]).unwrap().dead_letter_topic, "a.b.dlq");
        assert_eq!(
            read(&[(DEAD_LETTER_TOPIC_NAME, "parked")]).unwrap().dead_letter_topic,
            "parked"
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_what_to_do() {
        for (name, value, expected) in [
            (
                DATABASE_URL,
                " ",
                "DATABASE_URL is not set; set it to mysql://user:password@host:3306/database",
            ),
            (DATABASE_URL, "postgres://a:b@c/d", "DATABASE_URL is not a MySQL URL"),
            (DATABASE_URL, "mysql://a:b@c:port/d", "DATABASE_URL is not a MySQL URL"),
            (DATABASE_URL, "mysql://a:b@c:3306", "DATABASE_URL names no database"),
            (BOOTSTRAP_SERVERS, "", "BOOTSTRAP_SERVERS is not set"),
            (BOOTSTRAP_SERVERS, "kafka", "BOOTSTRAP_SERVERS is `kafka`; set it to host:port"),
            (BOOTSTRAP_SERVERS, "kafka:9092,:1", "BOOTSTRAP_SERVERS is `kafka:9092,:1`"),
            (BOOTSTRAP_SERVERS, "kafka:99999", "BOOTSTRAP_SERVERS is `kafka:99999`"),
            (ORDER_TOPIC_NAME, "Order Events", "ORDER_TOPIC_NAME is `Order Events`, which is not"),
            (
                DEAD_LETTER_TOPIC_NAME,
                "OrderEvents",
                "DEAD_LETTER_TOPIC_NAME is the order topic itself",
            ),
            (HTTP_ADDRESS, "8081", "HTTP_ADDRESS is `8081`; set it to an IP address and port"),
            (GROUP_SESSION_TIMEOUT_SECONDS, "0", "GROUP_SESSION_TIMEOUT_SECONDS is `0`; set it to"),
            (GROUP_SESSION_TIMEOUT_SECONDS, "6s", "GROUP_SESSION_TIMEOUT_SECONDS is `6s`"),
            (LOG_FORMAT, "xml", "LOG_FORMAT is `xml`; set it to text or json"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{name}={value}: {error}");
        }
    }

    #[test]
    fn the_password_is_never_shown() {
        let config = read(&[]).unwrap();
        let shown = format!("{config:?} {}", config.database);
        assert!(!shown.contains("mysqlpw") && !shown.contains("mysqluser"), "{shown}");
        assert!(shown.contains("mysql://***@shipment-db:3306/inventory"), "{shown}");
        for url in
            ["mysql://u:hunter2@host:bad/db", "pg://u:hunter2@host/db", "mysql://u:hunter2@host"]
        {
            let error = read(&[(DATABASE_URL, url)]).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
