//! The whole flow as child processes: three servers, three programs, each of which can be stopped, killed and started.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::config::Settings;
use crate::database::{MySqlDatabase, PostgresDatabase};
use crate::links::{Link, Links};
use crate::name::free_port;
use crate::program::{Program, build_programs, program};
use crate::server::{
    ConnectOptions, Kafka, MySql, Options, Postgres, Progress, RunFolder, ServerSet,
};
use crate::wait::eventually;

/// A program waits for its servers by itself; on a busy machine with two cores the slowest server took 9 s.
const READY_BOUND: Duration = Duration::from_secs(120);

/// One look at a health endpoint.
const HEALTH_BOUND: Duration = Duration::from_secs(2);

const RELAY: &str = "relay";

// As in the example's compose file of 2019.
const GROUP_ID: &str = "1";
const CONFIG_STORAGE_TOPIC: &str = "my_connect_configs";
/// Where the worker keeps the positions of its connectors.
pub const OFFSET_STORAGE_TOPIC: &str = "my_connect_offsets";
const STATUS_STORAGE_TOPIC: &str = "my_connect_statuses";

/// Where everything listens on 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    pub postgres: u16,
    pub mysql: u16,
    pub kafka: u16,
    pub relay: u16,
    pub order_service: u16,
    pub shipment_service: u16,
}

impl Ports {
    /// Six ports that are free just now.
    #[must_use]
    pub fn free() -> Self {
        Self {
            postgres: free_port(),
            mysql: free_port(),
            kafka: free_port(),
            relay: free_port(),
            order_service: free_port(),
            shipment_service: free_port(),
        }
    }
}

/// What happens while the flow starts and runs, for a launcher that shows it.
pub enum Event<'a> {
    /// Something takes its time (a download).
    Progress(&'a str),
    /// A server or program answers, this long after the start.
    Ready { name: &'a str, address: &'a str, version: &'a str, after: Duration },
    /// A program printed a line.
    Line { program: &'a str, line: &'a str },
}

/// Receives the events, on any thread.
pub type Observer = Arc<dyn Fn(Event<'_>) + Send + Sync>;

/// How to set the flow up.
pub struct DeploymentOptions {
    pub ports: Ports,
    /// Whether commits wait for the disk.
    pub durable: bool,
    /// Whether the relay starts with the rest; else [`Deployment::relay`] waits for its [`Part::start`].
    pub with_relay: bool,
    /// Proxies that the parts dial instead of the servers.
    pub links: Option<Arc<Links>>,
    /// Whether Kafka's controller is a process of its own, which lives on when the broker is killed.
    pub controller_apart: bool,
    pub observer: Observer,
}

/// The paths of our three programs.
#[derive(Debug, Clone)]
pub struct Programs {
    pub order_service: PathBuf,
    pub relay: PathBuf,
    pub shipment_service: PathBuf,
}

impl Programs {
    /// Builds what is not fresh. Blocks.
    ///
    /// # Errors
    /// When one does not compile.
    pub fn build() -> Result<Self> {
        Ok(Self {
            order_service: program("order-service")?,
            relay: program("relay")?,
            shipment_service: program("shipment-service")?,
        })
    }

    /// Builds what is not fresh, all at once and with cargo's progress on standard error. Blocks.
    ///
    /// # Errors
    /// When one does not compile.
    pub fn build_showing_progress() -> Result<Self> {
        build_programs(&["order-service", "relay", "shipment-service"], false)?;
        Self::build()
    }
}

/// The running flow. Dropping it kills everything.
pub struct Deployment {
    pub order_service: Part,
    pub relay: Part,
    pub shipment_service: Part,
    pub servers: ServerSet,
    pub order_database: PostgresDatabase,
    pub shipment_database: MySqlDatabase,
    pub ports: Ports,
    pub folder: RunFolder,
}

impl Deployment {
    /// Starts everything at the same time: each program as soon as its own database exists, so that it has to wait
    /// for the rest by itself. Everything has answered when this returns. The connector is not registered.
    ///
    /// # Errors
    /// When something does not start; its last log lines are in the error. What was started is killed.
    pub async fn start(
        settings: &Settings,
        folder: RunFolder,
        programs: Programs,
        options: DeploymentOptions,
    ) -> Result<Self> {
        let start = Start { settings, folder: &folder, options: &options, began: Instant::now() };
        let (orders, shipments, kafka, relay) = tokio::try_join!(
            Box::pin(start.order_side(programs.order_service)),
            Box::pin(start.shipment_side(programs.shipment_service)),
            Box::pin(start.kafka()),
            Box::pin(start.relay(programs.relay)),
        )?;
        let (postgres, order_database, order_service) = orders;
        let (mysql, shipment_database, shipment_service) = shipments;
        Ok(Self {
            order_service,
            relay,
            shipment_service,
            servers: ServerSet { postgres, mysql, kafka },
            order_database,
            shipment_database,
            ports: options.ports,
            folder,
        })
    }

    /// A second relay of the same group, on a port of its own; not started.
    #[must_use]
    pub fn another_relay(&self, name: &'static str) -> Part {
        let port = free_port();
        let mut relay = Part {
            name,
            path: self.relay.path.clone(),
            environment: self.relay.environment.clone(),
            url: format!("http://127.0.0.1:{port}"),
            log: self.folder.path().join(format!("{name}.log")),
            observer: Arc::clone(&self.relay.observer),
            program: None,
        };
        relay.set_variable("CONNECT_LISTENERS", &format!("http://127.0.0.1:{port}"));
        relay
    }

    /// What has ended although nobody stopped it, and how.
    #[must_use]
    pub fn ended(&self) -> Vec<(&'static str, ExitStatus)> {
        let part = |part: &Part| (part.name, part.program.as_ref().and_then(Program::exit_status));
        let all = [
            ("PostgreSQL", self.servers.postgres.exit_status()),
            ("MySQL", self.servers.mysql.exit_status()),
            ("Kafka", self.servers.kafka.exit_status()),
            part(&self.order_service),
            part(&self.relay),
            part(&self.shipment_service),
        ];
        all.into_iter().filter_map(|(name, status)| Some((name, status?))).collect()
    }

    /// A worker of real Kafka Connect that can take the relay's place: the example's environment, the relay's port.
    #[must_use]
    pub fn connect_options(&self) -> ConnectOptions {
        ConnectOptions {
            group_id: GROUP_ID.to_owned(),
            config_storage_topic: CONFIG_STORAGE_TOPIC.to_owned(),
            offset_storage_topic: OFFSET_STORAGE_TOPIC.to_owned(),
            status_storage_topic: STATUS_STORAGE_TOPIC.to_owned(),
            ..ConnectOptions::for_tests(self.ports.relay, self.servers.kafka.bootstrap_servers())
        }
    }

    /// Stops the programs, then the servers, each within a bound. Returns what did not end by itself in time.
    pub async fn stop(&mut self) -> Vec<String> {
        let (orders, relay, shipments) = tokio::join!(
            self.order_service.terminate(),
            self.relay.terminate(),
            self.shipment_service.terminate()
        );
        self.servers.stop().await;
        let failed = [orders, relay, shipments].into_iter().filter_map(Result::err);
        failed.map(|error| error.to_string()).collect()
    }
}

/// What each branch of the start needs.
struct Start<'a> {
    settings: &'a Settings,
    folder: &'a RunFolder,
    options: &'a DeploymentOptions,
    began: Instant,
}

impl Start<'_> {
    async fn order_side(&self, path: PathBuf) -> Result<(Postgres, PostgresDatabase, Part)> {
        let ports = self.options.ports;
        let options = self.server_options(ports.postgres);
        let postgres =
            Postgres::start(self.settings, self.folder, options, &self.progress()).await?;
        let database = postgres.create_database("orderdb", "postgresuser", "postgrespw").await?;
        postgres.make_superuser("postgresuser").await?;
        self.ready("PostgreSQL", &format!("127.0.0.1:{}", ports.postgres), postgres.version());
        let dialled = self.dialled(Link::OrderServiceToPostgres, ports.postgres);
        let environment = vec![
            (
                "DATABASE_URL".to_owned(),
                PostgresDatabase { port: dialled, ..database.clone() }.url(),
            ),
            ("HTTP_ADDRESS".to_owned(), format!("127.0.0.1:{}", ports.order_service)),
        ];
        let part = self.part("order-service", path, environment, ports.order_service).await?;
        Ok((postgres, database, part))
    }

    async fn shipment_side(&self, path: PathBuf) -> Result<(MySql, MySqlDatabase, Part)> {
        let ports = self.options.ports;
        let options = self.server_options(ports.mysql);
        let mysql = MySql::start(self.settings, self.folder, options, &self.progress()).await?;
        let database = mysql.create_database("inventory", "mysqluser", "mysqlpw").await?;
        self.ready("MySQL", &format!("127.0.0.1:{}", ports.mysql), mysql.version());
        let dialled = self.dialled(Link::ShipmentServiceToMySql, ports.mysql);
        let kafka = self.dialled(Link::ShipmentServiceToKafka, ports.kafka);
        let environment = vec![
            ("DATABASE_URL".to_owned(), MySqlDatabase { port: dialled, ..database.clone() }.url()),
            ("BOOTSTRAP_SERVERS".to_owned(), format!("127.0.0.1:{kafka}")),
            ("ORDER_TOPIC_NAME".to_owned(), "OrderEvents".to_owned()),
            ("HTTP_ADDRESS".to_owned(), format!("127.0.0.1:{}", ports.shipment_service)),
        ];
        let part = self.part("shipment-service", path, environment, ports.shipment_service).await?;
        Ok((mysql, database, part))
    }

    async fn kafka(&self) -> Result<Kafka> {
        let options = self.server_options(self.options.ports.kafka);
        let listeners = self.options.links.as_deref().map_or(&[][..], Links::kafka_listeners);
        let progress = self.progress();
        let around = (listeners, self.options.controller_apart);
        let kafka =
            Kafka::start_with_listeners(self.settings, self.folder, options, around, &progress)
                .await?;
        self.ready("Kafka", kafka.bootstrap_servers(), &kafka.version());
        Ok(kafka)
    }

    /// The environment is that of Debezium's Connect image.
    async fn relay(&self, path: PathBuf) -> Result<Part> {
        let ports = self.options.ports;
        let kafka = self.dialled(Link::RelayToKafka, ports.kafka);
        let postgres = self.dialled(Link::RelayToPostgres, ports.postgres);
        let environment = [
            ("BOOTSTRAP_SERVERS", format!("127.0.0.1:{kafka}")),
            ("GROUP_ID", GROUP_ID.to_owned()),
            ("CONFIG_STORAGE_TOPIC", CONFIG_STORAGE_TOPIC.to_owned()),
            ("OFFSET_STORAGE_TOPIC", OFFSET_STORAGE_TOPIC.to_owned()),
            ("STATUS_STORAGE_TOPIC", STATUS_STORAGE_TOPIC.to_owned()),
            ("CONNECT_LISTENERS", format!("http://127.0.0.1:{}", ports.relay)),
            // The connector's configuration names the server as in compose.
            ("RELAY_CONNECT_TO", format!("order-db:5432=127.0.0.1:{postgres}")),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).into();
        self.part(RELAY, path, environment, ports.relay).await
    }

    async fn part(
        &self,
        name: &'static str,
        path: PathBuf,
        environment: Vec<(String, String)>,
        port: u16,
    ) -> Result<Part> {
        let mut part = Part {
            name,
            path,
            environment,
            url: format!("http://127.0.0.1:{port}"),
            log: self.folder.path().join(format!("{name}.log")),
            observer: Arc::clone(&self.options.observer),
            program: None,
        };
        if name == RELAY && !self.options.with_relay {
            return Ok(part);
        }
        part.start()?;
        part.wait_until_ready().await?;
        self.ready(name, &format!("http://localhost:{port}"), "");
        Ok(part)
    }

    /// The port that a part dials: the server's own, or that of the proxy before it.
    fn dialled(&self, link: Link, port: u16) -> u16 {
        self.options.links.as_ref().map_or(port, |links| links.port(link))
    }

    fn server_options(&self, port: u16) -> Options {
        Options { port, durable: self.options.durable, tls: None }
    }

    fn progress(&self) -> Progress {
        let observer = Arc::clone(&self.options.observer);
        Arc::new(move |text: &str| observer(Event::Progress(text)))
    }

    fn ready(&self, name: &str, address: &str, version: &str) {
        let after = self.began.elapsed();
        (self.options.observer)(Event::Ready { name, address, version, after });
    }
}

/// One of our programs in the flow.
pub struct Part {
    name: &'static str,
    path: PathBuf,
    environment: Vec<(String, String)>,
    url: String,
    log: PathBuf,
    observer: Observer,
    program: Option<Program>,
}

impl Part {
    /// Starts it (again). Does not wait until it is ready.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = Mutex::new(log.with_context(|| format!("create {}", self.log.display()))?);
        let environment: Vec<(&str, &str)> =
            self.environment.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let (observer, name) = (Arc::clone(&self.observer), self.name);
        let program = Program::start_with(&self.path, &[], &environment, move |line| {
            let _ = writeln!(log.lock().unwrap_or_else(PoisonError::into_inner), "{line}");
            observer(Event::Line { program: name, line });
        })?;
        self.program = Some(program);
        Ok(())
    }

    /// Gives it another variable, from the next start on.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Waits until `GET /health/ready` answers 200.
    ///
    /// # Errors
    /// When the bound passes or it ends first; its last lines are in the error.
    pub async fn wait_until_ready(&self) -> Result<()> {
        let client = reqwest::Client::builder().timeout(HEALTH_BOUND).build()?;
        let url = format!("{}/health/ready", self.url);
        let what = format!("ready {}", self.name);
        let ready = eventually(&what, READY_BOUND, || async {
            let program = self.program.as_ref().context("it is not running")?;
            if let Some(status) = program.exit_status() {
                return Ok(Some(Some(status)));
            }
            let answer = client.get(&url).send().await?;
            let status = answer.status();
            if !status.is_success() {
                bail!("{status}: {}", answer.text().await?);
            }
            Ok(Some(None))
        });
        match ready.await {
            Ok(None) => Ok(()),
            Ok(Some(status)) => bail!("{} ended: {status}\n{}", self.name, self.tail()),
            Err(error) => Err(error.context(self.tail())),
        }
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it does not end within its bound, or not with success.
    pub async fn terminate(&mut self) -> Result<()> {
        let Some(program) = self.program.take() else { return Ok(()) };
        let status: ExitStatus = program.terminate().await?;
        if !status.success() {
            bail!("{} ended: {status}\n{}", self.name, program.tail());
        }
        Ok(())
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(&mut self) {
        if let Some(program) = self.program.take() {
            program.kill().await;
        }
    }

    /// `http://127.0.0.1:port`
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The running program.
    #[must_use]
    pub fn program(&self) -> Option<&Program> {
        self.program.as_ref()
    }

    /// The file that has what it printed in all its lives.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    fn tail(&self) -> String {
        let tail = self.program.as_ref().map(Program::tail).unwrap_or_default();
        format!("{tail}\nlog: {}", self.log.display())
    }
}
