//! The MySQL-compatible server: MySQL or MariaDB where installed, else MariaDB from Maven.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use sqlx::{Connection as _, MySqlConnection};

use super::life::Life;
use super::{Options, RunFolder, ensure_reachable, tls, unprivileged_user};
use crate::config::{ServerChoice, Settings, is_program};
use crate::database::{MySqlDatabase, mysql_options, statement};
use crate::fetch::{Form, Package, Progress, fetch, version_line};
use crate::guard::{LastSignal, User};
use crate::name::unique_name;
use crate::process::{Launch, Output, Process};

const ADMIN: &str = "testbed_admin";

static MARIADB: Package = Package {
    title: "MariaDB",
    profile: "mariadb-amd64",
    version_property: "mariadb",
    form: Form::Archive,
    megabytes: 149,
    install_hint: "or install MariaDB itself, e.g. with: apt-get install mariadb-server",
};

/// A MySQL or MariaDB server of our own. Dropping it kills it.
pub struct MySql {
    program: PathBuf,
    is_mariadb: bool,
    data: PathBuf,
    temporary: PathBuf,
    folder: RunFolder,
    user: Option<User>,
    options: Options,
    admin: MySqlDatabase,
    version: String,
    life: Life,
}

impl MySql {
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
        let program = {
            let (settings, progress) = (settings.clone(), Progress::clone(progress));
            tokio::task::spawn_blocking(move || find(&settings, &progress)).await??
        };
        let version = version_line(&program).context(
            "the database server lacks a library; install one with: apt-get install mariadb-server",
        )?;
        let user = unprivileged_user("mysql");
        if user.is_some() {
            ensure_reachable(program.parent().unwrap_or(&program), "TESTBED_CACHE")?;
        }
        let data = folder.subfolder("mysql", user)?;
        let temporary = folder.subfolder("mysql-tmp", user)?;
        let (log, _) = folder.log_file("mysql")?;
        let admin = MySqlDatabase {
            host: "127.0.0.1".to_owned(),
            port: options.port,
            user: ADMIN.to_owned(),
            password: unique_name("pw"),
            name: "mysql".to_owned(),
        };
        let is_mariadb = version.contains("MariaDB");
        let version = short_version(&version);
        let folder = folder.clone();
        let mut server = Self {
            program,
            is_mariadb,
            data,
            temporary,
            folder,
            user,
            options,
            admin,
            version,
            life: Life::new("the MySQL server", log),
        };
        server.initialise().await?;
        server.restart().await?;
        Ok(server)
    }

    /// Starts the server (again) on its data and port.
    ///
    /// # Errors
    /// When it does not answer within a bound.
    pub async fn restart(&mut self) -> Result<()> {
        let mut arguments = self.common_arguments();
        arguments.extend(
            [
                format!("--port={}", self.options.port),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--socket={}", self.data.join("s").display()),
                format!("--pid-file={}", self.data.join("pid").display()),
                format!("--init-file={}", self.data.join("init.sql").display()),
                "--skip-name-resolve".to_owned(),
                "--skip-log-bin".to_owned(),
                "--max-connections=500".to_owned(),
                "--character-set-server=utf8mb4".to_owned(),
            ]
            .map(OsString::from),
        );
        if !self.is_mariadb {
            arguments.push("--mysqlx=OFF".into());
        }
        if let Some(identity) = &self.options.tls {
            let files = tls::write(identity, &self.data, self.user)?;
            arguments.push(format!("--ssl-cert={}", files.certificate.display()).into());
            arguments.push(format!("--ssl-key={}", files.key.display()).into());
            arguments.push(format!("--ssl-ca={}", files.authority.display()).into());
        }
        let (_, log) = self.folder.log_file("mysql")?;
        let process = self.launch(Output::File(log), false, &arguments)?;
        let options = mysql_options(&self.admin);
        let ask = || {
            let options = options.clone();
            async move {
                MySqlConnection::connect_with(&options).await?.close().await?;
                Ok(true)
            }
        };
        self.life.begin(process, ask).await
    }

    /// Normal shutdown.
    pub async fn stop(&mut self) {
        self.life.stop(Signal::TERM).await;
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        self.life.kill().await;
    }

    /// The administrator, in the server's own schema.
    #[must_use]
    pub fn admin(&self) -> &MySqlDatabase {
        &self.admin
    }

    /// What the server says it is.
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

    /// Creates a user and a schema, the only one that this user may use.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn create_database(
        &self,
        name: &str,
        user: &str,
        password: &str,
    ) -> Result<MySqlDatabase> {
        create_database(&self.admin, name, user, password).await
    }

    /// Creates the system tables and writes the file that creates the administrator at each start.
    async fn initialise(&self) -> Result<()> {
        let mut arguments = self.common_arguments();
        let system_tables = if self.is_mariadb {
            arguments.extend(
                [
                    "--bootstrap",
                    "--log-warnings=0",
                    "--enforce-storage-engine=",
                    "--max-allowed-packet=8M",
                ]
                .map(OsString::from),
            );
            mariadb_system_tables(&self.share()?)?
        } else {
            arguments.push("--initialize-insecure".into());
            String::new()
        };
        let (_, log) = self.folder.log_file("mysql")?;
        let mut process = self.launch(Output::File(log), true, &arguments)?;
        let stdin = process.stdin.take();
        let written = tokio::task::spawn_blocking(move || match stdin {
            Some(mut stdin) => stdin.write_all(system_tables.as_bytes()),
            None => Ok(()),
        });
        let status = process.wait().await;
        if !status.success() {
            bail!("the system tables could not be created: {status}\n{}", self.life.log_tail());
        }
        written.await?.context("hand the system tables over")?;
        let sql = format!(
            "create user if not exists '{ADMIN}'@'%' identified by '{}';\n\
             grant all on *.* to '{ADMIN}'@'%' with grant option;\n",
            self.admin.password
        );
        fs::write(self.data.join("init.sql"), sql).context("write init.sql")
    }

    fn common_arguments(&self) -> Vec<OsString> {
        let mut arguments = vec![
            OsString::from("--no-defaults"),
            format!("--datadir={}", self.data.display()).into(),
            // A server that starts removes what others have left in its folder for temporary files: in a shared one
            // it removes the files of servers that run.
            format!("--tmpdir={}", self.temporary.display()).into(),
            "--innodb-buffer-pool-size=64M".into(),
        ];
        if !self.options.durable {
            arguments.push("--innodb-flush-log-at-trx-commit=2".into());
        }
        if self.is_mariadb {
            arguments.push("--innodb-log-file-size=32M".into());
            if self.options.tls.is_none() {
                // Else each start makes itself a key and a certificate, which takes five seconds of CPU.
                arguments.push("--ssl=OFF".into());
            }
            if let Ok(share) = self.share() {
                arguments.push(format!("--lc-messages-dir={}", share.display()).into());
                arguments.push(
                    format!("--character-sets-dir={}", share.join("charsets").display()).into(),
                );
            }
        }
        arguments
    }

    /// MariaDB's folder with the SQL of its system tables: beside the program, or where distributions put it.
    fn share(&self) -> Result<PathBuf> {
        let base = self.program.ancestors().nth(2).unwrap_or(Path::new("/usr"));
        let candidates = ["share", "share/mariadb", "share/mysql"].map(|folder| base.join(folder));
        let found = candidates
            .into_iter()
            .find(|folder| SYSTEM_TABLES[0].iter().any(|name| folder.join(name).is_file()));
        found.with_context(|| format!("no system tables of MariaDB below {}", base.display()))
    }

    fn launch(&self, output: Output, with_stdin: bool, arguments: &[OsString]) -> Result<Process> {
        let launch = Launch {
            program: &self.program,
            user: self.user,
            last_signal: LastSignal::Kill,
            output,
            with_stdin,
        };
        Process::start(launch, |command| {
            command.args(arguments).current_dir("/");
        })
    }
}

/// The parts of MariaDB's own installation script that matter here, each under its new and its old name.
const SYSTEM_TABLES: [[&str; 2]; 3] = [
    ["mariadb_system_tables.sql", "mysql_system_tables.sql"],
    ["mariadb_performance_tables.sql", "mysql_performance_tables.sql"],
    ["mariadb_system_tables_data.sql", "mysql_system_tables_data.sql"],
];

fn mariadb_system_tables(share: &Path) -> Result<String> {
    let mut sql = "create database if not exists mysql;\nuse mysql;\nset @auth_root_socket=null;\n"
        .to_owned();
    for names in SYSTEM_TABLES {
        let text = names.iter().find_map(|name| fs::read_to_string(share.join(name)).ok());
        let text =
            text.with_context(|| format!("{} is missing", share.join(names[0]).display()))?;
        // As the installation script does: nothing that depends on this machine's name.
        for line in text.lines().filter(|line| !line.contains("@current_hostname")) {
            sql.push_str(line);
            sql.push('\n');
        }
    }
    Ok(sql)
}

/// `/usr/sbin/mariadbd  Ver 11.4.5-MariaDB for linux-systemd on x86_64 (MariaDB Server)` is `11.4.5-MariaDB`.
fn short_version(line: &str) -> String {
    let number = line.split_whitespace().skip_while(|word| *word != "Ver").nth(1);
    number.unwrap_or(line).to_owned()
}

/// The server program. Blocks while fetching.
fn find(settings: &Settings, progress: &Progress) -> Result<PathBuf> {
    match &settings.mysql {
        ServerChoice::At(program) if is_program(program) => return Ok(program.clone()),
        ServerChoice::At(program) => bail!("TESTBED_MYSQL: {} is no program", program.display()),
        ServerChoice::Any => {
            let in_system = ["/usr/sbin/mariadbd", "/usr/sbin/mysqld"].map(PathBuf::from);
            let in_path =
                ["mariadbd", "mysqld"].into_iter().filter_map(|n| settings.find_in_path(n));
            let installed = in_path.chain(in_system).find(|program| is_program(program));
            // A link such as mysqld -> mariadbd is followed: the share folder is found from the real place.
            if let Some(program) = installed.and_then(|program| program.canonicalize().ok()) {
                return Ok(program);
            }
        }
        ServerChoice::Maven => {}
    }
    if std::env::consts::ARCH != "x86_64" {
        bail!(
            "Maven has no MariaDB for this processor; {}",
            MARIADB.install_hint.trim_start_matches("or ")
        );
    }
    let folder = fetch(settings, &MARIADB, progress)?;
    find_below(&folder, "mariadbd").context("the MariaDB package holds no mariadbd")
}

fn find_below(folder: &Path, name: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if let Some(found) = find_below(&path, name) {
                return Some(found);
            }
        } else if path.file_name().is_some_and(|n| n == name) {
            return Some(path);
        }
    }
    None
}

/// As [`MySql::create_database`], for whoever knows the administrator.
pub(crate) async fn create_database(
    admin: &MySqlDatabase,
    name: &str,
    user: &str,
    password: &str,
) -> Result<MySqlDatabase> {
    const DEADLINE: Duration = Duration::from_secs(60);
    let create = async {
        let mut connection = MySqlConnection::connect_with(&mysql_options(admin)).await?;
        for sql in [
            format!("create database `{name}` character set utf8mb4"),
            format!("create user '{user}'@'%' identified by '{password}'"),
            format!("grant all on `{name}`.* to '{user}'@'%'"),
        ] {
            sqlx::raw_sql(statement(sql)).execute(&mut connection).await?;
        }
        connection.close().await?;
        anyhow::Ok(())
    };
    let created = tokio::time::timeout(DEADLINE, create).await;
    created
        .context("the MySQL server does not answer")?
        .with_context(|| format!("create schema {name}"))?;
    Ok(MySqlDatabase {
        user: user.to_owned(),
        password: password.to_owned(),
        name: name.to_owned(),
        ..admin.clone()
    })
}
