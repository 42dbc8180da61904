//! A child process that cannot outlive us: started behind the guard, in a process group of its own, reaped in any case.

use std::fs::File;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::sync::watch;

use crate::guard::{self, LastSignal, User};
use crate::program;

type SpawnRequest = (Command, mpsc::Sender<std::io::Result<Child>>);

/// Children are tied to the *thread* that starts them, so one thread that lives as long as the process starts them all.
static SPAWNER: LazyLock<mpsc::Sender<SpawnRequest>> = LazyLock::new(|| {
    let (sender, requests) = mpsc::channel::<SpawnRequest>();
    thread::spawn(move || {
        for (mut command, answer) in requests {
            let _ = answer.send(command.spawn());
        }
    });
    sender
});

/// What to start, and how.
pub(crate) struct Launch<'a> {
    pub(crate) program: &'a Path,
    pub(crate) user: Option<User>,
    pub(crate) last_signal: LastSignal,
    pub(crate) output: Output,
    /// Connects the child's standard input to [`Process::stdin`].
    pub(crate) with_stdin: bool,
}

/// Where standard output and error go.
pub(crate) enum Output {
    /// Appended to this file.
    File(File),
    /// To [`Process::stdout`] and [`Process::stderr`].
    Pipes,
}

/// A running (or ended) child. Dropping it kills it.
pub(crate) struct Process {
    pid: Pid,
    last_signal: LastSignal,
    ended: watch::Receiver<Option<ExitStatus>>,
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
}

impl Process {
    /// Starts the program; `prepare` adds arguments, environment and folder.
    pub(crate) fn start(launch: Launch<'_>, prepare: impl FnOnce(&mut Command)) -> Result<Self> {
        let guard = program::guard_program()?;
        let mut command = guard::command(&guard, launch.program, launch.user, launch.last_signal);
        prepare(&mut command);
        command.process_group(0);
        command.stdin(if launch.with_stdin { Stdio::piped() } else { Stdio::null() });
        match launch.output {
            Output::File(file) => {
                command.stderr(file.try_clone().context("share the log file")?).stdout(file);
            }
            Output::Pipes => {
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
            }
        }
        let (answer, spawned) = mpsc::channel();
        SPAWNER.send((command, answer)).ok().context("the thread that starts children is gone")?;
        let child = spawned.recv().context("the thread that starts children is gone")?;
        let child = child.with_context(|| format!("start {}", launch.program.display()))?;
        Self::watch(child, launch.last_signal)
    }

    fn watch(mut child: Child, last_signal: LastSignal) -> Result<Self> {
        let raw_pid = i32::try_from(child.id()).context("process id")?;
        let pid = Pid::from_raw(raw_pid).context("process id")?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (sender, ended) = watch::channel(None);
        // A thread rather than the runtime's reaper: children outlive the runtime of a single test.
        thread::spawn(move || {
            let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(0));
            let _ = sender.send(Some(status));
        });
        Ok(Self { pid, last_signal, ended, stdin, stdout, stderr })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// How it ended, if it did.
    pub(crate) fn exit_status(&self) -> Option<ExitStatus> {
        *self.ended.borrow()
    }

    /// Waits until it has ended.
    pub(crate) async fn wait(&self) -> ExitStatus {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(status) => status.unwrap_or_default(),
            Err(_) => ExitStatus::default(),
        }
    }

    /// Sends the signal, to this process alone. Nothing happens when it has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.exit_status().is_none() {
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Asks with `signal`, and kills what has not ended within `bound`. Returns how it ended and whether it did so by
    /// itself.
    pub(crate) async fn stop(&self, signal: Signal, bound: Duration) -> (ExitStatus, bool) {
        self.signal(signal);
        if let Ok(status) = tokio::time::timeout(bound, self.wait()).await {
            return (status, true);
        }
        self.kill_group();
        (self.wait().await, false)
    }

    /// SIGKILL to its whole group.
    pub(crate) fn kill_group(&self) {
        if self.exit_status().is_none() {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }
}

/// From SIGQUIT to SIGKILL, and from SIGKILL to the end.
const DROP_BOUND: Duration = Duration::from_secs(3);

impl Drop for Process {
    /// Returns when it is gone (within a bound), so that its folder can be removed.
    fn drop(&mut self) {
        if self.last_signal == LastSignal::Quit {
            self.signal(Signal::QUIT);
            self.block_until_ended();
        }
        self.kill_group();
        self.block_until_ended();
    }
}

impl Process {
    fn block_until_ended(&self) {
        let until = Instant::now() + DROP_BOUND;
        while self.exit_status().is_none() && Instant::now() < until {
            thread::park_timeout(Duration::from_millis(2));
        }
    }
}

/// What `/proc` says about a process.
pub(crate) struct Stat {
    pub(crate) name: String,
    pub(crate) parent: u32,
    /// Clock ticks since boot.
    pub(crate) start_time: u64,
}

/// `None` when there is no such process (or it has ended and only waits to be reaped).
pub(crate) fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The processes whose parent this is.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == parent)).collect()
}

/// SIGKILL to the process and to all that it started. Each is stopped before its children are looked for, so that it
/// starts no more.
pub(crate) fn kill_tree(root: u32) {
    let Some(pid) = i32::try_from(root).ok().and_then(Pid::from_raw) else { return };
    let _ = kill_process(pid, Signal::STOP);
    children(root).into_iter().for_each(kill_tree);
    let _ = kill_process(pid, Signal::KILL);
}

/// proc(5): `pid (name) state ppid ...`, field 22 is the start time. A name may hold spaces and parentheses.
fn parse_stat(text: &str) -> Option<Stat> {
    let (before, after) = text.rsplit_once(')')?;
    let name = before.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = after.split_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    let (parent, start_time) = (fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?);
    Some(Stat { name, parent, start_time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_finds_itself() {
        let own = stat(std::process::id()).unwrap();
        assert_eq!(own.parent, std::os::unix::process::parent_id());
        assert!(own.start_time > 0);
    }

    #[test]
    fn a_name_may_hold_parentheses() {
        let text = "7 (a) (b)) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1000";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.name.as_str(), stat.parent, stat.start_time), ("a) (b)", 1, 12345));
    }

    #[test]
    fn a_zombie_is_gone() {
        assert!(parse_stat("7 (a) Z 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 12345 0").is_none());
    }
}
