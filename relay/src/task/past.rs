//! What a task knows of its earlier pipelines: each has a producer of its own.

use std::time::Duration;

use pgoutput::Lsn;
use tokio::time::Instant;

use crate::failure::Decision;
use crate::pipeline::{Pipeline, PipelineError};
use crate::sink::{Sink, SinkError};
use crate::source::slot::SystemIdentity;

/// Starts of the sink that end the same way without a commit between them: then it is no accident.
const FUTILE_MAX: u32 = 3;

/// Times that another producer takes over within [`FENCED_WITHIN`]: more often than relays take each other's place.
const FENCED_MAX: usize = 5;
const FENCED_WITHIN: Duration = Duration::from_secs(300);

/// What outlasts a pipeline.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Its snapshot was taken.
    snapshot: bool,
    /// How far which history of WAL was streamed.
    reached: Option<(SystemIdentity, Lsn)>,
    /// When other producers took over.
    fenced: Vec<Instant>,
    /// Transactions that timed out since anything was committed.
    timeouts: u32,
    /// Starts of the sink since anything was confirmed.
    restarts: u32,
}

impl Past {
    /// A pipeline is over.
    pub(super) fn take_in<S: Sink>(&mut self, pipeline: &Pipeline<'_, S>) {
        self.snapshot |= pipeline.has_snapshot();
        self.reached = pipeline.reached().or(self.reached.take());
        if pipeline.confirmed_lsn() > Lsn::ZERO {
            (self.restarts, self.timeouts) = (0, 0);
        }
    }

    pub(super) const fn has_snapshot(&self) -> bool {
        self.snapshot
    }

    /// Whether this history of WAL was streamed: then its slot must still be there.
    pub(super) fn has_streamed(&self, system: &SystemIdentity, wal_end: Lsn) -> bool {
        self.reached.as_ref().is_some_and(|(known, lsn)| known == system && *lsn <= wal_end)
    }

    /// The sink starts anew; how often it has by now.
    pub(super) const fn restart(&mut self) -> u32 {
        self.restarts += 1;
        self.restarts
    }

    /// What cannot be told at the first time.
    pub(super) fn decide(&mut self, error: &PipelineError, decision: Decision) -> Decision {
        match error {
            PipelineError::Sink(SinkError::Fenced { .. }) => {
                self.fenced.retain(|at| at.elapsed() < FENCED_WITHIN);
                self.fenced.push(Instant::now());
                if self.fenced.len() < FENCED_MAX { decision } else { Decision::Stop }
            }
            PipelineError::Sink(SinkError::TransactionTimeout { .. }) => {
                self.timeouts += 1;
                if self.timeouts < FUTILE_MAX { decision } else { Decision::Stop }
            }
            _ => decision,
        }
    }
}
