//! How the consumer is doing: what `/health/*` tells, kept up to date by those who know.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The consumer's loop comes round at least once a second, whatever the message in work does; a loop that did not
/// come round for this long hangs.
const BEAT_AGE_MAX: Duration = Duration::from_secs(30);

/// Where the consumer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Waits for MySQL or Kafka.
    Starting,
    /// Has subscribed and is joining the group.
    Joining,
    /// The topic does not exist yet; its first event will create it. Nothing is missing here.
    WaitingForTopic,
    /// Is a member of the group. It may own no partition, when others own them all.
    Joined,
    Stopping,
}

impl Stage {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stage::Starting => "starting",
            Stage::Joining => "joining the group",
            Stage::WaitingForTopic => "waiting for the topic",
            Stage::Joined => "joined",
            Stage::Stopping => "stopping",
        }
    }
}

/// The signs of life of the process.
#[derive(Debug)]
pub(crate) struct Vitals {
    started: Instant,
    /// Milliseconds from `started` to the last time the consumer's loop came round.
    beat_millis: AtomicU64,
    stage: Mutex<Stage>,
    kafka_away: AtomicBool,
    holding: AtomicBool,
}

impl Vitals {
    pub(crate) fn new() -> Vitals {
        Vitals {
            started: Instant::now(),
            beat_millis: AtomicU64::new(0),
            stage: Mutex::new(Stage::Starting),
            kafka_away: AtomicBool::new(false),
            holding: AtomicBool::new(false),
        }
    }

    /// The consumer's loop came round.
    pub(crate) fn beat(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.beat_millis.store(millis, Ordering::Relaxed);
    }

    pub(crate) fn beat_age(&self) -> Duration {
        let beat = Duration::from_millis(self.beat_millis.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(beat)
    }

    /// Whether the consumer's loop comes round, or is yet to begin: the wait for MySQL and Kafka may take as long as it
    /// takes, and a restart would not shorten it.
    pub(crate) fn live(&self) -> bool {
        self.stage() == Stage::Starting || self.beat_age() <= BEAT_AGE_MAX
    }

    pub(crate) fn enter(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    /// The group has given us up: Kafka did not hear of us in time. librdkafka joins again by itself.
    pub(crate) fn leave_group(&self) {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if *stage == Stage::Joined {
            *stage = Stage::Joining;
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that no broker can be reached, or that one can. Says whether that is news.
    pub(crate) fn set_kafka_away(&self, away: bool) -> bool {
        self.kafka_away.swap(away, Ordering::Relaxed) != away
    }

    pub(crate) fn kafka_away(&self) -> bool {
        self.kafka_away.load(Ordering::Relaxed)
    }

    /// Notes whether the message in work is held: MySQL does not take it, or the dead letter topic, and those behind it
    /// wait.
    pub(crate) fn set_holding(&self, holding: bool) {
        self.holding.store(holding, Ordering::Relaxed);
    }

    pub(crate) fn holding(&self) -> bool {
        self.holding.load(Ordering::Relaxed)
    }

    /// Whether orders flow now, as far as the consumer knows.
    pub(crate) fn consuming(&self) -> bool {
        matches!(self.stage(), Stage::Joined | Stage::WaitingForTopic)
            && !self.kafka_away()
            && !self.holding()
    }

    /// What it does, or what keeps it from it.
    pub(crate) fn consumer(&self) -> &'static str {
        if self.kafka_away() {
            "Kafka is away"
        } else if self.holding() {
            "holding a message, the log says why"
        } else {
            self.stage().name()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_wait_at_the_start_is_no_hang_and_a_loop_that_stands_still_is() {
        let started = Instant::now().checked_sub(BEAT_AGE_MAX * 2).unwrap();
        let vitals = Vitals { started, ..Vitals::new() };
        assert!(vitals.live());
        vitals.enter(Stage::Joined);
        assert!(!vitals.live());
        vitals.beat();
        assert!(vitals.live());
    }
}
