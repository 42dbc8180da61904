//! The worker's configuration, read once from the environment; nothing else in this crate looks at the environment.
//!
//! The variables are those of Debezium's Connect image: a few short names (`BOOTSTRAP_SERVERS`, `GROUP_ID`, ...) and
//! `CONNECT_*`, where `CONNECT_KEY_CONVERTER_SCHEMAS_ENABLE` is the worker property `key.converter.schemas.enable`.

mod kafka;
mod rest;
mod storage;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::kafka_client;

pub use rest::{ClientAuthentication, CrossOrigin, Pem, RestConfig, RestTls};
pub use storage::StorageTopic;

/// Names of environment variables that are not `CONNECT_*`.
pub mod variable {
    /// Comma-separated list of connector JSON files, registered at start when absent.
    pub const CONNECTORS: &str = "CONNECTORS";
    /// `host:port=host:port,...`: dial another address than the one a connector's configuration names.
    pub const RELAY_CONNECT_TO: &str = "RELAY_CONNECT_TO";
    /// File of users who may call the REST API, a line `user=password` for each.
    pub const RELAY_REST_USERS_FILE: &str = "RELAY_REST_USERS_FILE";
    /// File of bearer tokens that may call the REST API, one a line.
    pub const RELAY_REST_TOKENS_FILE: &str = "RELAY_REST_TOKENS_FILE";
    /// `true`: the REST API shows passwords in clear text, as Kafka Connect does.
    pub const RELAY_SHOW_PASSWORDS: &str = "RELAY_SHOW_PASSWORDS";
    /// What is logged, in the form of `tracing_subscriber`'s filter.
    pub const RUST_LOG: &str = "RUST_LOG";
    /// `text` or `json`.
    pub const LOG_FORMAT: &str = "LOG_FORMAT";
    /// Set by Docker and shells; the last resort for the name the worker goes by.
    pub const HOSTNAME: &str = "HOSTNAME";
    /// What every worker property given as a variable begins with.
    pub const WORKER_PREFIX: &str = "CONNECT_";
}

/// The image's short variables and the worker properties they stand for; a short one wins over its `CONNECT_*` twin.
const SHORT_VARIABLES: [(&str, &str); 15] = [
    ("BOOTSTRAP_SERVERS", "bootstrap.servers"),
    ("GROUP_ID", "group.id"),
    ("CONFIG_STORAGE_TOPIC", "config.storage.topic"),
    ("OFFSET_STORAGE_TOPIC", "offset.storage.topic"),
    ("STATUS_STORAGE_TOPIC", "status.storage.topic"),
    ("KEY_CONVERTER", "key.converter"),
    ("VALUE_CONVERTER", "value.converter"),
    ("HEADER_CONVERTER", "header.converter"),
    ("OFFSET_FLUSH_INTERVAL_MS", "offset.flush.interval.ms"),
    ("OFFSET_FLUSH_TIMEOUT_MS", "offset.flush.timeout.ms"),
    ("SHUTDOWN_TIMEOUT", "task.shutdown.graceful.timeout.ms"),
    ("REST_HOST_NAME", "rest.host.name"),
    ("REST_PORT", "rest.port"),
    ("ADVERTISED_HOST_NAME", "rest.advertised.host.name"),
    ("ADVERTISED_PORT", "rest.advertised.port"),
];

/// The REST port of Kafka Connect.
const REST_PORT: u16 = 8083;
/// Kafka Connect stores offsets once a minute. PostgreSQL forgets what was acknowledged since its last checkpoint when it is
/// killed; then the stored offset alone says what need not be published again, and a small record a second is cheap.
const OFFSET_FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// Kafka Connect's default of the image.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
const JSON_CONVERTER: &str = "org.apache.kafka.connect.json.JsonConverter";

/// A setting that cannot be taken: names the variable and says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {problem}")]
pub struct ConfigError {
    /// The variable at fault, as the user wrote it.
    pub variable: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// A host and a port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The environment as it was at the start, for `${env:NAME}` references. Printed as `***`.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Worker properties by their Connect names, secrets among them. Debug shows the names alone.
#[derive(Clone, Default)]
pub struct WorkerProperties(BTreeMap<String, String>);

impl WorkerProperties {
    /// The value of a property, if it was given.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All properties that begin with `prefix`, which is cut off: `key.converter.` gives `schemas.enable`.
    #[must_use]
    pub fn with_prefix(&self, prefix: &str) -> BTreeMap<String, String> {
        cut_prefix(&self.0, prefix)
    }

    /// All properties in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for WorkerProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.keys().map(|name| (name, "***"))).finish()
    }
}

impl FromIterator<(String, String)> for WorkerProperties {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

/// Settings of the worker process. Debug shows who the worker is, and no option: many may hold secrets.
#[derive(Clone, Default)]
pub struct WorkerConfig {
    /// Kafka's bootstrap servers, `host:port,...`.
    pub bootstrap_servers: String,
    /// The name of the Connect cluster.
    pub group_id: String,
    /// Connector configurations and target states; one partition.
    pub config_topic: StorageTopic,
    /// Source offsets.
    pub offset_topic: StorageTopic,
    /// States of connectors and tasks, topics in use.
    pub status_topic: StorageTopic,
    /// Where the REST API listens.
    pub listen: HostPort,
    /// How the worker is named in statuses (`worker_id`).
    pub advertised: HostPort,
    /// How often source offsets are stored at most.
    pub offset_flush_interval: Duration,
    /// How long tasks have to drain and stop.
    pub shutdown_timeout: Duration,
    /// Connector files to register at start when absent.
    pub connector_files: Vec<PathBuf>,
    /// Addresses to dial instead of the configured ones, `host:port` -> `host:port`, like curl's `--connect-to`.
    pub connect_to: BTreeMap<String, String>,
    /// Worker-level converter options with their full names: `key.converter`, `value.converter.schemas.enable`, ...
    pub converters: BTreeMap<String, String>,
    /// How the clients of the storage topics reach Kafka, in librdkafka's terms.
    pub kafka_client: kafka_client::Properties,
    /// Worker-level producer options, by the names of Kafka's Java client: how the worker itself reaches Kafka, and
    /// `CONNECT_PRODUCER_*` over it.
    pub producer: kafka_client::Properties,
    /// Who may call the REST API, and how.
    pub rest: RestConfig,
    /// Whether the REST API shows passwords in clear text.
    pub show_passwords: bool,
    /// All worker properties by their Connect names, for settings that have no field of their own.
    pub properties: WorkerProperties,
    /// The environment at the start, for `${env:NAME}`.
    pub environment: Environment,
    /// The log filter; `None`: `info`.
    pub log_filter: Option<String>,
    /// The form of log lines.
    pub log_format: LogFormat,
}

impl fmt::Debug for WorkerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerConfig")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("group_id", &self.group_id)
            .field("listen", &self.listen)
            .field("advertised", &self.advertised)
            .field("properties", &self.properties)
            .finish_non_exhaustive()
    }
}

impl WorkerConfig {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// The first variable that cannot be taken.
    pub fn from_environment() -> Result<Self, ConfigError> {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::from_variables(std::env::vars_os().filter_map(text))
    }

    /// Reads the settings from variables; the pure part of [`WorkerConfig::from_environment`].
    ///
    /// # Errors
    /// The first variable that cannot be taken.
    pub fn from_variables(
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let environment: BTreeMap<String, String> = variables.into_iter().collect();
        let reader = Reader { properties: worker_properties(&environment), environment };
        reader.read()
    }
}

/// Variables and the worker properties made of them, while they are read.
struct Reader {
    environment: BTreeMap<String, String>,
    properties: BTreeMap<String, String>,
}

impl Reader {
    fn read(self) -> Result<WorkerConfig, ConfigError> {
        let listen = self.listen()?;
        Ok(WorkerConfig {
            bootstrap_servers: self.bootstrap_servers()?,
            group_id: self.text("group.id").unwrap_or("1").to_owned(),
            config_topic: self.config_topic()?,
            offset_topic: self.offset_topic()?,
            status_topic: self.status_topic()?,
            advertised: self.advertised(&listen)?,
            listen,
            offset_flush_interval: self
                .milliseconds("offset.flush.interval.ms")?
                .unwrap_or(OFFSET_FLUSH_INTERVAL),
            shutdown_timeout: self
                .milliseconds("task.shutdown.graceful.timeout.ms")?
                .unwrap_or(SHUTDOWN_TIMEOUT),
            connector_files: self
                .variable(variable::CONNECTORS)
                .map(|list| split_list(list).map(PathBuf::from).collect())
                .unwrap_or_default(),
            connect_to: self.connect_to()?,
            show_passwords: self.show_passwords()?,
            log_filter: self.variable(variable::RUST_LOG).map(str::to_owned),
            log_format: self.log_format()?,
            converters: self.converters(),
            kafka_client: self.kafka_client()?,
            producer: self.producer()?,
            rest: self.rest()?,
            properties: WorkerProperties(self.properties),
            environment: Environment(self.environment),
        })
    }

    fn bootstrap_servers(&self) -> Result<String, ConfigError> {
        let servers = self.text("bootstrap.servers").ok_or_else(|| {
            error("BOOTSTRAP_SERVERS", "not set; give Kafka's addresses, for example kafka:9092")
        })?;
        for server in split_list(servers) {
            host_port(server)
                .map_err(|problem| error("BOOTSTRAP_SERVERS", format!("{server}: {problem}")))?;
        }
        Ok(servers.to_owned())
    }

    /// `listeners` wins over `rest.host.name` and `rest.port`, which Kafka Connect 2 had.
    fn listen(&self) -> Result<HostPort, ConfigError> {
        if let Some((_, address)) = self.listener()? {
            let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
            let port = port.trim_end_matches('/').parse().map_err(|_| {
                error("CONNECT_LISTENERS", format!("{address}: no port; write http://0.0.0.0:8083"))
            })?;
            return Ok(HostPort { host: any_address(host), port });
        }
        let port = self.number("rest.port")?.unwrap_or(REST_PORT);
        Ok(HostPort { host: any_address(self.text("rest.host.name").unwrap_or_default()), port })
    }

    fn advertised(&self, listen: &HostPort) -> Result<HostPort, ConfigError> {
        let named = self.text("rest.advertised.host.name");
        let bound = (listen.host != ANY_ADDRESS).then_some(listen.host.as_str());
        let host = named.or(bound).or_else(|| self.variable(variable::HOSTNAME));
        Ok(HostPort {
            host: host.unwrap_or("127.0.0.1").to_owned(),
            port: self.number("rest.advertised.port")?.unwrap_or(listen.port),
        })
    }

    fn connect_to(&self) -> Result<BTreeMap<String, String>, ConfigError> {
        let wrong = |entry: &str| {
            error(
                variable::RELAY_CONNECT_TO,
                format!(
                    "{entry}: write host:port=host:port, for example order-db:5432=127.0.0.1:15432"
                ),
            )
        };
        let parse = |entry: &str| {
            let (from, to) = entry.split_once('=').ok_or_else(|| wrong(entry))?;
            let read = |text| host_port(text).map_err(|_| wrong(entry));
            Ok((read(from)?.to_string(), read(to)?.to_string()))
        };
        let list = self.variable(variable::RELAY_CONNECT_TO).unwrap_or_default();
        split_list(list).map(parse).collect()
    }

    fn converters(&self) -> BTreeMap<String, String> {
        let of_converter = |name: &str| {
            ["key.", "value.", "header."].iter().any(|kind| {
                name.strip_prefix(kind).is_some_and(|rest| rest.starts_with("converter"))
            })
        };
        let all = self.properties.iter().filter(|(name, _)| of_converter(name));
        all.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    fn show_passwords(&self) -> Result<bool, ConfigError> {
        match self.variable(variable::RELAY_SHOW_PASSWORDS) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(error(variable::RELAY_SHOW_PASSWORDS, "write true or false")),
        }
    }

    fn log_format(&self) -> Result<LogFormat, ConfigError> {
        match self.variable(variable::LOG_FORMAT) {
            None | Some("text") => Ok(LogFormat::Text),
            Some("json") => Ok(LogFormat::Json),
            Some(other) => Err(error(variable::LOG_FORMAT, format!("{other}: write text or json"))),
        }
    }

    fn milliseconds(&self, property: &str) -> Result<Option<Duration>, ConfigError> {
        Ok(self.number(property)?.map(Duration::from_millis))
    }

    fn number<N: std::str::FromStr>(&self, property: &str) -> Result<Option<N>, ConfigError> {
        let read = |text: &str| {
            let wrong =
                |_| error(&variable_of(property), format!("{text}: a whole number is needed"));
            text.trim().parse().map_err(wrong)
        };
        self.text(property).map(read).transpose()
    }

    fn text(&self, property: &str) -> Option<&str> {
        self.properties.get(property).map(String::as_str).filter(|text| !text.trim().is_empty())
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|text| !text.trim().is_empty())
    }
}

/// All interfaces, IPv4.
const ANY_ADDRESS: &str = "0.0.0.0";

fn any_address(host: &str) -> String {
    if host.is_empty() { ANY_ADDRESS.to_owned() } else { host.to_owned() }
}

/// `CONNECT_A_B` -> `a.b`, then the short names over them, then the image's default converters.
fn worker_properties(environment: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let named = |(name, value): (&String, &String)| {
        let rest = name.strip_prefix(variable::WORKER_PREFIX)?;
        Some((rest.to_lowercase().replace('_', "."), value.clone()))
    };
    let mut properties: BTreeMap<_, _> = environment.iter().filter_map(named).collect();
    for (short, property) in SHORT_VARIABLES {
        if let Some(value) = environment.get(short).filter(|value| !value.trim().is_empty()) {
            properties.insert(property.to_owned(), value.clone());
        }
    }
    for converter in ["key.converter", "value.converter"] {
        properties.entry(converter.to_owned()).or_insert_with(|| JSON_CONVERTER.to_owned());
    }
    properties
}

fn cut_prefix(all: &BTreeMap<String, String>, prefix: &str) -> BTreeMap<String, String> {
    let cut = |(name, value): (&String, &String)| {
        name.strip_prefix(prefix).map(|rest| (rest.to_owned(), value.clone()))
    };
    all.iter().filter_map(cut).collect()
}

/// The variable that a user most likely set for a property.
fn variable_of(property: &str) -> String {
    let short = SHORT_VARIABLES.iter().find(|(_, name)| *name == property);
    match short {
        Some((variable, _)) => (*variable).to_owned(),
        None => {
            format!("{}{}", variable::WORKER_PREFIX, property.to_uppercase().replace('.', "_"))
        }
    }
}

fn split_list(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

/// `host:port`, with an optional `PLAINTEXT://` before it, as Kafka writes its listeners.
fn host_port(text: &str) -> Result<HostPort, &'static str> {
    let address = text.rsplit_once("://").map_or(text, |(_, address)| address).trim();
    let (host, port) = address.rsplit_once(':').ok_or("no port; write host:port")?;
    let port = port.parse().map_err(|_| "the port is not a number between 0 and 65535")?;
    if host.is_empty() {
        return Err("no host; write host:port");
    }
    Ok(HostPort { host: host.to_owned(), port })
}

fn error(variable: &str, problem: impl Into<String>) -> ConfigError {
    ConfigError { variable: variable.to_owned(), problem: problem.into() }
}

#[cfg(test)]
mod tests;
