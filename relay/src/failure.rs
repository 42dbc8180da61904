//! What a failure means: try again, or stop and say what to do; pure.

use std::time::Duration;

use crate::pipeline::PipelineError;
use crate::sink::SinkError;
use crate::source::SourceError;

/// First delay before another attempt; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);

/// Longest delay before another attempt: what somebody who has just brought a server back will wait.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Longest delay while another relay holds the slot, or the table is still to be created: a look at the catalog costs
/// little, and it bounds the time of a takeover.
const STANDBY_MAX: Duration = Duration::from_millis(500);

/// SQLSTATE of a slot that another session reads from.
const OBJECT_IN_USE: &str = "55006";

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Something is away that may come back.
    Retry {
        /// The longest delay before the next attempt.
        backoff_max: Duration,
    },
    /// Trying again would change nothing: somebody has to act.
    Stop,
}

/// Decides about a failure of the pipeline.
#[must_use]
pub fn decide(error: &PipelineError) -> Decision {
    match error {
        PipelineError::Source(error) => decide_source(error),
        // One who was fenced goes back to waiting for the slot, which the other one has.
        PipelineError::Sink(
            SinkError::Producer { .. }
            | SinkError::Fenced { .. }
            | SinkError::TransactionTimeout { .. },
        ) => Decision::Retry { backoff_max: BACKOFF_MAX },
        PipelineError::Sink(
            SinkError::Record { .. }
            | SinkError::Topic { .. }
            | SinkError::DeadLetters { .. }
            | SinkError::Configuration { .. },
        )
        | PipelineError::Row { .. }
        | PipelineError::Progress(_) => Decision::Stop,
    }
}

fn decide_source(error: &SourceError) -> Decision {
    match error {
        SourceError::Io { .. }
        | SourceError::Timeout { .. }
        | SourceError::ServerWaits { .. }
        | SourceError::Closed { .. } => Decision::Retry { backoff_max: BACKOFF_MAX },
        SourceError::SlotInUse { .. } | SourceError::TableMissing { .. } => {
            Decision::Retry { backoff_max: STANDBY_MAX }
        }
        SourceError::Server { error, .. } => decide_sql_state(&error.code),
        SourceError::Authentication { .. }
        | SourceError::Tls { .. }
        | SourceError::Protocol(_)
        | SourceError::Decode(_)
        | SourceError::SlotUnusable { .. }
        | SourceError::PositionUnusable(_)
        | SourceError::PublicationUnusable { .. } => Decision::Stop,
    }
}

/// Whether somebody else reads from the slot.
#[must_use]
pub fn is_slot_in_use(error: &PipelineError) -> bool {
    match error {
        PipelineError::Source(SourceError::SlotInUse { .. }) => true,
        PipelineError::Source(SourceError::Server { error, .. }) => error.code == OBJECT_IN_USE,
        _ => false,
    }
}

/// By class of SQLSTATE (PostgreSQL's documentation, appendix A).
fn decide_sql_state(code: &str) -> Decision {
    match code {
        // object_in_use, duplicate_object: another relay took or made the slot between our look and our step.
        OBJECT_IN_USE | "42710" => Decision::Retry { backoff_max: STANDBY_MAX },
        // Connection trouble, too many connections or slots, shutdown and start-up, lock and serialization failures.
        _ if ["08", "53", "57", "40"].iter().any(|class| code.starts_with(class)) => {
            Decision::Retry { backoff_max: BACKOFF_MAX }
        }
        // The database or role may be created in a moment, by the container that is just starting.
        "3D000" | "55P03" => Decision::Retry { backoff_max: BACKOFF_MAX },
        _ => Decision::Stop,
    }
}

/// The delay before the next attempt, which is counted from 1. `jitter` is any number: it spreads the attempts of
/// several relays over half of the delay.
#[must_use]
pub fn backoff(attempt: u32, backoff_max: Duration, jitter: u64) -> Duration {
    let doubled = BACKOFF_FIRST.saturating_mul(1 << attempt.saturating_sub(1).min(16));
    let delay = doubled.min(backoff_max);
    let half = u64::try_from(delay.as_micros() / 2).unwrap_or(u64::MAX).max(1);
    delay - Duration::from_micros(jitter % half)
}

/// The delay before a record that Kafka has refused is tried again, as Kafka Connect does: it doubles from 300 ms on.
#[must_use]
pub fn retry_delay(attempt: u32, delay_max: Duration) -> Duration {
    const FIRST: Duration = Duration::from_millis(300);
    FIRST.saturating_mul(1 << attempt.saturating_sub(1).min(24)).min(delay_max)
}

/// What somebody should do about a task that stopped, as the last line of its trace.
#[must_use]
pub fn advice(error: &PipelineError) -> &'static str {
    match error {
        PipelineError::Row { .. } => {
            "The row was not acknowledged, nothing is lost. Correct the connector's options (or the row), then \
             restart the task: POST /connectors/<name>/restart?includeTasks=true"
        }
        PipelineError::Source(SourceError::PositionUnusable(_)) => {
            "The relay does not go on from there, because it would pass over events in silence. Find out what happened \
             to the database and the slot. To go on without what is missing: PUT /connectors/<name>/stop, DELETE \
             /connectors/<name>/offsets, PUT /connectors/<name>/resume; with snapshot.mode=always or a new slot and \
             snapshot.mode=initial, outbox rows that are still there are published again"
        }
        PipelineError::Sink(SinkError::Fenced { .. } | SinkError::TransactionTimeout { .. }) => {
            "Nothing of it is visible to readers of committed records, and nothing was acknowledged. Correct the cause, \
             then restart the task: POST /connectors/<name>/restart?includeTasks=true"
        }
        PipelineError::Sink(_) => {
            "The record was not acknowledged, nothing is lost. Correct the topic or the producer's options, then \
             restart the task: POST /connectors/<name>/restart?includeTasks=true"
        }
        PipelineError::Source(_) | PipelineError::Progress(_) => {
            "Nothing was acknowledged beyond what Kafka has confirmed. Correct the cause, then restart the task: \
             POST /connectors/<name>/restart?includeTasks=true"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::ServerError;

    fn server(code: &str) -> PipelineError {
        let error = Box::new(ServerError { code: code.to_owned(), ..ServerError::default() });
        PipelineError::Source(SourceError::Server { doing: "stream".to_owned(), error })
    }

    #[test]
    fn what_may_come_back_is_tried_again() {
        for code in ["57P03", "57P01", "53300", "08006", "40001", "3D000"] {
            assert_eq!(
                decide(&server(code)),
                Decision::Retry { backoff_max: BACKOFF_MAX },
                "{code}"
            );
        }
        let closed = SourceError::Closed { address: "order-db:5432".to_owned() };
        assert!(matches!(decide(&PipelineError::Source(closed)), Decision::Retry { .. }));
    }

    #[test]
    fn what_stays_wrong_stops_the_task() {
        for code in ["28P01", "42501", "42601", "0A000"] {
            assert_eq!(decide(&server(code)), Decision::Stop, "{code}");
        }
        let too_large = SinkError::Record { topic: "t".to_owned(), reason: "too large".to_owned() };
        assert_eq!(decide(&PipelineError::Sink(too_large)), Decision::Stop);
    }

    #[test]
    fn a_slot_in_use_is_stood_by_for() {
        let in_use = SourceError::SlotInUse { slot: "s".to_owned(), pid: 1 };
        let standby = Decision::Retry { backoff_max: STANDBY_MAX };
        assert_eq!(decide(&PipelineError::Source(in_use)), standby);
        assert_eq!(decide(&server("55006")), standby);
        assert_eq!(decide(&server("42710")), standby);
    }

    #[test]
    fn a_refused_record_is_tried_again_after_kafka_connect_s_delays() {
        let delay =
            |attempt, max_ms| retry_delay(attempt, Duration::from_millis(max_ms)).as_millis();
        assert_eq!([1, 2, 3, 4].map(|attempt| delay(attempt, 60_000)), [300, 600, 1_200, 2_400]);
        assert_eq!([1, 2, 3, 30].map(|attempt| delay(attempt, 1_000)), [300, 600, 1_000, 1_000]);
        assert_eq!(delay(u32::MAX, 100), 100);
    }

    #[test]
    fn delays_grow_to_their_limit_and_spread() {
        let delays: Vec<Duration> =
            (1..=8).map(|attempt| backoff(attempt, BACKOFF_MAX, 0)).collect();
        assert_eq!(delays[0], BACKOFF_FIRST);
        assert!(delays.is_sorted());
        assert_eq!(delays[7], BACKOFF_MAX);
        assert!(backoff(u32::MAX, BACKOFF_MAX, u64::MAX) >= BACKOFF_MAX / 2);
    }
}
