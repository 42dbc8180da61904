//! Where it is measured: servers of our own with durable settings, and our programs on free ports.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};

use super::load;
use super::machine::load_average;
use super::stopwatch::time_until;
use super::topic_end::TopicEnd;
use crate::config::Settings;
use crate::database::{MySqlDatabase, PostgresDatabase, postgres_options, statement};
use crate::name::{free_port, unique_name};
use crate::program::{Program, build_programs, program_folder, workspace};
use crate::server::{Options, Progress, RunFolder, ServerSet, SetOptions};

pub(super) const RELAY: &str = "relay";
pub(super) const ORDER_SERVICE: &str = "order-service";
pub(super) const SHIPMENT_SERVICE: &str = "shipment-service";

/// The connector as a user registers it, beside the workspace's Cargo.toml.
const CONNECTOR_FILE: &str = "register-postgres.json";

/// What Debezium calls slot and publication when the connector does not.
const SLOT_DEFAULT: &str = "debezium";
const PUBLICATION_DEFAULT: &str = "dbz_publication";

/// For a program to start, a connector to change its state: a busy machine needs a second or two.
pub(super) const STEP_BOUND: Duration = Duration::from_secs(60);

/// What the connector file says.
pub(super) struct Connector {
    file: PathBuf,
    pub(super) name: String,
    pub(super) slot: String,
    pub(super) publication: String,
    /// The server it names, `host:port`.
    server: String,
    user: String,
    password: String,
    database: String,
}

impl Connector {
    fn read() -> Result<Self> {
        let file = workspace().join(CONNECTOR_FILE);
        let text = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        let json: Value = serde_json::from_slice(&text).context(CONNECTOR_FILE)?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let option = |name: &str| {
            text(&json["config"][name]).with_context(|| format!("no {name} in {CONNECTOR_FILE}"))
        };
        Ok(Self {
            name: text(&json["name"]).context("the connector has no name")?,
            slot: option("slot.name").unwrap_or_else(|_| SLOT_DEFAULT.to_owned()),
            publication: option("publication.name")
                .unwrap_or_else(|_| PUBLICATION_DEFAULT.to_owned()),
            server: format!("{}:{}", option("database.hostname")?, option("database.port")?),
            user: option("database.user")?,
            password: option("database.password")?,
            database: option("database.dbname")?,
            file,
        })
    }
}

/// The servers, and how to start our programs on them.
pub(super) struct Stage {
    pub(super) servers: ServerSet,
    pub(super) database: PostgresDatabase,
    mysql: MySqlDatabase,
    pub(super) connector: Connector,
    pub(super) http: reqwest::Client,
    programs: PathBuf,
    /// Ends the names of the relay's storage topics.
    cluster: String,
    load_before: f64,
    progress: Progress,
    // Last, so that the servers in it are gone first.
    _folder: RunFolder,
}

/// A program and the port of its REST API.
pub(super) struct Started {
    pub(super) program: Program,
    pub(super) port: u16,
}

impl Started {
    pub(super) async fn terminate(&self) -> Result<()> {
        self.program.terminate().await.map(|_| ())
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

impl Stage {
    /// Builds the programs, in the profile that this one was built in, and starts the servers.
    pub(super) async fn set(progress: impl Fn(&str) + Send + Sync + 'static) -> Result<Self> {
        let load_before = load_average();
        let progress: Progress = Arc::new(progress);
        progress("building our programs");
        tokio::task::spawn_blocking(|| {
            build_programs(&[ORDER_SERVICE, RELAY, SHIPMENT_SERVICE], false)
        })
        .await??;
        let connector = Connector::read()?;
        progress("starting the servers");
        let settings = Settings::read();
        let folder = RunFolder::create(&settings, false)?;
        let durable = || Options { port: free_port(), durable: true, tls: None };
        let options = SetOptions { postgres: durable(), mysql: durable(), kafka: durable() };
        let servers = ServerSet::start(&settings, &folder, options, &progress).await?;
        let Connector { user, password, database, .. } = &connector;
        let database = servers.postgres.create_database(database, user, password).await?;
        grant_publications(servers.postgres.admin(), user).await?;
        let mysql = servers.mysql.create_database("inventory", "mysqluser", "mysqlpw").await?;
        Ok(Self {
            servers,
            database,
            mysql,
            connector,
            http: reqwest::Client::builder().timeout(STEP_BOUND).build()?,
            programs: program_folder()?,
            cluster: unique_name("measure"),
            load_before,
            progress,
            _folder: folder,
        })
    }

    /// Stops the servers in order.
    pub(super) async fn strike(&mut self) {
        self.servers.stop().await;
    }

    /// Tells the user what happens.
    pub(super) fn say(&self, text: &str) {
        (self.progress)(text);
    }

    pub(super) fn load_before(&self) -> f64 {
        self.load_before
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    pub(super) fn bootstrap_servers(&self) -> &str {
        self.servers.kafka.bootstrap_servers()
    }

    pub(super) async fn connect(&self) -> Result<PgConnection> {
        load::connect(&self.database).await
    }

    /// The end of the topic that events of this aggregate type go to.
    pub(super) fn topic_end(&self, aggregate_type: &str) -> Result<TopicEnd> {
        TopicEnd::open(self.bootstrap_servers(), &topic_of(aggregate_type))
    }

    pub(super) fn start_order_service(&self) -> Result<Started> {
        self.start(ORDER_SERVICE, |port| {
            vec![
                ("DATABASE_URL", self.database.url()),
                ("HTTP_ADDRESS", format!("127.0.0.1:{port}")),
            ]
        })
    }

    pub(super) fn start_shipment_service(&self) -> Result<Started> {
        self.start(SHIPMENT_SERVICE, |port| {
            vec![
                ("DATABASE_URL", self.mysql.url()),
                ("BOOTSTRAP_SERVERS", self.bootstrap_servers().to_owned()),
                ("ORDER_TOPIC_NAME", topic_of("Order")),
                ("HTTP_ADDRESS", format!("127.0.0.1:{port}")),
            ]
        })
    }

    /// Starts a relay. The first one registers the connector, those after it find it in the config topic.
    pub(super) fn start_relay(&self, registers: bool) -> Result<Started> {
        let storage = |topic: &str| format!("{}_{topic}", self.cluster);
        let dial =
            format!("{}={}:{}", self.connector.server, self.database.host, self.database.port);
        self.start(RELAY, |port| {
            let mut variables = vec![
                ("BOOTSTRAP_SERVERS", self.bootstrap_servers().to_owned()),
                ("GROUP_ID", self.cluster.clone()),
                ("CONFIG_STORAGE_TOPIC", storage("configs")),
                ("OFFSET_STORAGE_TOPIC", storage("offsets")),
                ("STATUS_STORAGE_TOPIC", storage("statuses")),
                ("CONNECT_REST_PORT", port.to_string()),
                ("RELAY_CONNECT_TO", dial.clone()),
            ];
            if registers {
                variables.push(("CONNECTORS", self.connector.file.display().to_string()));
            }
            variables
        })
    }

    fn start(
        &self,
        name: &str,
        variables: impl FnOnce(u16) -> Vec<(&'static str, String)>,
    ) -> Result<Started> {
        let port = free_port();
        let variables = variables(port);
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Ok(Started { program: Program::start(self.program(name), &[], &variables)?, port })
    }

    /// Asks until `GET path` answers 200, and returns how long that took from `began`.
    pub(super) async fn time_until_ok(
        &self,
        started: &Started,
        path: &str,
        began: Instant,
    ) -> Result<Duration> {
        let url = started.url(path);
        let answered = time_until("good answer", began, STEP_BOUND, || async {
            Ok(self.http.get(&url).send().await?.status().is_success())
        });
        answered.await.with_context(|| started.program.tail())
    }

    /// `PUT /connectors/{name}/{action}`.
    pub(super) async fn change_connector(&self, relay: &Started, action: &str) -> Result<()> {
        let url = relay.url(&format!("/connectors/{}/{action}", self.connector.name));
        let answer = self.http.put(url).send().await?;
        if !answer.status().is_success() {
            let status = answer.status();
            bail!("the relay answers {status} to {action}: {}", answer.text().await?);
        }
        Ok(())
    }

    /// Waits until the slot is read by somebody (and says by which walsender) or by nobody.
    pub(super) async fn wait_for_slot(&self, relay: &Started, active: bool) -> Result<Option<u32>> {
        let mut connection = self.connect().await?;
        let query = "select active_pid from pg_replication_slots where slot_name = $1";
        let until = Instant::now() + STEP_BOUND;
        loop {
            let row: Option<Option<i32>> = sqlx::query_scalar(query)
                .bind(&self.connector.slot)
                .fetch_optional(&mut connection)
                .await?;
            if row.is_some_and(|pid| pid.is_some() == active) {
                return Ok(row.flatten().and_then(|pid| u32::try_from(pid).ok()));
            }
            if Instant::now() > until {
                let wanted = if active { "in use" } else { "free" };
                let tail = relay.program.tail();
                bail!("after {STEP_BOUND:?} the slot is not {wanted}\n{tail}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Where the connector's routing sends events of this aggregate type.
pub(super) fn topic_of(aggregate_type: &str) -> String {
    format!("{aggregate_type}Events")
}

/// The connector creates its publication for all tables, as Debezium does, and only a superuser may; the user of the
/// official image is one as well.
async fn grant_publications(admin: &PostgresDatabase, user: &str) -> Result<()> {
    let mut connection = PgConnection::connect_with(&postgres_options(admin)).await?;
    let grant = statement(format!("alter role \"{user}\" superuser"));
    sqlx::raw_sql(grant).execute(&mut connection).await.context("make the user a superuser")?;
    Ok(connection.close().await?)
}
