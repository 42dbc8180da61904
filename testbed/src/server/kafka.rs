//! Kafka: one KRaft node from the plain jars, on a small heap, with a class archive that halves its start.

mod controller;
mod marker;

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;

use self::controller::Controller;
use super::kafka_listeners::{self, Listener};
use super::kafka_security::KafkaSecurity;
use super::life::Life;
use super::{LOG_CONFIGURATION, Options, READY_BOUND, RunFolder, STOP_BOUND};
use crate::config::Settings;
use crate::fetch::{Form, Package, Progress, fetch, java};
use crate::guard::LastSignal;
use crate::name::free_port;
use crate::process::{Launch, Output, Process};
use crate::wait::eventually;

static KAFKA: Package = Package {
    title: "Kafka",
    profile: "kafka",
    version_property: "kafka",
    form: Form::Jars,
    megabytes: 43,
    install_hint: "it needs Java and Maven: apt-get install default-jre-headless maven",
};

/// A broker for tests lives on little; the serial collector and the quick compiler start soonest.
const JVM: [&str; 5] = [
    "-Xms64m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
];

/// One request for metadata; the wait around it repeats.
const METADATA_BOUND: Duration = Duration::from_millis(500);

/// A Kafka broker of our own. Dropping it kills it.
pub struct Kafka {
    java: PathBuf,
    jars: PathBuf,
    archive: Option<PathBuf>,
    /// More for Java's command line.
    options: Vec<OsString>,
    folder: RunFolder,
    home: PathBuf,
    bootstrap_servers: String,
    /// Where it is no controller itself.
    controller: Option<Controller>,
    life: Life,
}

/// What a broker has around it.
#[derive(Default)]
struct Surroundings<'a> {
    security: Option<&'a KafkaSecurity>,
    listeners: &'a [Listener],
    controller_apart: bool,
}

impl Kafka {
    /// Formats a data folder and starts the broker; it has answered when this returns.
    ///
    /// # Errors
    /// When Java is missing, Kafka cannot be fetched or does not start; its last log lines are in the error.
    pub async fn start(
        settings: &Settings,
        folder: &RunFolder,
        options: Options,
        progress: &Progress,
    ) -> Result<Self> {
        Self::start_in(settings, folder, options, Surroundings::default(), progress).await
    }

    /// The same with locked doors beside the open one.
    ///
    /// # Errors
    /// As [`Kafka::start`].
    pub async fn start_with(
        settings: &Settings,
        folder: &RunFolder,
        options: Options,
        security: Option<&KafkaSecurity>,
        progress: &Progress,
    ) -> Result<Self> {
        let surroundings = Surroundings { security, ..Surroundings::default() };
        Self::start_in(settings, folder, options, surroundings, progress).await
    }

    /// The same with open doors that lead to proxies, and with a controller in a process of its own if
    /// `controller_apart`: it lives on when the broker is killed, as in a cluster.
    ///
    /// # Errors
    /// As [`Kafka::start`].
    pub async fn start_with_listeners(
        settings: &Settings,
        folder: &RunFolder,
        options: Options,
        (listeners, controller_apart): (&[Listener], bool),
        progress: &Progress,
    ) -> Result<Self> {
        let surroundings = Surroundings { listeners, controller_apart, ..Surroundings::default() };
        Self::start_in(settings, folder, options, surroundings, progress).await
    }

    async fn start_in(
        settings: &Settings,
        folder: &RunFolder,
        options: Options,
        around: Surroundings<'_>,
        progress: &Progress,
    ) -> Result<Self> {
        let security = around.security;
        let (settings, progress) = (settings.clone(), Progress::clone(progress));
        let found = tokio::task::spawn_blocking(move || {
            let java = java(&settings)?;
            let jars = fetch(&settings, &KAFKA, &progress)?;
            let template = template(&java, &jars, &settings, &progress)?;
            anyhow::Ok((java, jars, template))
        });
        let (java, jars, template) = found.await??;
        let home = folder.subfolder("kafka", None)?;
        let data = home.join("data");
        fs::create_dir(&data).context("create Kafka's data folder")?;
        fs::write(home.join("log4j2.properties"), LOG_CONFIGURATION)?;
        let controller_port = free_port();
        let mut configuration = configuration(options.port, controller_port, &data, security);
        let own_controller = (!around.controller_apart).then_some(controller_port);
        if around.controller_apart || !around.listeners.is_empty() {
            let more = kafka_listeners::properties(options.port, own_controller, around.listeners);
            configuration.push_str(&more);
        }
        let mut controller = None;
        if around.controller_apart {
            configuration.push_str(&controller::of_broker(controller_port));
            controller = Some(Controller::start((&java, &jars), folder, controller_port).await?);
        }
        if let Some(security) = security {
            configuration.push_str(&security.properties(&home)?);
        }
        fs::write(home.join("server.properties"), configuration)?;
        match security {
            // Its users are written when the folder is formatted.
            Some(security) => {
                format_data(&java, &jars, &home, "server.properties", &security.credentials())?;
            }
            None => {
                for file in FORMATTED_FILES {
                    let copied = fs::copy(template.join(file), data.join(file));
                    copied.context("copy the formatted folder")?;
                }
            }
        }
        let archive = Some(template.join(ARCHIVE)).filter(|archive| archive.is_file());
        let (log, _) = folder.log_file("kafka")?;
        let folder = folder.clone();
        let bootstrap_servers = format!("127.0.0.1:{}", options.port);
        let life = Life::new("Kafka", log);
        let options = security.map(|security| security.java_options(&home)).unwrap_or_default();
        let mut server = Self {
            java,
            jars,
            archive,
            options,
            folder,
            home,
            bootstrap_servers,
            controller,
            life,
        };
        server.restart().await?;
        Ok(server)
    }

    /// Starts the broker (again) on its data and port.
    ///
    /// # Errors
    /// When it does not answer within a bound.
    pub async fn restart(&mut self) -> Result<()> {
        if let Some(controller) = &mut self.controller {
            controller.until_fenced().await?;
        }
        let (_, log) = self.folder.log_file("kafka")?;
        let mut arguments: Vec<OsString> = JVM.map(OsString::from).into();
        arguments.push(log_option(&self.home));
        if let Some(archive) = &self.archive {
            arguments.push(format!("-XX:SharedArchiveFile={}", archive.display()).into());
            arguments.push("-Xshare:auto".into());
            arguments.push("-Xlog:disable".into());
        }
        arguments.extend_from_slice(&self.options);
        arguments.extend(class_path(&self.jars));
        arguments.push("kafka.Kafka".into());
        arguments.push(self.home.join("server.properties").into());
        let launch = Launch {
            program: &self.java,
            user: None,
            last_signal: LastSignal::Kill,
            output: Output::File(log),
            with_stdin: false,
        };
        let process = Process::start(launch, |command| {
            command.args(arguments).current_dir(&self.home);
        })?;
        let bootstrap_servers = &self.bootstrap_servers;
        self.life.begin(process, || answers(bootstrap_servers.clone())).await
    }

    /// Controlled shutdown.
    pub async fn stop(&mut self) {
        self.life.stop(Signal::TERM).await;
    }

    /// `kill -9` of the broker.
    pub async fn kill(&mut self) {
        if let Some(controller) = &mut self.controller {
            controller.note_fenced();
        }
        self.life.kill().await;
    }

    /// Sends any signal, e.g. STOP and CONT to freeze and thaw it.
    pub fn signal(&self, signal: Signal) {
        self.life.signal(signal);
    }

    /// Freezes the broker until its controller, which must be one apart, has taken its partitions from it; then thaws it.
    /// For a moment it runs then, and they have no leader.
    ///
    /// # Errors
    /// When it is not taken for dead within a bound.
    pub async fn sleep_until_fenced(&mut self) -> Result<()> {
        let controller = self.controller.as_mut().context("the controller is not apart")?;
        controller.until_unfenced().await?;
        controller.note_fenced();
        self.life.signal(Signal::STOP);
        let fenced = controller.until_fenced().await;
        self.life.signal(Signal::CONT);
        fenced
    }

    /// `127.0.0.1:port`
    #[must_use]
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// What runs, e.g. `kafka-4.3.1`.
    #[must_use]
    pub fn version(&self) -> String {
        self.jars.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.life.pid()
    }

    /// How it ended, or its controller where that is apart, if it did so without being stopped.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        let controller = || self.controller.as_ref().and_then(Controller::exit_status);
        self.life.exit_status().or_else(controller)
    }
}

/// A broker that is listed has registered itself and takes requests.
async fn answers(bootstrap_servers: String) -> Result<bool> {
    let brokers = tokio::task::spawn_blocking(move || {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap_servers)
            // Each failed attempt would be a line on standard error.
            .set("log_level", "0")
            .set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg)
            .create()?;
        let metadata = client.fetch_metadata(None, METADATA_BOUND)?;
        anyhow::Ok(metadata.brokers().len())
    });
    Ok(brokers.await?? > 0)
}

fn configuration(
    port: u16,
    controller_port: u16,
    data: &Path,
    security: Option<&KafkaSecurity>,
) -> String {
    let locked = |host| security.map(|security| security.listeners(host)).unwrap_or_default();
    let (bound, advertised) = (locked("127.0.0.1"), locked("localhost"));
    format!(
        "process.roles=broker,controller\nnode.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller_port}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{bound}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertised}\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,\
         SASL_SSL:SASL_SSL,SASL_PLAINTEXT:SASL_PLAINTEXT\n\
         log.dirs={}\nnum.partitions=1\nauto.create.topics.enable=true\n\
         offsets.topic.replication.factor=1\noffsets.topic.num.partitions=5\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=5\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\ngroup.min.session.timeout.ms=1000\n",
        data.display()
    )
}

const FORMATTED_FILES: [&str; 2] = ["meta.properties", "bootstrap.checkpoint"];
const ARCHIVE: &str = "classes.jsa";
/// Used when formatting, which every node of ours shares: they never meet.
const CLUSTER_ID: &str = "b3V0Ym94LXRlc3RiZWQxMg";

fn class_path(jars: &Path) -> [OsString; 2] {
    ["-cp".into(), jars.join("*").into_os_string()]
}

fn log_option(folder: &Path) -> OsString {
    format!("-Dlog4j2.configurationFile={}", folder.join("log4j2.properties").display()).into()
}

/// A formatted data folder and a class archive for this Java and this Kafka, made once and kept in the cache: together
/// they save about two seconds at each start. Blocks.
fn template(java: &Path, jars: &Path, settings: &Settings, progress: &Progress) -> Result<PathBuf> {
    let name = jars.file_name().unwrap_or_default().to_string_lossy();
    let java_key = archive_key(java);
    let folder = settings.cache.join(format!("{name}-start-{java_key}"));
    if folder.is_dir() {
        return Ok(folder);
    }
    let lock = File::create(settings.cache.join(format!("{name}-start.lock")))?;
    flock(&lock, FlockOperation::LockExclusive).context("lock the cache folder")?;
    if folder.is_dir() {
        return Ok(folder);
    }
    progress("Kafka: preparing quick starts (once)");
    let unfinished = tempfile::tempdir_in(&settings.cache)?;
    let ready = unfinished.path().join("start");
    fs::create_dir(&ready)?;
    fs::write(ready.join("log4j2.properties"), LOG_CONFIGURATION)?;
    fs::write(ready.join("format.properties"), configuration(9092, 9093, &ready, None))?;
    format_data(java, jars, &ready, "format.properties", &[])?;
    // Only a gain: without it Kafka starts all the same.
    if let Err(error) = archive_classes(java, jars, &ready) {
        progress(&format!("Kafka: no class archive, starts take longer ({error:#})"));
    }
    fs::rename(&ready, &folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}

/// An archive fits one build of Java alone (a wrong one is ignored by it, only slower).
fn archive_key(java: &Path) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let real = java.canonicalize().unwrap_or_else(|_| java.to_owned());
    let changed = fs::metadata(&real).and_then(|m| m.modified()).ok();
    let mut hasher = DefaultHasher::new();
    (real, changed, JVM).hash(&mut hasher);
    format!("{:08x}", hasher.finish() & 0xffff_ffff)
}

/// Formats the data folder that a configuration names; it and the log's lie in `folder`.
fn format_data(
    java: &Path,
    jars: &Path,
    folder: &Path,
    properties: &str,
    more: &[String],
) -> Result<()> {
    let output = Command::new(java)
        .args(JVM)
        .arg(log_option(folder))
        .args(class_path(jars))
        .args(["kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER_ID, "--config"])
        .arg(folder.join(properties))
        .args(more)
        .stdin(Stdio::null())
        .output()
        .context("run Kafka's storage tool")?;
    if !output.status.success() {
        bail!("Kafka could not format its folder: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Starts a broker once and has Java write down the classes it loaded.
fn archive_classes(java: &Path, jars: &Path, folder: &Path) -> Result<()> {
    const STARTED: &str = "Kafka Server started";
    let data = folder.join("archive-run");
    fs::create_dir(&data)?;
    for file in FORMATTED_FILES {
        fs::copy(folder.join(file), data.join(file))?;
    }
    let properties = folder.join("archive-run.properties");
    fs::write(&properties, configuration(free_port(), free_port(), &data, None))?;
    let log = File::create(folder.join("archive-run.log"))?;
    let launch = Launch {
        program: java,
        user: None,
        last_signal: LastSignal::Kill,
        output: Output::File(log),
        with_stdin: false,
    };
    let archive = format!("-XX:ArchiveClassesAtExit={}", folder.join(ARCHIVE).display());
    let process = Process::start(launch, |command| {
        command.args(JVM).arg(archive).arg(log_option(folder)).args(class_path(jars));
        command.arg("kafka.Kafka").arg(&properties);
    })?;
    let finished = tokio::runtime::Handle::current().block_on(async {
        eventually("started Kafka", READY_BOUND, || async {
            let log = fs::read_to_string(folder.join("archive-run.log"))?;
            Ok((log.contains(STARTED) || process.exit_status().is_some()).then_some(()))
        })
        .await?;
        let (_, by_itself) = process.stop(Signal::TERM, STOP_BOUND * 3).await;
        anyhow::Ok(by_itself)
    })?;
    fs::remove_dir_all(&data)?;
    if !finished || !folder.join(ARCHIVE).is_file() {
        bail!("Java did not write it");
    }
    Ok(())
}
