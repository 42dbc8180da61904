//! Steps at which a test can end the process as `kill -9` would, and rules that a test can break. Builds without debug
//! assertions, such as a release, have neither.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::config::{ConfigError, Environment};

/// Names a step, and after a colon how many times it is passed before the process ends there: `after confirm:30`.
pub const FAILPOINT: &str = "RELAY_FAILPOINT";

/// Names the rule to break: [`EARLY_ACKNOWLEDGEMENT`] or [`NO_POSITION`].
pub const SABOTAGE: &str = "RELAY_SABOTAGE";

/// Records count as confirmed when they are handed to the producer, so that the acknowledgement runs ahead of Kafka:
/// the mistake that the chaos test must find.
pub const EARLY_ACKNOWLEDGEMENT: &str = "early acknowledgement";

/// A Kafka transaction is committed without the position behind its records, so that they are published again.
pub const NO_POSITION: &str = "no position";

/// A step on an event's way, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A frame of WAL was received.
    AfterReceive,
    /// A record is about to be handed to the producer.
    BeforePublish,
    /// It was.
    AfterPublish,
    /// Kafka has confirmed records.
    AfterConfirm,
    /// A Kafka transaction is about to be committed (`exactly.once.support=required`).
    BeforeCommit,
    /// It was.
    AfterCommit,
    /// A new position is about to be acknowledged to PostgreSQL.
    BeforeAcknowledge,
    /// It was.
    AfterAcknowledge,
    /// A source offset is about to be written to the offset topic.
    BeforeOffsetStore,
    /// It was.
    AfterOffsetStore,
    /// A row that a snapshot has read was handed to the producer.
    AfterSnapshotRow,
    /// Every row of a snapshot is confirmed, and its slot not made yet.
    AfterSnapshot,
    /// It was made.
    AfterSlot,
    /// The topic of dead letters is about to be told how far a replay has come.
    BeforeReplayMark,
    /// It was.
    AfterReplayMark,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::AfterReceive,
        Self::BeforePublish,
        Self::AfterPublish,
        Self::AfterConfirm,
        Self::BeforeCommit,
        Self::AfterCommit,
        Self::BeforeAcknowledge,
        Self::AfterAcknowledge,
        Self::BeforeOffsetStore,
        Self::AfterOffsetStore,
        Self::AfterSnapshotRow,
        Self::AfterSnapshot,
        Self::AfterSlot,
        Self::BeforeReplayMark,
        Self::AfterReplayMark,
    ];

    /// As [`FAILPOINT`] names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AfterReceive => "after receive",
            Self::BeforePublish => "before publish",
            Self::AfterPublish => "after publish",
            Self::AfterConfirm => "after confirm",
            Self::BeforeCommit => "before commit",
            Self::AfterCommit => "after commit",
            Self::BeforeAcknowledge => "before acknowledge",
            Self::AfterAcknowledge => "after acknowledge",
            Self::BeforeOffsetStore => "before offset store",
            Self::AfterOffsetStore => "after offset store",
            Self::AfterSnapshotRow => "after snapshot row",
            Self::AfterSnapshot => "after snapshot",
            Self::AfterSlot => "after slot",
            Self::BeforeReplayMark => "before replay mark",
            Self::AfterReplayMark => "after replay mark",
        }
    }
}

/// Where this process ends.
#[derive(Debug)]
struct Armed {
    step: Step,
    /// Passes that are still allowed, this one included.
    passes: AtomicU32,
}

static ARMED: OnceLock<Armed> = OnceLock::new();
static ACKNOWLEDGES_EARLY: AtomicBool = AtomicBool::new(false);
static STORES_NO_POSITION: AtomicBool = AtomicBool::new(false);

/// Reads what a test asks for, before anything runs.
///
/// # Errors
/// When it asks for what there is not, or this build has nothing of it.
pub fn arm(environment: &Environment) -> Result<(), ConfigError> {
    let asked = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let wrong = |variable: &str, problem: &str| {
        Err(ConfigError { variable: variable.to_owned(), problem: problem.to_owned() })
    };
    for variable in [FAILPOINT, SABOTAGE] {
        if !cfg!(debug_assertions) && asked(variable).is_some() {
            return wrong(variable, "is for tests, and this build is for use; unset it");
        }
    }
    if let Some(value) = asked(FAILPOINT) {
        let Some(armed) = parse(value) else { return wrong(FAILPOINT, "names no step") };
        ARMED.get_or_init(|| armed);
    }
    match asked(SABOTAGE) {
        None => {}
        Some(EARLY_ACKNOWLEDGEMENT) => ACKNOWLEDGES_EARLY.store(true, Ordering::Relaxed),
        Some(NO_POSITION) => STORES_NO_POSITION.store(true, Ordering::Relaxed),
        Some(_) => return wrong(SABOTAGE, "names no rule"),
    }
    Ok(())
}

/// The process has come to this step.
#[inline]
pub fn reached(step: Step) {
    if cfg!(debug_assertions)
        && let Some(armed) = ARMED.get()
        && armed.step == step
        && armed.passes.fetch_sub(1, Ordering::Relaxed) <= 1
    {
        // No destructor, no signal handler, no flush: what `kill -9` leaves.
        std::process::abort();
    }
}

/// Whether records count as confirmed before Kafka has confirmed them.
pub(crate) fn acknowledges_early() -> bool {
    cfg!(debug_assertions) && ACKNOWLEDGES_EARLY.load(Ordering::Relaxed)
}

/// Whether Kafka transactions are committed without a position.
pub(crate) fn stores_no_position() -> bool {
    cfg!(debug_assertions) && STORES_NO_POSITION.load(Ordering::Relaxed)
}

fn parse(value: &str) -> Option<Armed> {
    let (name, passes) = match value.split_once(':') {
        Some((name, passes)) => (name, passes.parse().ok().filter(|passes| *passes > 0)?),
        None => (value, 1),
    };
    let step = Step::ALL.into_iter().find(|step| step.name() == name)?;
    Some(Armed { step, passes: AtomicU32::new(passes) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failpoint_is_a_step_and_how_often_it_is_passed() {
        let read = |value: &str| {
            parse(value).map(|armed| (armed.step, armed.passes.load(Ordering::Relaxed)))
        };
        assert_eq!(read("after confirm"), Some((Step::AfterConfirm, 1)));
        assert_eq!(read("before acknowledge:30"), Some((Step::BeforeAcknowledge, 30)));
        for wrong in ["", "after lunch", "after confirm:", "after confirm:0", "after confirm:x"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    /// Those of `tests/it/snapshot_steps.rs` and `tests/it/dead_letters_replay.rs`: a flow under load does not come to them.
    const STEPS_OF_THEIR_OWN: [Step; 5] = [
        Step::AfterSnapshotRow,
        Step::AfterSnapshot,
        Step::AfterSlot,
        Step::BeforeReplayMark,
        Step::AfterReplayMark,
    ];

    #[test]
    fn the_kill_tests_have_every_step() {
        let of_their_own = STEPS_OF_THEIR_OWN.map(Step::name);
        let mut tested: Vec<&str> = testbed::chaos::steps().chain(of_their_own).collect();
        let mut all = Step::ALL.map(Step::name);
        tested.sort_unstable();
        all.sort_unstable();
        assert_eq!(tested, all);
    }

    #[test]
    fn every_step_is_found_by_its_name() {
        for step in Step::ALL {
            assert_eq!(parse(step.name()).map(|armed| armed.step), Some(step));
        }
    }
}
