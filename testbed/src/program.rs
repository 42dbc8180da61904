//! Our own programs: built, found and started as children.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use crate::config::Settings;
use crate::guard::{self, LastSignal};
use crate::process::{self, Launch, Output, Process};
use crate::wait::eventually;

/// The program that supervises the shared servers, and that serves as guard for test binaries.
pub(crate) const SUPERVISOR: &str = "testbed-servers";

/// Our programs drain within less (their own bound is 10 s or below); a stop that takes longer is a defect.
const STOP_BOUND: Duration = Duration::from_secs(15);

/// Lines kept of what a program printed: more than a test looks at, and a flow that stays up for days does not grow.
const LINES_MAX: usize = 20_000;

/// Process id of the `cargo` that builds just now.
static BUILDING: Mutex<Option<u32>> = Mutex::new(None);

static BUILT: LazyLock<Mutex<HashMap<String, ()>>> = LazyLock::new(Mutex::default);

/// Builds a program of this workspace (once per process; nothing happens when it is fresh) and returns its path.
/// `name` is the name of the binary: `relay`, `order-service`, `shipment-service`, `demo`...
///
/// # Errors
/// When it does not compile; the compiler's words are on standard error.
pub fn program(name: &str) -> Result<PathBuf> {
    let package = match name {
        "chaos" | "demo" | "measure" | SUPERVISOR => "testbed",
        other => other,
    };
    let path = program_folder()?.join(name);
    // Held while building: the next caller finds it built.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if !built.contains_key(package) {
        if !is_fresh(&path) {
            build_programs(&[package], true)?;
        }
        built.insert(package.to_owned(), ());
    }
    if !path.is_file() {
        bail!("the package {package} has no program {name}");
    }
    Ok(path)
}

/// Whether the program is newer than all it was made of, as its dep-info file (written by cargo) lists it.
///
/// `cargo test` has just built the programs of the packages that it tests. To ask cargo once more, for one package, could
/// compile that package's dependencies again: cargo unites features over the packages that it is asked for.
fn is_fresh(program: &Path) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    let Some(built) = changed(program) else { return false };
    let Ok(rule) = std::fs::read_to_string(program.with_extension("d")) else { return false };
    let Some((_, sources)) = rule.split_once(": ") else { return false };
    // A space in a path is written with a backslash before it.
    let sources = sources.trim().replace("\\ ", "\0");
    let sources = sources.split_whitespace().map(|path| PathBuf::from(path.replace('\0', " ")));
    sources
        .chain([workspace().join("Cargo.toml"), workspace().join("Cargo.lock")])
        .all(|source| changed(&source).is_some_and(|time| time <= built))
}

/// Builds the programs of these packages in the profile of the running program, with cargo's progress on standard
/// error unless `quiet`.
///
/// # Errors
/// When one does not compile.
pub fn build_programs(packages: &[&str], quiet: bool) -> Result<()> {
    let folder = program_folder()?;
    let mut command = cargo()?;
    command.arg("build").arg("--bins").current_dir(workspace());
    if quiet {
        command.arg("--quiet");
    }
    for package in packages {
        command.args(["--package", package]);
    }
    match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(profile) => {
            command.args(["--profile", profile]);
        }
    }
    // Of the package that cargo runs now; they would make build scripts of the nested build look changed.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|n| n.starts_with("CARGO_PKG_") || n == "CARGO_MANIFEST_DIR") {
            command.env_remove(name);
        }
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let mut child = child.context("run cargo to build our programs")?;
    let building = || BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    *building() = Some(child.id());
    let status = child.wait();
    *building() = None;
    let status = status.context("run cargo to build our programs")?;
    if !status.success() {
        bail!("cargo could not build {}: {status}", packages.join(", "));
    }
    Ok(())
}

/// `cargo`, behind the guard where we are one: then it ends with us.
fn cargo() -> Result<Command> {
    let cargo = Settings::read().cargo;
    Ok(match guard::own_program() {
        Some(guard) => guard::command(guard, Path::new(&cargo), None, LastSignal::Kill),
        None => Command::new(cargo),
    })
}

/// Kills the build that is going on, with its compilers and all that they started.
pub fn stop_building() {
    if let Some(cargo) = *BUILDING.lock().unwrap_or_else(PoisonError::into_inner) {
        process::kill_tree(cargo);
    }
}

/// The folder with the programs of the running profile: `target/debug`, or that of the test binary above `deps`.
pub(crate) fn program_folder() -> Result<PathBuf> {
    let own = std::env::current_exe().context("the path of this program")?;
    let folder = own.parent().context("the folder of this program")?;
    let folder = match folder.file_name().and_then(|name| name.to_str()) {
        Some("deps" | "examples") => folder.parent().context("the folder above deps")?,
        _ => folder,
    };
    Ok(folder.to_owned())
}

/// The folder `testbed` in the target folder, for sockets and logs.
pub(crate) fn state_folder() -> Result<PathBuf> {
    let folder = program_folder()?.join("testbed");
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}

/// A program that can act as guard: this one, or the supervisor beside it.
pub(crate) fn guard_program() -> Result<PathBuf> {
    if let Some(own) = guard::own_program() {
        return Ok(own.to_owned());
    }
    let beside = program_folder()?.join(SUPERVISOR);
    if beside.is_file() { Ok(beside) } else { program(SUPERVISOR) }
}

/// The root of the repository this was compiled in.
pub(crate) fn workspace() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// One of our programs as a child. Dropping it kills it; it cannot outlive the process that started it.
pub struct Program {
    name: String,
    process: Process,
    lines: Arc<Mutex<VecDeque<String>>>,
}

impl Program {
    /// Starts `path` with these arguments and these variables on top of the own environment. What it prints (standard
    /// output and error) is kept for [`Program::output`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(path: impl AsRef<Path>, args: &[&str], env: &[(&str, &str)]) -> Result<Self> {
        Self::start_with(path, args, env, |_| {})
    }

    /// Like [`Program::start`], and hands each line to `each_line` as it is printed (on a thread of its own).
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_with(
        path: impl AsRef<Path>,
        args: &[&str],
        env: &[(&str, &str)],
        each_line: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<Self> {
        let path = path.as_ref();
        let launch = Launch {
            program: path,
            user: None,
            last_signal: LastSignal::Kill,
            output: Output::Pipes,
            with_stdin: false,
        };
        let mut process = Process::start(launch, |command| {
            command.args(args).envs(env.iter().copied());
        })?;
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let each_line = Arc::new(each_line);
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        capture(stdout, Arc::clone(&lines), Arc::clone(&each_line));
        capture(stderr, Arc::clone(&lines), each_line);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, process, lines })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The last 20,000 lines printed so far (without their ends; standard output and error mixed as they came).
    #[must_use]
    pub fn output(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// How it ended, if it did and all that it printed has been read.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.process.exit_status().filter(|_| self.is_read())
    }

    /// Each thread that reads from the process holds the lines as well, until it has come to the end.
    fn is_read(&self) -> bool {
        Arc::strong_count(&self.lines) == 1
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it is still running after `deadline`.
    pub async fn wait(&self, deadline: Duration) -> Result<ExitStatus> {
        let read = async {
            let status = self.process.wait().await;
            let read = || async { Ok(self.is_read().then_some(())) };
            eventually("the end of its output", deadline, read).await.map(|()| status)
        };
        let ended = tokio::time::timeout(deadline, read).await;
        ended.map_err(anyhow::Error::from).flatten().with_context(|| {
            format!("{} still runs after {deadline:?}\n{}", self.name, self.tail())
        })
    }

    /// SIGTERM, and waits until it has ended.
    ///
    /// # Errors
    /// When it has not ended within 15 s (it is killed then).
    pub async fn terminate(&self) -> Result<ExitStatus> {
        let (status, by_itself) = self.process.stop(Signal::TERM, STOP_BOUND).await;
        if !by_itself {
            bail!("{} did not end within {STOP_BOUND:?} of SIGTERM\n{}", self.name, self.tail());
        }
        Ok(status)
    }

    /// Sends any signal, e.g. STOP and CONT to freeze and thaw it.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(&self) -> ExitStatus {
        self.process.kill_group();
        self.process.wait().await
    }

    /// Waits for a line that contains `text` and returns it.
    ///
    /// # Errors
    /// When the deadline passes or the program ends first; its last lines are in the error.
    pub async fn line(&self, text: &str, deadline: Duration) -> Result<String> {
        let what = format!("line with '{text}' from {}", self.name);
        let found = eventually(&what, deadline, || async {
            let line = self.output().into_iter().find(|line| line.contains(text));
            if line.is_none() && self.exit_status().is_some() {
                return Ok(Some(None));
            }
            Ok(line.map(Some))
        });
        match found.await {
            Ok(Some(line)) => Ok(line),
            Ok(None) => bail!("{} ended without a line with '{text}'\n{}", self.name, self.tail()),
            Err(error) => Err(error.context(self.tail())),
        }
    }

    /// The last lines it printed, for an error message.
    #[must_use]
    pub fn tail(&self) -> String {
        const LINES_SHOWN: usize = 30;
        let lines = self.output();
        let from = lines.len().saturating_sub(LINES_SHOWN);
        format!("last lines of {}:\n  {}", self.name, lines[from..].join("\n  "))
    }
}

fn capture(
    stream: Option<impl Read + Send + 'static>,
    lines: Arc<Mutex<VecDeque<String>>>,
    each_line: Arc<impl Fn(&str) + Send + Sync + 'static>,
) {
    let Some(stream) = stream else { return };
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
            each_line(&text);
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(text);
            line.clear();
        }
    });
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, FileTimes};
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_program_is_fresh_until_one_of_its_sources_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (program, source) = (folder.path().join("relay"), folder.path().join("a b.rs"));
        fs::write(&program, "").unwrap();
        fs::write(&source, "").unwrap();
        let set_time = |path: &Path, time| {
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_times(FileTimes::new().set_modified(time))
        };
        let now = SystemTime::now();
        set_time(&program, now).unwrap();
        set_time(&source, now - Duration::from_secs(1)).unwrap();
        assert!(!is_fresh(&program), "nothing tells what it was made of");
        let escaped = source.display().to_string().replace(' ', "\\ ");
        fs::write(folder.path().join("relay.d"), format!("{}: {escaped}\n", program.display()))
            .unwrap();
        assert!(is_fresh(&program));
        set_time(&source, now + Duration::from_secs(1)).unwrap();
        assert!(!is_fresh(&program));
        fs::remove_file(&source).unwrap();
        assert!(!is_fresh(&program));
    }
}
