//! Fetches a server that is not installed: by package name through Maven, into our own cache folder, once.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::fs::{FlockOperation, flock};

use crate::config::Settings;
use crate::guard;
use crate::program::{self, workspace};

const POM: &str = include_str!("../servers/pom.xml");

/// How often a long download says that it is still going on.
const STILL_FETCHING_INTERVAL: Duration = Duration::from_secs(5);

/// Newer Kafka needs at least this Java.
const JAVA_VERSION_MIN: u32 = 17;

/// What to do where the cache folder cannot be written.
const OTHER_CACHE: &str = " (set TESTBED_CACHE to a folder that you may write to)";

/// Receives a line for people about what is being fetched.
pub type Progress = std::sync::Arc<dyn Fn(&str) + Send + Sync>;

/// One server that Maven can bring.
pub(crate) struct Package {
    /// For people.
    pub(crate) title: &'static str,
    /// Profile in `servers/pom.xml`.
    pub(crate) profile: &'static str,
    /// Its version's property there, which also names the cache folder.
    pub(crate) version_property: &'static str,
    pub(crate) form: Form,
    /// What to tell a user before the wait.
    pub(crate) megabytes: u32,
    /// The command that makes the download unnecessary.
    pub(crate) install_hint: &'static str,
}

/// What Maven's artifacts are.
pub(crate) enum Form {
    /// Jars that are used as they are.
    Jars,
    /// A jar or a tar.gz that holds the server's folders.
    Archive,
    /// A jar that holds a tar archive compressed with xz.
    XzInArchive,
}

/// The folder of the fetched server, fetched now if need be. Only one process at a time fetches the same thing; an
/// interrupted fetch leaves nothing behind that looks complete. Blocks.
pub(crate) fn fetch(
    settings: &Settings,
    package: &Package,
    progress: &Progress,
) -> Result<PathBuf> {
    let version = version(package.version_property)?;
    let folder = settings.cache.join(format!("{}-{version}", package.version_property));
    if folder.is_dir() {
        return Ok(folder);
    }
    fs::create_dir_all(&settings.cache).with_context(|| {
        format!("create the cache folder {}{OTHER_CACHE}", settings.cache.display())
    })?;
    let lock_path = settings.cache.join(format!("{}.lock", package.version_property));
    let lock = File::create(&lock_path)
        .with_context(|| format!("create {}{OTHER_CACHE}", lock_path.display()))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        progress(&format!("{}: another process is fetching it, waiting", package.title));
        flock(&lock, FlockOperation::LockExclusive).context("lock the cache folder")?;
    }
    if folder.is_dir() {
        return Ok(folder);
    }
    let started = Instant::now();
    progress(&format!(
        "{} {version} is not installed: fetching it with Maven, about {} MB, into {}",
        package.title,
        package.megabytes,
        folder.display()
    ));
    let unfinished = tempfile::tempdir_in(&settings.cache).context("a folder in the cache")?;
    let ready = run_maven(settings, package, unfinished.path(), progress)
        .and_then(|()| unpack(package, unfinished.path()))
        .map_err(|error| {
            anyhow!("{} could not be fetched: {error:#}; {}", package.title, package.install_hint)
        })?;
    open_to_all_users(&ready)?;
    fs::rename(&ready, &folder).with_context(|| format!("create {}", folder.display()))?;
    progress(&format!(
        "{} {version} is there: {} MB in {:.1} s",
        package.title,
        size(&folder) / 1_000_000,
        started.elapsed().as_secs_f32()
    ));
    Ok(folder)
}

/// The Java that Kafka, Kafka Connect and Maven run on: `JAVA_HOME`, else the one in `PATH`.
pub(crate) fn java(settings: &Settings) -> Result<PathBuf> {
    const INSTALL: &str = "install one, e.g. with: apt-get install default-jre-headless maven";
    let own = settings.java_home.as_ref().map(|home| home.join("bin/java"));
    let Some(java) = own.filter(|java| java.is_file()).or_else(|| settings.find_in_path("java"))
    else {
        bail!("Kafka needs Java {JAVA_VERSION_MIN} or newer and none was found; {INSTALL}");
    };
    let output = Command::new(&java).arg("-version").output();
    let output = output.with_context(|| format!("run {}", java.display()))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    match java_version(&text) {
        Some(version) if version >= JAVA_VERSION_MIN => Ok(java),
        Some(version) => bail!(
            "Kafka needs Java {JAVA_VERSION_MIN} or newer, {} is {version}; {INSTALL}",
            java.display()
        ),
        None => bail!("{} does not say its version: {text}", java.display()),
    }
}

/// `openjdk version "17.0.15" 2025-04-15` is 17, `java version "1.8.0_402"` is 8.
fn java_version(text: &str) -> Option<u32> {
    let quoted = text.split('"').nth(1)?;
    let mut numbers = quoted.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match numbers.next()?.ok()? {
        1 => numbers.next()?.ok(),
        version => Some(version),
    }
}

fn version(property: &str) -> Result<&'static str> {
    let from = POM.split(&format!("<{property}.version>")).nth(1);
    let version = from.and_then(|rest| rest.split('<').next());
    version.with_context(|| format!("servers/pom.xml has no {property}.version"))
}

fn run_maven(
    settings: &Settings,
    package: &Package,
    into: &Path,
    progress: &Progress,
) -> Result<()> {
    let Some(maven) = settings.find_in_path("mvn") else {
        bail!("Maven (mvn) was not found; install it, e.g. with: apt-get install maven");
    };
    let goal = match package.form {
        Form::Jars => "copy-dependencies",
        Form::Archive | Form::XzInArchive => "unpack-dependencies",
    };
    // Behind the guard: a long download ends with us. (This thread waits for it, so it is tied to the right one.)
    let mut command =
        guard::command(&program::guard_program()?, &maven, None, guard::LastSignal::Kill);
    command
        .args(["--batch-mode", "--no-transfer-progress", "--quiet", "--file"])
        .arg(workspace().join("testbed/servers/pom.xml"))
        .arg(format!("--activate-profiles={}", package.profile))
        .arg(format!("dependency:{goal}"))
        .arg(format!("-DoutputDirectory={}", into.join("unpacked").display()))
        .arg(format!("-Dtestbed.notes={}", into.join("notes").display()))
        .arg("-DincludeScope=runtime")
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let output = while_reporting(package.title, progress, move || command.output());
    let output = output.context("run Maven")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout);
        let first_errors: Vec<&str> =
            text.lines().filter(|l| l.contains("ERROR")).take(3).collect();
        bail!("Maven failed: {}", first_errors.join("\n"));
    }
    Ok(())
}

/// Runs `work` and says every few seconds that it goes on.
fn while_reporting<T: Send + 'static>(
    title: &str,
    progress: &Progress,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let started = Instant::now();
    let (done, finished) = mpsc::channel::<()>();
    let worker = thread::spawn(move || {
        let result = work();
        drop(done);
        result
    });
    while finished.recv_timeout(STILL_FETCHING_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        progress(&format!("{title}: still fetching, {} s", started.elapsed().as_secs()));
    }
    worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Returns the folder, inside `folder`, that becomes the cache entry.
fn unpack(package: &Package, folder: &Path) -> Result<PathBuf> {
    let unpacked = folder.join("unpacked");
    if !matches!(package.form, Form::XzInArchive) {
        return Ok(unpacked);
    }
    let archive = fs::read_dir(&unpacked)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|e| e == "txz"))
        .context("the package holds no .txz archive")?;
    let file = File::open(&archive).context("open the archive")?;
    let tar = lzma_rust2::XzReader::new(std::io::BufReader::new(file), true);
    let target = folder.join("server");
    // The tar reader takes small sips; the decoder is quicker with larger ones.
    let tar = std::io::BufReader::with_capacity(1 << 18, tar);
    tar::Archive::new(tar).unpack(&target).context("unpack the archive")?;
    Ok(target)
}

/// Servers run as another user when we are root: everyone may read, what is in a `bin` folder may be executed.
fn open_to_all_users(folder: &Path) -> Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    let in_bin = folder.file_name().is_some_and(|name| name == "bin" || name == "scripts");
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let kind = path.symlink_metadata()?;
        if kind.is_dir() {
            open_to_all_users(&path)?;
        } else if kind.is_file() {
            let executable = in_bin || kind.permissions().mode() & 0o100 != 0;
            let mode = if executable { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

fn size(path: &Path) -> u64 {
    let Ok(kind) = path.symlink_metadata() else { return 0 };
    if !kind.is_dir() {
        return kind.len();
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size(&entry.path())).sum()
}

/// The first line that `program --version` prints, or why it cannot run (a missing shared library, for instance).
pub(crate) fn version_line(program: &Path) -> Result<String> {
    let mut child = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {}", program.display()))?;
    let mut text = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut text)?;
    }
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut text)?;
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{} does not run: {}", program.display(), text.trim());
    }
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_java_is_read_in_its_old_and_its_new_form() {
        assert_eq!(java_version("openjdk version \"17.0.15\" 2025-04-15"), Some(17));
        assert_eq!(java_version("java version \"1.8.0_402\""), Some(8));
        assert_eq!(java_version("openjdk version \"25\" 2025-09-16"), Some(25));
        assert_eq!(java_version("command not found"), None);
    }

    #[test]
    fn each_server_has_a_pinned_version() {
        for property in ["postgres", "mariadb", "kafka", "connect", "debezium"] {
            let version = version(property).unwrap().trim_end_matches(".Final");
            assert!(version.split('.').all(|part| part.parse::<u32>().is_ok()), "{version}");
        }
        assert_eq!(version("connect").unwrap(), version("kafka").unwrap());
        assert!(version("oracle").is_err());
    }
}
