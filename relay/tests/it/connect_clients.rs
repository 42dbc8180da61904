//! Clients that were not written here drive the REST API: two from PyPI, in the versions and files of `tests/clients`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use testbed::unique_name;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::connect_worker::{Worker, example_config, outbox_database};

/// For pip to fetch less than a megabyte.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(300);
/// For a client to go through all its calls; it has deadlines of its own.
const DRIVE_TIMEOUT: Duration = Duration::from_secs(180);

const MISSING: &str = "python3 with pip (3.8 or later) is needed for the clients from PyPI; install it, for example with \
                       `apt-get install python3 python3-pip` or `brew install python`";

#[tokio::test(flavor = "multi_thread")]
async fn kafka_connect_py_drives_the_worker() -> Result<()> {
    drive("drive_kafka_connect_py.py").await
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_connect_api_drives_the_worker() -> Result<()> {
    drive("drive_kafka_connect_api.py").await
}

async fn drive(script: &str) -> Result<()> {
    let installed = installed().await?;
    let (database, _sql) = outbox_database().await?;
    let worker = Worker::start(&unique_name("client"), &[]).await?;
    let connector = json!({"name": "outbox-connector", "config": example_config(&database)?});
    let mut python = Command::new("python3");
    python
        .arg(clients().join(script))
        .args([format!("http://{}", worker.address), connector.to_string()])
        .env("PYTHONPATH", installed)
        // Scripts leave no `__pycache__` in the sources, and talk to the worker alone.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "127.0.0.1");
    let said = run(python, DRIVE_TIMEOUT).await?;
    ensure!(said.contains("is content"), "{said}\n{}", worker.program.tail());
    Ok(())
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// The folder of the installed clients; installs them when it is not there, or is of other versions.
async fn installed() -> Result<&'static PathBuf> {
    static INSTALLED: OnceCell<PathBuf> = OnceCell::const_new();
    INSTALLED.get_or_try_init(install).await
}

async fn install() -> Result<PathBuf> {
    let requirements = clients().join("requirements.txt");
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (folder, copy) = (cache.join("connect-clients"), cache.join("connect-clients.txt"));
    let wanted = std::fs::read_to_string(&requirements)?;
    if folder.is_dir() && std::fs::read_to_string(&copy).is_ok_and(|present| present == wanted) {
        return Ok(folder);
    }
    let fresh = cache.join(unique_name("connect-clients"));
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"])
        .args(["--only-binary=:all:", "--require-hashes", "--target"])
        .args([&fresh, Path::new("--requirement"), &requirements]);
    run(pip, INSTALL_TIMEOUT)
        .await
        .with_context(|| format!("installing the clients: {MISSING}"))?;
    // Another test binary may do the same; either's result will do.
    let _ = std::fs::remove_dir_all(&folder);
    if std::fs::rename(&fresh, &folder).is_err() {
        return Ok(fresh);
    }
    std::fs::write(&copy, wanted)?;
    Ok(folder)
}

/// Runs a program to its end; gives what it printed.
async fn run(mut command: Command, timeout: Duration) -> Result<String> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context(MISSING)?;
    let output = tokio::time::timeout(timeout, child.wait_with_output()).await;
    let output = output.with_context(|| format!("{command:?} took too long"))??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    if !output.status.success() {
        bail!("{} failed:\n{said}", command.as_std().get_program().display());
    }
    Ok(said)
}
