//! The process that holds the shared servers, and how a test process joins it.
//!
//! A Unix socket in the target folder carries one line each way: the client says which `cargo` it belongs to, the
//! supervisor answers with addresses when the servers are ready. The client keeps its connection; when all connections
//! and all those `cargo` processes have ended, the servers are stopped.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::database::{MySqlDatabase, PostgresDatabase};
use crate::process;

mod serve;

pub use serve::serve;

const SOCKET: &str = "servers.sock";
const START_LOCK: &str = "servers.lock";
const LOG: &str = "servers.log";

/// The supervisor binds its socket before anything else.
const LISTENING_BOUND: Duration = Duration::from_secs(20);

/// Holds the longest fetch on a slow line, too.
const READY_BOUND: Duration = Duration::from_secs(20 * 60);

/// A supervisor that was about to end when we came: then the next one.
const JOIN_ATTEMPTS: usize = 3;

/// A process, told apart from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: u32,
    /// Clock ticks since boot.
    pub start_time: u64,
}

/// Where the servers are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Addresses {
    /// Process id of the supervisor.
    pub supervisor: u32,
    pub(crate) postgres: Login,
    pub(crate) mysql: Login,
    pub bootstrap_servers: String,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Login {
    host: String,
    port: u16,
    user: String,
    password: String,
    name: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:***@{}:{}/{}", self.user, self.host, self.port, self.name)
    }
}

impl Login {
    pub(crate) fn postgres(&self) -> PostgresDatabase {
        let Self { host, port, user, password, name } = self.clone();
        PostgresDatabase { host, port, user, password, name }
    }

    pub(crate) fn mysql(&self) -> MySqlDatabase {
        let Self { host, port, user, password, name } = self.clone();
        MySqlDatabase { host, port, user, password, name }
    }

    fn of_postgres(database: &PostgresDatabase) -> Self {
        let PostgresDatabase { host, port, user, password, name } = database.clone();
        Self { host, port, user, password, name }
    }

    fn of_mysql(database: &MySqlDatabase) -> Self {
        let MySqlDatabase { host, port, user, password, name } = database.clone();
        Self { host, port, user, password, name }
    }
}

/// What a client says first.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    /// The `cargo` that runs the client: the servers stay for its next test binary.
    cargo: Option<ProcessId>,
}

/// What the supervisor answers, a line each; the last is not `Progress`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Reply {
    Progress(String),
    Ready(Box<Addresses>),
    Failed(String),
}

/// A client's hold on the shared servers: they stay while it lives.
#[derive(Debug)]
pub struct Membership {
    _connection: UnixStream,
    pub addresses: Addresses,
}

/// Joins the supervisor whose socket and log are in `folder`, and starts `program` as the supervisor when there is
/// none. Blocks until the servers are ready.
///
/// # Errors
/// When the servers do not start; the supervisor's reason and its log file are in the error.
pub fn join(
    folder: &Path,
    cargo: Option<ProcessId>,
    program: impl Fn() -> Result<PathBuf>,
) -> Result<Membership> {
    for _ in 0..JOIN_ATTEMPTS {
        let connection = connect_or_start(folder, &program)?;
        if let Some(membership) = greet(connection, folder, cargo)? {
            return Ok(membership);
        }
    }
    bail!("the supervisor of the servers keeps ending; see {}", folder.join(LOG).display())
}

/// The nearest `cargo` (or `cargo-nextest`) above this process.
#[must_use]
pub fn cargo_above() -> Option<ProcessId> {
    let mut pid = std::process::id();
    // No process tree of ours is deeper; and the loop must end.
    for _ in 0..64 {
        let stat = process::stat(pid)?;
        if stat.name == "cargo" || stat.name == "cargo-nextest" {
            return Some(ProcessId { pid, start_time: stat.start_time });
        }
        pid = stat.parent;
    }
    None
}

fn connect_or_start(folder: &Path, program: &impl Fn() -> Result<PathBuf>) -> Result<UnixStream> {
    if let Ok(connection) = connect(folder) {
        return Ok(connection);
    }
    let lock = File::create(folder.join(START_LOCK)).context("create the start lock")?;
    flock(&lock, FlockOperation::LockExclusive).context("wait for the start lock")?;
    if let Ok(connection) = connect(folder) {
        return Ok(connection);
    }
    let log_path = folder.join(LOG);
    let log = File::create(&log_path).with_context(|| format!("create {}", log_path.display()))?;
    // In a group of its own: Ctrl-C on the terminal ends the tests, and the supervisor then stops the servers in order.
    let mut child = Command::new(program()?)
        .arg(folder)
        .process_group(0)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start the supervisor of the servers")?;
    let until = Instant::now() + LISTENING_BOUND;
    loop {
        if let Ok(connection) = connect(folder) {
            // Reaped when it ends, should we still be here.
            std::thread::spawn(move || child.wait());
            return Ok(connection);
        }
        if let Some(status) = child.try_wait()? {
            let log = fs::read_to_string(&log_path).unwrap_or_default();
            bail!("the supervisor of the servers ended: {status}\n{log}");
        }
        if Instant::now() > until {
            bail!("the supervisor of the servers does not listen; see {}", log_path.display());
        }
        pause();
    }
}

/// Between two looks at a socket that is about to appear.
fn pause() {
    std::thread::park_timeout(Duration::from_millis(10));
}

/// A socket's path may have 107 bytes at most, a target folder's may have more: so by way of the open folder.
fn connect(folder: &Path) -> Result<UnixStream> {
    let directory = File::open(folder)?;
    Ok(UnixStream::connect(short_path(&directory))?)
}

fn short_path(directory: &File) -> PathBuf {
    Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(SOCKET)
}

/// `None` when the supervisor ended before it answered.
fn greet(
    connection: UnixStream,
    folder: &Path,
    cargo: Option<ProcessId>,
) -> Result<Option<Membership>> {
    let hello = serde_json::to_string(&Hello { cargo })? + "\n";
    if (&connection).write_all(hello.as_bytes()).is_err() {
        return Ok(None);
    }
    connection.set_read_timeout(Some(READY_BOUND))?;
    let log = folder.join(LOG);
    let mut replies = BufReader::new(connection.try_clone()?);
    loop {
        let mut line = String::new();
        match replies.read_line(&mut line) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("no answer about the servers; see {}", log.display())
                });
            }
        }
        match serde_json::from_str(&line).context("the supervisor's answer")? {
            // Not through print macros, which the test harness would swallow: a fetch takes a while.
            Reply::Progress(text) => {
                let _ = writeln!(std::io::stderr(), "testbed: {text}");
            }
            Reply::Ready(addresses) => {
                return Ok(Some(Membership { _connection: connection, addresses: *addresses }));
            }
            Reply::Failed(reason) => {
                bail!("the servers did not start: {reason}\nlog: {}", log.display())
            }
        }
    }
}
