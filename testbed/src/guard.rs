//! The small start of every child process: it drops to another user, ties its life to the launcher's, and becomes the
//! real command. Our own program does this when it is called with [`SUBCOMMAND`] first.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Gid, Pid, Signal, Uid, getppid, set_parent_process_death_signal};

/// First argument that turns a testbed program into the guard.
pub const SUBCOMMAND: &str = "guard";

static SELF: OnceLock<PathBuf> = OnceLock::new();

/// Called first in the `main` of each testbed program. Called as a guard, the process becomes the guarded command and
/// this does not return (or returns the reason why not); else it remembers that this program can be a guard.
///
/// # Errors
/// When the guarded command cannot be started.
pub fn run_if_asked() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == SUBCOMMAND) {
        return become_guarded(arguments);
    }
    let own = std::env::current_exe().context("the path of this program")?;
    SELF.get_or_init(|| own);
    Ok(())
}

/// The running program, if it can be a guard.
pub(crate) fn own_program() -> Option<&'static Path> {
    SELF.get().map(PathBuf::as_path)
}

/// Which user a child runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

/// How a child ends when its launcher dies without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastSignal {
    /// At once, for everything that has no children of its own.
    Kill,
    /// PostgreSQL's immediate shutdown, which takes its own children along.
    Quit,
}

/// The command line that starts `program` behind the guard. Format: `guard PARENT SIGNAL UID:GID|- PROGRAM ARGUMENTS`.
pub(crate) fn command(
    guard: &Path,
    program: &Path,
    user: Option<User>,
    last_signal: LastSignal,
) -> Command {
    let mut command = Command::new(guard);
    command
        .arg(SUBCOMMAND)
        .arg(std::process::id().to_string())
        .arg(match last_signal {
            LastSignal::Kill => "kill",
            LastSignal::Quit => "quit",
        })
        .arg(user.map_or_else(|| "-".to_owned(), |u| format!("{}:{}", u.uid, u.gid)))
        .arg(program);
    command
}

fn become_guarded(mut arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let mut next = |what: &str| arguments.next().with_context(|| format!("guard: {what} missing"));
    let parent = next("parent")?.into_string().ok().and_then(|p| p.parse::<i32>().ok());
    let parent = parent.and_then(Pid::from_raw).context("guard: the parent is no process id")?;
    let signal = if next("signal")? == "quit" { Signal::QUIT } else { Signal::KILL };
    if let Some((uid, gid)) = next("user")?.to_str().and_then(|user| user.split_once(':')) {
        become_user(uid.parse()?, gid.parse()?)?;
    }
    let program = next("program")?;
    // After the change of user, which would reset it. The parent may have died before this line.
    set_parent_process_death_signal(Some(signal)).context("tie the child to its launcher")?;
    if getppid() != Some(parent) {
        bail!("guard: the launcher is gone");
    }
    let error = Command::new(&program).args(arguments).exec();
    Err(error).with_context(|| format!("start {}", Path::new(&program).display()))
}

/// The guard has one thread, so changing the thread's user changes the process's.
fn become_user(uid: u32, gid: u32) -> Result<()> {
    rustix::thread::set_thread_groups(&[]).context("leave root's groups")?;
    rustix::thread::set_thread_gid(Gid::from_raw(gid)).context("change the group")?;
    rustix::thread::set_thread_uid(Uid::from_raw(uid)).context("change the user")?;
    Ok(())
}
