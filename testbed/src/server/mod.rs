//! The real servers: found or fetched, prepared in a data folder of their own, started, stopped, killed, started again.

mod connect;
mod identity_provider;
mod kafka;
mod kafka_listeners;
mod kafka_security;
mod life;
mod mysql;
mod postgres;
mod tls;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::config::Settings;
pub use crate::fetch::Progress;
use crate::guard::User;
use crate::name::free_port;
pub use connect::{Connect, ConnectOptions};
pub use identity_provider::{IdentityProvider, TokenClient};
pub use kafka::Kafka;
pub use kafka_listeners::Listener;
pub use kafka_security::{KafkaSecurity, client_keystore};
pub use mysql::MySql;
pub(crate) use mysql::create_database as create_mysql_database;
pub(crate) use postgres::create_database as create_postgres_database;
pub use postgres::{Backup, Postgres, STANDBY};
/// For [`Kafka::signal`] and the others.
pub use rustix::process::Signal;
pub use tls::{Authority, Identity};

/// A server on a busy machine with two cores took 9 s; a fetch is not counted.
const READY_BOUND: Duration = Duration::from_secs(120);

/// A stop in order; what takes longer is killed.
const STOP_BOUND: Duration = Duration::from_secs(20);

/// Log configuration of what runs on Java.
const LOG_CONFIGURATION: &str = include_str!("../../servers/log4j2.properties");

/// How to set up a server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Port on 127.0.0.1.
    pub port: u16,
    /// Whether a commit waits for the disk (as in production). Tests turn it off; their data does not survive a crash
    /// of the machine, which nobody asks for. It does survive a kill of the server.
    pub durable: bool,
    /// The server's certificate: a database then takes connections with and without TLS.
    pub tls: Option<Identity>,
}

impl Options {
    /// For tests: a free port, no waiting for disks.
    #[must_use]
    pub fn for_tests() -> Self {
        Self { port: free_port(), durable: false, tls: None }
    }
}

/// A folder for the data and logs of one run. It goes when the last server in it is dropped, unless it is kept.
#[derive(Clone)]
pub struct RunFolder {
    path: PathBuf,
    /// Locked while we live, so that a later run knows what a killed one left behind.
    _lock: Arc<File>,
    _remove: Option<Arc<TempDir>>,
}

const FOLDER_PREFIX: &str = "outbox-testbed-";
const LOCK_FILE: &str = "in-use.lock";

impl RunFolder {
    /// Creates the folder below the system's folder for temporary files, and removes those of runs that were killed.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(settings: &Settings, keep: bool) -> Result<Self> {
        remove_abandoned(&settings.temp);
        let folder = tempfile::Builder::new()
            .prefix(FOLDER_PREFIX)
            // Servers that run as another user must be able to pass through.
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir_in(&settings.temp)
            .with_context(|| format!("create a folder in {}", settings.temp.display()))?;
        let lock = File::create(folder.path().join(LOCK_FILE)).context("create the lock file")?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .context("lock the run's folder")?;
        let path = folder.path().to_owned();
        let remove = if keep {
            File::create(folder.keep().join(KEPT_FILE)).context("mark the folder as kept")?;
            None
        } else {
            Some(Arc::new(folder))
        };
        Ok(Self { path, _lock: Arc::new(lock), _remove: remove })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates a folder in it that belongs to `user`.
    fn subfolder(&self, name: &str, user: Option<User>) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        if let Some(user) = user {
            ensure_reachable(&self.path, "TMPDIR")?;
            std::os::unix::fs::chown(&path, Some(user.uid), Some(user.gid))
                .with_context(|| format!("give {} away", path.display()))?;
        }
        Ok(path)
    }

    fn log_file(&self, server: &str) -> Result<(PathBuf, File)> {
        let path = self.path.join(format!("{server}.log"));
        let file = File::options().create(true).append(true).open(&path);
        Ok((path.clone(), file.with_context(|| format!("create {}", path.display()))?))
    }
}

/// Folders of runs whose process was killed: their lock is free, or gone already where it died while it removed them.
fn remove_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(FOLDER_PREFIX) {
            continue;
        }
        let path = entry.path();
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|m| m.elapsed().ok());
        if path.join(KEPT_FILE).exists() || age.is_none_or(|age| age < ABANDONED_AGE_MIN) {
            continue;
        }
        let in_use = File::open(path.join(LOCK_FILE)).is_ok_and(|lock| {
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err()
        });
        if !in_use {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// A younger folder may be about to be locked by the process that has just created it.
const ABANDONED_AGE_MIN: Duration = Duration::from_secs(60);

/// In a folder that the user asked to keep.
const KEPT_FILE: &str = "kept";

/// The user that a database server runs as: PostgreSQL refuses root and MySQL warns, so as root it is its customary
/// user, or `nobody`; else it is us.
fn unprivileged_user(customary: &str) -> Option<User> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |name: &str| {
        let line = users.lines().find(|l| l.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some(User { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    };
    // 65534 is nobody on every Linux we know; a number without a name will do for both servers.
    find(customary).or_else(|| find("nobody")).or(Some(User { uid: 65534, gid: 65534 }))
}

/// Whether a user who is not the owner can pass through each folder above (and into) this one.
fn ensure_reachable(folder: &Path, variable: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    for ancestor in folder.ancestors() {
        let mode = fs::metadata(ancestor).map(|m| m.permissions().mode()).unwrap_or(0o777);
        if mode & 0o001 == 0 {
            bail!(
                "running as root, the database servers run as an unprivileged user, who cannot pass through {}; \
                 set {variable} to a folder that everyone may pass through",
                ancestor.display()
            );
        }
    }
    Ok(())
}

/// The last lines of a server's log, for an error message.
fn log_tail(path: &Path) -> String {
    const LINES_SHOWN: usize = 15;
    let text = fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LINES_SHOWN);
    format!("log {}:\n  {}", path.display(), lines[from..].join("\n  "))
}

/// The three servers as one set.
pub struct ServerSet {
    pub postgres: Postgres,
    pub mysql: MySql,
    pub kafka: Kafka,
}

/// Options of each server of a set.
pub struct SetOptions {
    pub postgres: Options,
    pub mysql: Options,
    pub kafka: Options,
}

impl SetOptions {
    /// For tests: free ports, no waiting for disks.
    #[must_use]
    pub fn for_tests() -> Self {
        Self {
            postgres: Options::for_tests(),
            mysql: Options::for_tests(),
            kafka: Options::for_tests(),
        }
    }
}

impl ServerSet {
    /// Finds or fetches, prepares and starts all three, at the same time. Each has answered when this returns.
    ///
    /// # Errors
    /// When one cannot be found, fetched or started. Those that were started are stopped.
    pub async fn start(
        settings: &Settings,
        folder: &RunFolder,
        options: SetOptions,
        progress: &Progress,
    ) -> Result<Self> {
        let (postgres, mysql, kafka) = tokio::try_join!(
            Postgres::start(settings, folder, options.postgres, progress),
            MySql::start(settings, folder, options.mysql, progress),
            Kafka::start(settings, folder, options.kafka, progress),
        )?;
        Ok(Self { postgres, mysql, kafka })
    }

    /// Stops all three in order, at the same time, within a bound.
    pub async fn stop(&mut self) {
        tokio::join!(self.kafka.stop(), self.postgres.stop(), self.mysql.stop());
    }
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn only_old_folders_that_nobody_holds_or_keeps_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let old = SystemTime::now() - ABANDONED_AGE_MIN * 2;
        let folder = |name: &str, files: &[&str], is_old: bool| {
            let path = parent.path().join(format!("{FOLDER_PREFIX}{name}"));
            fs::create_dir(&path).unwrap();
            files.iter().for_each(|file| drop(File::create(path.join(file)).unwrap()));
            if is_old {
                let times = FileTimes::new().set_modified(old);
                File::open(&path).unwrap().set_times(times).unwrap();
            }
            path
        };
        let killed = folder("killed", &[LOCK_FILE], true);
        let half_removed = folder("half", &[], true);
        let running = folder("running", &[LOCK_FILE], true);
        let kept = folder("kept", &[LOCK_FILE, KEPT_FILE], true);
        let young = folder("young", &[LOCK_FILE], false);
        let lock = File::open(running.join(LOCK_FILE)).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        remove_abandoned(parent.path());
        assert!(!killed.exists() && !half_removed.exists());
        assert!(running.exists() && kept.exists() && young.exists());
    }
}
