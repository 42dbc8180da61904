//! The life that all servers share: started, found ready, stopped or killed, started again.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use rustix::process::Signal;

use super::{READY_BOUND, STOP_BOUND, log_tail};
use crate::process::Process;
use crate::wait::eventually;

/// A server's process while there is one. Dropping it kills the server.
pub(super) struct Life {
    /// For people.
    name: &'static str,
    log: PathBuf,
    process: Option<Process>,
}

impl Life {
    /// Not started yet; its output goes to `log`.
    pub(super) fn new(name: &'static str, log: PathBuf) -> Self {
        Self { name, log, process: None }
    }

    /// Takes over a process that was just started, and returns when `answers` says so.
    ///
    /// # Errors
    /// When it ends first or does not answer within a bound; its last log lines are in the error.
    pub(super) async fn begin<F, Fut>(&mut self, process: Process, answers: F) -> Result<()>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<bool>>,
    {
        let what = format!("answer from {}", self.name);
        let ready = eventually(&what, READY_BOUND, || {
            let ended = process.exit_status();
            // Boxed, since a connection that is being made is large.
            let answer = Box::pin(answers());
            let name = self.name;
            async move {
                match ended {
                    Some(status) => Ok(Some(Err(anyhow!("{name} ended: {status}")))),
                    None => Ok(answer.await?.then_some(Ok(()))),
                }
            }
        });
        ready.await.and_then(|answer| answer).with_context(|| log_tail(&self.log))?;
        self.process = Some(process);
        Ok(())
    }

    /// Asks with the server's own signal and kills what takes too long. Returns whether it ended by itself.
    pub(super) async fn stop(&mut self, signal: Signal) -> bool {
        self.stop_within(signal, STOP_BOUND).await
    }

    pub(super) async fn stop_within(&mut self, signal: Signal, bound: Duration) -> bool {
        match self.process.take() {
            Some(process) => process.stop(signal, bound).await.1,
            None => true,
        }
    }

    /// `kill -9` of the server's process, not of its children.
    pub(super) async fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.signal(Signal::KILL);
            process.wait().await;
        }
    }

    /// Sends any signal, e.g. STOP and CONT to freeze and thaw it.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    /// Process id, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// How it ended, if it did so without being stopped.
    pub(super) fn exit_status(&self) -> Option<ExitStatus> {
        self.process.as_ref().and_then(Process::exit_status)
    }

    /// The last lines of its log, for an error message.
    pub(super) fn log_tail(&self) -> String {
        log_tail(&self.log)
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }
}
