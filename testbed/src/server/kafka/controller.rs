//! A controller in a process of its own, as production clusters have it: a broker that dies is known to be dead.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{JVM, READY_BOUND, class_path, format_data, log_option};
use crate::guard::LastSignal;
use crate::process::{Launch, Output, Process};
use crate::server::{LOG_CONFIGURATION, RunFolder};
use crate::wait::eventually;

/// How long a broker may be silent before its partitions have no leader.
const SESSION: Duration = Duration::from_secs(3);
/// Beyond that, for a controller that looks at its sessions from time to time.
const FENCED_BOUND: Duration = Duration::from_secs(30);

const PROPERTIES: &str = "controller.properties";

/// In its log, when it leads the quorum.
const LEADS: &str = "Performing controller activation";
/// In the line of a broker that it has fenced, of one that has registered itself (fenced until it has caught up), and of
/// one that may lead partitions from then on.
const FENCED: &str = "fenced=1,";
const REGISTERED: &str = "fenced=true";
const UNFENCED: &str = "fenced=-1,";

/// Dropping it kills it.
pub(super) struct Controller {
    log: PathBuf,
    /// How often it had fenced the broker when that was killed or frozen.
    fenced: Option<usize>,
    process: Process,
}

impl Controller {
    /// Starts one on `port`; returns when it leads the quorum.
    pub(super) async fn start(
        (java, jars): (&Path, &Path),
        folder: &RunFolder,
        port: u16,
    ) -> Result<Self> {
        let home = folder.subfolder("kafka-controller", None)?;
        let data = home.join("data");
        fs::create_dir(&data).context("create the controller's data folder")?;
        fs::write(home.join("log4j2.properties"), LOG_CONFIGURATION)?;
        fs::write(home.join(PROPERTIES), properties(port, &data))?;
        format_data(java, jars, &home, PROPERTIES, &[])?;
        let (log, output) = folder.log_file("kafka-controller")?;
        let launch = Launch {
            program: java,
            user: None,
            last_signal: LastSignal::Kill,
            output: Output::File(output),
            with_stdin: false,
        };
        let process = Process::start(launch, |command| {
            command.args(JVM).arg(log_option(&home)).args(class_path(jars));
            command.arg("kafka.Kafka").arg(home.join(PROPERTIES));
        })?;
        eventually("a controller that leads", READY_BOUND, || async {
            let said = fs::read_to_string(&log)?;
            ensure!(process.exit_status().is_none(), "it ended: {said}");
            Ok(said.contains(LEADS).then_some(()))
        })
        .await?;
        Ok(Self { log, fenced: None, process })
    }

    /// How it ended, if it did.
    pub(super) fn exit_status(&self) -> Option<ExitStatus> {
        self.process.exit_status()
    }

    /// To be called before the broker is killed or frozen.
    pub(super) fn note_fenced(&mut self) {
        // More often than a log that cannot be read it cannot be: the wait will fail, and say why.
        self.fenced = Some(self.times_fenced().unwrap_or(usize::MAX));
    }

    /// After that, waits until the broker is known to be dead.
    pub(super) async fn until_fenced(&mut self) -> Result<()> {
        let Some(before) = self.fenced.take() else { return Ok(()) };
        eventually("a fenced broker", FENCED_BOUND, || async {
            Ok((self.times_fenced()? > before).then_some(()))
        })
        .await
    }

    /// Waits until the broker may lead partitions.
    pub(super) async fn until_unfenced(&self) -> Result<()> {
        eventually("a broker that is not fenced", FENCED_BOUND, || async {
            let said = fs::read_to_string(&self.log)?;
            let last = |mark| said.rfind(mark);
            let leads = last(UNFENCED) > last(FENCED).max(last(REGISTERED));
            Ok(leads.then_some(()))
        })
        .await
    }

    fn times_fenced(&self) -> Result<usize> {
        Ok(fs::read_to_string(&self.log)?.matches(FENCED).count())
    }
}

fn properties(port: u16, data: &Path) -> String {
    format!(
        "process.roles=controller\nnode.id=2\n\
         controller.quorum.voters={}\n\
         listeners=CONTROLLER://127.0.0.1:{port}\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT\n\
         broker.session.timeout.ms={}\nlog.dirs={}\n",
        voters(port),
        SESSION.as_millis(),
        data.display()
    )
}

fn voters(port: u16) -> String {
    format!("2@127.0.0.1:{port}")
}

/// What a broker says otherwise that is no controller itself: of two lines of one name the later counts.
pub(super) fn of_broker(port: u16) -> String {
    format!(
        "process.roles=broker\ncontroller.quorum.voters={}\nbroker.heartbeat.interval.ms=500\n",
        voters(port)
    )
}
