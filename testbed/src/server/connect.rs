//! Real Kafka Connect in distributed mode with Debezium's PostgreSQL connector: what the relay takes the place of.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use reqwest::Client;
use rustix::process::Signal;

use super::life::Life;
use super::{LOG_CONFIGURATION, RunFolder};
use crate::config::Settings;
use crate::fetch::{Form, Package, Progress, fetch, java};
use crate::guard::LastSignal;
use crate::name::unique_name;
use crate::process::{Launch, Output, Process};

const INSTALL_HINT: &str = "it needs Java and Maven: apt-get install default-jre-headless maven";

static CONNECT: Package = Package {
    title: "Kafka Connect",
    profile: "connect",
    version_property: "connect",
    form: Form::Jars,
    megabytes: 36,
    install_hint: INSTALL_HINT,
};

static DEBEZIUM: Package = Package {
    title: "Debezium",
    profile: "debezium",
    version_property: "debezium",
    form: Form::Archive,
    megabytes: 6,
    install_hint: INSTALL_HINT,
};

/// One look at the REST API.
const ANSWER_BOUND: Duration = Duration::from_secs(5);

/// A worker ends its tasks (10 s), leaves its group and stops its REST server.
const STOP_BOUND: Duration = Duration::from_secs(40);

/// How to set up a worker. The defaults are those of Debezium's image, but for the memory.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Of the REST API, on 127.0.0.1.
    pub port: u16,
    pub bootstrap_servers: String,
    /// `GROUP_ID` of the image.
    pub group_id: String,
    /// `CONFIG_STORAGE_TOPIC` of the image.
    pub config_storage_topic: String,
    /// `OFFSET_STORAGE_TOPIC` of the image.
    pub offset_storage_topic: String,
    /// `STATUS_STORAGE_TOPIC` of the image.
    pub status_storage_topic: String,
    /// Further worker settings (`offset.flush.interval.ms`); they win over ours.
    pub settings: Vec<(String, String)>,
    /// Arguments of Java before the class path.
    pub jvm: Vec<String>,
}

impl ConnectOptions {
    /// For tests: little memory, a compiler that starts soonest.
    #[must_use]
    pub fn for_tests(port: u16, bootstrap_servers: &str) -> Self {
        let jvm = ["-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
        let group_id = unique_name("connect");
        Self {
            port,
            bootstrap_servers: bootstrap_servers.to_owned(),
            config_storage_topic: format!("{group_id}_configs"),
            offset_storage_topic: format!("{group_id}_offsets"),
            status_storage_topic: format!("{group_id}_statuses"),
            group_id,
            settings: Vec::new(),
            jvm: jvm.map(str::to_owned).into(),
        }
    }

    fn properties(&self, plugins: &Path) -> String {
        let Self { port, bootstrap_servers, group_id, .. } = self;
        let converter = "org.apache.kafka.connect.json.JsonConverter";
        let mut text = format!(
            "bootstrap.servers={bootstrap_servers}\ngroup.id={group_id}\n\
             listeners=http://127.0.0.1:{port}\nrest.advertised.host.name=127.0.0.1\n\
             plugin.path={}\n\
             # Found by their manifests: to scan all classes for them takes seconds.\n\
             plugin.discovery=service_load\n\
             key.converter={converter}\nvalue.converter={converter}\n\
             config.storage.topic={}\noffset.storage.topic={}\nstatus.storage.topic={}\n\
             # One broker holds one replica.\n\
             config.storage.replication.factor=1\noffset.storage.replication.factor=1\n\
             status.storage.replication.factor=1\n\
             offset.flush.interval.ms=60000\noffset.flush.timeout.ms=5000\n\
             task.shutdown.graceful.timeout.ms=10000\n",
            plugins.display(),
            self.config_storage_topic,
            self.offset_storage_topic,
            self.status_storage_topic,
        );
        for (name, value) in &self.settings {
            text.push_str(&format!("{name}={value}\n"));
        }
        text
    }
}

/// A Kafka Connect worker of our own. Dropping it kills it.
pub struct Connect {
    java: PathBuf,
    jars: PathBuf,
    plugins: PathBuf,
    home: PathBuf,
    folder: RunFolder,
    options: ConnectOptions,
    url: String,
    life: Life,
}

impl Connect {
    /// Starts a worker; its REST API has answered when this returns. It then has read its storage topics and joined
    /// its group.
    ///
    /// # Errors
    /// When Java is missing, the worker cannot be fetched or does not start; its last log lines are in the error.
    pub async fn start(
        settings: &Settings,
        folder: &RunFolder,
        options: ConnectOptions,
        progress: &Progress,
    ) -> Result<Self> {
        let (settings, progress) = (settings.clone(), Progress::clone(progress));
        let found = tokio::task::spawn_blocking(move || {
            let java = java(&settings)?;
            let jars = fetch(&settings, &CONNECT, &progress)?;
            anyhow::Ok((java, jars, fetch(&settings, &DEBEZIUM, &progress)?))
        });
        let (java, jars, plugins) = found.await??;
        // A run may have several workers.
        let name = format!("connect-{}", options.port);
        let home = folder.subfolder(&name, None)?;
        fs::write(home.join("log4j2.properties"), LOG_CONFIGURATION)?;
        fs::write(home.join("worker.properties"), options.properties(&plugins))?;
        let (log, _) = folder.log_file(&name)?;
        let life = Life::new("Kafka Connect", log);
        let url = format!("http://127.0.0.1:{}", options.port);
        let folder = folder.clone();
        let mut worker = Self { java, jars, plugins, home, folder, options, url, life };
        worker.restart().await?;
        Ok(worker)
    }

    /// Starts the worker (again), with the same settings.
    ///
    /// # Errors
    /// When it does not answer within a bound.
    pub async fn restart(&mut self) -> Result<()> {
        let (_, log) = self.folder.log_file(&format!("connect-{}", self.options.port))?;
        let launch = Launch {
            program: &self.java,
            user: None,
            last_signal: LastSignal::Kill,
            output: Output::File(log),
            with_stdin: false,
        };
        let logging = self.home.join("log4j2.properties");
        let process = Process::start(launch, |command| {
            command
                .args(&self.options.jvm)
                .arg("-Djava.awt.headless=true")
                .arg(format!("-Dlog4j2.configurationFile={}", logging.display()))
                .arg("-cp")
                .arg(self.jars.join("*"))
                .arg("org.apache.kafka.connect.cli.ConnectDistributed")
                .arg(self.home.join("worker.properties"))
                .current_dir(&self.home);
        })?;
        let client = Client::builder().timeout(ANSWER_BOUND).build()?;
        // `GET /` answers sooner, before the worker knows its connectors.
        let health = format!("{}/health", self.url);
        let ask = || {
            let request = client.get(&health);
            async move { Ok(request.send().await?.status().is_success()) }
        };
        self.life.begin(process, ask).await
    }

    /// SIGTERM: ends the tasks in order, which writes their last offsets, and leaves the group.
    ///
    /// # Errors
    /// When it had to be killed.
    pub async fn stop(&mut self) -> Result<()> {
        if !self.life.stop_within(Signal::TERM, STOP_BOUND).await {
            bail!("Kafka Connect did not end within {STOP_BOUND:?}\n{}", self.life.log_tail());
        }
        Ok(())
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        self.life.kill().await;
    }

    /// Of the REST API: `http://127.0.0.1:port`
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What runs, e.g. `connect-4.3.1, debezium-3.7.0.Final`.
    #[must_use]
    pub fn version(&self) -> String {
        let name =
            |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        format!("{}, {}", name(&self.jars), name(&self.plugins))
    }

    /// Process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.life.pid()
    }

    /// What the worker logged in all its lives.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn log(&self) -> Result<String> {
        let path = self.life.log();
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
