//! PostgreSQL: initdb, start with logical decoding on, stop, kill, start again on the same data.

mod backup;
mod standby;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use sqlx::{Connection as _, PgConnection};

use super::life::Life;
use super::{Options, RunFolder, STOP_BOUND, ensure_reachable, tls, unprivileged_user};
use crate::config::{ServerChoice, Settings, is_program};
use crate::database::{PostgresDatabase, postgres_options, statement};
use crate::fetch::{Form, Package, Progress, fetch, version_line};
use crate::guard::{LastSignal, User};
use crate::name::unique_name;
use crate::process::{self, Launch, Output, Process};
use crate::wait::eventually;

pub use self::backup::Backup;
pub use self::standby::STANDBY;

/// Older servers lack parts of pgoutput that the relay asks for.
const VERSION_MIN: u32 = 14;

const ADMIN: &str = "testbed_admin";

/// A PostgreSQL server of our own. Dropping it kills it.
pub struct Postgres {
    bin: PathBuf,
    data: PathBuf,
    folder: RunFolder,
    user: Option<User>,
    options: Options,
    admin: PostgresDatabase,
    version: String,
    life: Life,
}

impl Postgres {
    /// Prepares a data folder and starts the server; it has answered when this returns.
    ///
    /// # Errors
    /// When no server is found or it does not start; its last log lines are in the error.
    pub async fn start(
        settings: &Settings,
        folder: &RunFolder,
        options: Options,
        progress: &Progress,
    ) -> Result<Self> {
        let bin = {
            let (settings, progress) = (settings.clone(), Progress::clone(progress));
            tokio::task::spawn_blocking(move || find(&settings, &progress)).await??
        };
        let version = version_line(&bin.join("postgres"))?;
        let version = version.trim_start_matches("postgres ").replace(['(', ')'], "");
        let user = unprivileged_user("postgres");
        if user.is_some() {
            ensure_reachable(&bin, "TESTBED_CACHE")?;
        }
        let data = folder.subfolder("postgres", user)?;
        let (log, _) = folder.log_file("postgres")?;
        let admin = PostgresDatabase {
            host: "127.0.0.1".to_owned(),
            port: options.port,
            user: ADMIN.to_owned(),
            password: unique_name("pw"),
            name: "postgres".to_owned(),
        };
        let folder = folder.clone();
        let life = Life::new("PostgreSQL", log);
        let mut server = Self { bin, data, folder, user, options, admin, version, life };
        server.initialise().await?;
        server.restart().await?;
        Ok(server)
    }

    /// Starts the server (again) on its data and port.
    ///
    /// # Errors
    /// When it does not answer within a bound.
    pub async fn restart(&mut self) -> Result<()> {
        let (_, log) = self.folder.log_file("postgres")?;
        let process =
            self.launch("postgres", Output::File(log), &["-D".as_ref(), self.data.as_os_str()])?;
        let options = postgres_options(&self.admin);
        let ask = || {
            let options = options.clone();
            async move {
                PgConnection::connect_with(&options).await?.close().await?;
                Ok(true)
            }
        };
        self.life.begin(process, ask).await
    }

    /// Fast shutdown: sessions are ended, the WAL is flushed.
    pub async fn stop(&mut self) {
        self.life.stop(Signal::INT).await;
    }

    /// `kill -9` of the server process. Its children notice and go; the next start needs their shared memory back, so
    /// this returns when they have gone, too.
    pub async fn kill(&mut self) {
        let children = self.life.pid().map(process::children).unwrap_or_default();
        self.life.kill().await;
        let gone = eventually("end of PostgreSQL's children", STOP_BOUND, || async {
            Ok(children.iter().all(|child| process::stat(*child).is_none()).then_some(()))
        });
        // A child that stays makes the next start fail with PostgreSQL's own words.
        let _ = gone.await;
    }

    /// The maintenance database, as superuser.
    #[must_use]
    pub fn admin(&self) -> &PostgresDatabase {
        &self.admin
    }

    /// What the server says it is, e.g. `PostgreSQL 17.11`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.life.pid()
    }

    /// How it ended, if it did so without being stopped.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.life.exit_status()
    }

    async fn initialise(&self) -> Result<()> {
        let password_file = self.data.join("password");
        fs::write(&password_file, &self.admin.password).context("write the password file")?;
        if let Some(user) = self.user {
            std::os::unix::fs::chown(&password_file, Some(user.uid), Some(user.gid))?;
        }
        // initdb wants an empty folder.
        let password_outside = self.folder.path().join("postgres.password");
        fs::rename(&password_file, &password_outside)?;
        let (_, log) = self.folder.log_file("postgres")?;
        let pwfile = format!("--pwfile={}", password_outside.display());
        let arguments = [
            "-D".as_ref(),
            self.data.as_os_str(),
            "--username".as_ref(),
            ADMIN.as_ref(),
            pwfile.as_ref(),
            "--auth=scram-sha-256".as_ref(),
            "--encoding=UTF8".as_ref(),
            "--locale=C".as_ref(),
            "--no-sync".as_ref(),
            "--no-instructions".as_ref(),
        ];
        let status = self.launch("initdb", Output::File(log), &arguments)?.wait().await;
        fs::remove_file(&password_outside).context("remove the password file")?;
        if !status.success() {
            bail!("initdb failed: {status}\n{}", self.life.log_tail());
        }
        let mut configuration = fs::read_to_string(self.data.join("postgresql.conf"))?;
        configuration.push_str(&self.configuration());
        if let Some(identity) = &self.options.tls {
            let files = tls::write(identity, &self.data, self.user)?;
            let settings = format!(
                "ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\nssl_ca_file = '{}'\n",
                files.certificate.display(),
                files.key.display(),
                files.authority.display()
            );
            configuration.push_str(&settings);
        }
        fs::write(self.data.join("postgresql.conf"), configuration).context("postgresql.conf")?;
        Ok(())
    }

    fn configuration(&self) -> String {
        let on_off = if self.options.durable { "on" } else { "off" };
        format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = ''\n\
             wal_level = logical\nmax_replication_slots = 200\nmax_wal_senders = 200\n\
             max_connections = 500\nmax_wal_size = 4GB\nshared_buffers = 256MB\n\
             fsync = {on_off}\nfull_page_writes = {on_off}\n\
             log_min_messages = warning\nlog_line_prefix = '%m [%p] %q%u@%d '\n",
            self.options.port
        )
    }

    fn launch(
        &self,
        program: &str,
        output: Output,
        arguments: &[&std::ffi::OsStr],
    ) -> Result<Process> {
        let launch = Launch {
            program: &self.bin.join(program),
            user: self.user,
            last_signal: LastSignal::Quit,
            output,
            with_stdin: false,
        };
        Process::start(launch, |command| {
            // A folder that the server's user can enter.
            command.args(arguments).current_dir("/").env("LC_ALL", "C");
        })
    }
}

/// The folder with `initdb` and `postgres`. Blocks while fetching.
fn find(settings: &Settings, progress: &Progress) -> Result<PathBuf> {
    match &settings.postgres {
        ServerChoice::At(folder) => {
            let bin = if folder.join("bin").is_dir() { folder.join("bin") } else { folder.clone() };
            if !is_program(&bin.join("initdb")) {
                bail!("TESTBED_POSTGRES: {} holds no initdb", bin.display());
            }
            return Ok(bin);
        }
        ServerChoice::Any => {
            if let Some(bin) = installed(settings) {
                return Ok(bin);
            }
        }
        ServerChoice::Maven => {}
    }
    Ok(fetch(settings, package()?, progress)?.join("bin"))
}

fn package() -> Result<&'static Package> {
    const HINT: &str = "or install PostgreSQL itself, e.g. with: apt-get install postgresql";
    const fn package(profile: &'static str) -> Package {
        Package {
            title: "PostgreSQL",
            profile,
            version_property: "postgres",
            form: Form::XzInArchive,
            megabytes: 15,
            install_hint: HINT,
        }
    }
    static AMD64: Package = package("postgres-amd64");
    static ARM64: Package = package("postgres-arm64");
    match std::env::consts::ARCH {
        "x86_64" => Ok(&AMD64),
        "aarch64" => Ok(&ARM64),
        other => bail!("no PostgreSQL to fetch for {other}; {HINT}"),
    }
}

/// The newest installed server that is new enough.
fn installed(settings: &Settings) -> Option<PathBuf> {
    let versioned = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let versioned = versioned.map(|entry| entry.path().join("bin"));
    let candidates = settings.path.iter().cloned().chain(versioned);
    candidates
        .filter(|bin| is_program(&bin.join("initdb")) && is_program(&bin.join("postgres")))
        .filter_map(|bin| Some((major_version(&bin.join("postgres"))?, bin)))
        .filter(|(version, _)| *version >= VERSION_MIN)
        .max_by_key(|(version, _)| *version)
        .map(|(_, bin)| bin)
}

/// `postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)` is 15.
fn major_version(postgres: &Path) -> Option<u32> {
    let line = version_line(postgres).ok()?;
    line.split_whitespace().find_map(|word| word.split('.').next()?.parse().ok())
}

impl Postgres {
    /// Creates a role that may log in and replicate, and a database that it owns.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn create_database(
        &self,
        name: &str,
        user: &str,
        password: &str,
    ) -> Result<PostgresDatabase> {
        create_database(&self.admin, name, user, password).await
    }

    /// Makes a role a superuser, as the one is that PostgreSQL's image creates: Debezium's default publication is
    /// for all tables, which nobody else may create.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn make_superuser(&self, user: &str) -> Result<()> {
        let mut connection = PgConnection::connect_with(&postgres_options(&self.admin)).await?;
        let sql = statement(format!("alter role \"{user}\" superuser"));
        sqlx::raw_sql(sql).execute(&mut connection).await.context("alter the role")?;
        Ok(connection.close().await?)
    }
}

/// As [`Postgres::create_database`], for whoever knows the administrator.
pub(crate) async fn create_database(
    admin: &PostgresDatabase,
    name: &str,
    user: &str,
    password: &str,
) -> Result<PostgresDatabase> {
    const DEADLINE: Duration = Duration::from_secs(60);
    let create = async {
        let mut connection = PgConnection::connect_with(&postgres_options(admin)).await?;
        let role = format!("create role \"{user}\" login replication password '{password}'");
        sqlx::raw_sql(statement(role)).execute(&mut connection).await?;
        let database = format!("create database \"{name}\" owner \"{user}\" template template0");
        sqlx::raw_sql(statement(database)).execute(&mut connection).await?;
        connection.close().await?;
        anyhow::Ok(())
    };
    let created = tokio::time::timeout(DEADLINE, create).await;
    created
        .context("PostgreSQL does not answer")?
        .with_context(|| format!("create database {name}"))?;
    Ok(PostgresDatabase {
        user: user.to_owned(),
        password: password.to_owned(),
        name: name.to_owned(),
        ..admin.clone()
    })
}
