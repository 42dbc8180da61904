//! `relay.*`: options that Debezium does not have: how the slot is watched, and how soon a silent relay loses it.

use std::time::Duration;

use super::options::Options;

/// Longest time that can be asked for: a day.
const TIME_MAX_MS: u64 = 24 * 3600 * 1000;

/// A relay that is frozen or cut off keeps the slot this long. It is told of its server three times in it, so that two
/// messages may get lost or late; less would end streams of machines that are only busy.
const WAL_SENDER_TIMEOUT_MS: u64 = 10_000;

/// Less than a second is shorter than the pauses of a busy machine.
const WAL_SENDER_TIMEOUT_MIN_MS: u64 = 1_000;

/// A look at the slot costs one row of a system view; a disk that fills up in less than some minutes is no disk.
const POLL_INTERVAL_MS: u64 = 10_000;

/// The default bound for a canary on top of its interval: far above the round trip of a healthy stream (milliseconds),
/// and above the pauses of a broker that elects a leader.
const CANARY_TIMEOUT_MS: u64 = 30_000;

/// What is done when the slot is over its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BudgetAction {
    /// The log and readiness tell.
    #[default]
    None,
    /// The task stops and the slot is dropped: the database is worth more than the events.
    Drop,
}

/// How the slot is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardConfig {
    /// `relay.wal.sender.timeout.ms`: after this silence PostgreSQL ends the stream of a relay; none: as the server has it.
    pub wal_sender_timeout: Option<Duration>,
    /// `relay.slot.poll.interval.ms`: how often the slot is looked at; none: never.
    pub poll_interval: Option<Duration>,
    /// `relay.slot.budget.bytes`: WAL that the slot may hold back; none: any.
    pub budget_bytes: Option<u64>,
    /// `relay.slot.budget.action`.
    pub budget_action: BudgetAction,
    /// `relay.canary.interval.ms`: how often a canary is sent; none: never.
    pub canary_interval: Option<Duration>,
    /// `relay.canary.timeout.ms`: how long one may take to come back.
    pub canary_timeout: Duration,
}

impl GuardConfig {
    pub(super) fn parse(options: &mut Options<'_>) -> Self {
        let timeout = options.milliseconds(
            "relay.wal.sender.timeout.ms",
            WAL_SENDER_TIMEOUT_MS,
            0..=TIME_MAX_MS,
        );
        if !timeout.is_zero() && timeout < Duration::from_millis(WAL_SENDER_TIMEOUT_MIN_MS) {
            let value = Some(timeout.as_millis().to_string());
            let message = format!("it is 0, or at least {WAL_SENDER_TIMEOUT_MIN_MS}");
            options.refuse("relay.wal.sender.timeout.ms", value, message);
        }
        let some = |time: Duration| Some(time).filter(|time| !time.is_zero());
        let poll =
            options.milliseconds("relay.slot.poll.interval.ms", POLL_INTERVAL_MS, 0..=TIME_MAX_MS);
        let budget = options.number("relay.slot.budget.bytes", 0, 0..=u64::MAX >> 1);
        let actions = [("none", BudgetAction::None), ("drop", BudgetAction::Drop)];
        let action = options.choice("relay.slot.budget.action", &actions, BudgetAction::None);
        let canary = options.milliseconds("relay.canary.interval.ms", 0, 0..=TIME_MAX_MS);
        let canary_timeout =
            options.milliseconds("relay.canary.timeout.ms", CANARY_TIMEOUT_MS, 1..=TIME_MAX_MS);
        if (budget == 0 || poll.is_zero()) && action == BudgetAction::Drop {
            let message = "it needs relay.slot.budget.bytes, and looks at the slot".to_owned();
            options.refuse("relay.slot.budget.action", Some("drop".to_owned()), message);
        }
        Self {
            wal_sender_timeout: some(timeout),
            poll_interval: some(poll),
            budget_bytes: Some(budget).filter(|budget| *budget > 0),
            budget_action: action,
            canary_interval: some(canary),
            canary_timeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn parse(given: &[(&str, &str)]) -> Result<GuardConfig, Vec<String>> {
        let properties: BTreeMap<String, String> =
            given.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let mut options = Options::new(&properties);
        let config = GuardConfig::parse(&mut options);
        match options.finish() {
            Ok(_) => Ok(config),
            Err(errors) => Err(errors.into_iter().map(|error| error.option).collect()),
        }
    }

    #[test]
    fn the_slot_is_watched_unless_told_otherwise_and_nothing_is_written_or_dropped() {
        let default = parse(&[]).unwrap();
        assert_eq!(default.wal_sender_timeout, Some(Duration::from_secs(10)));
        assert_eq!(default.poll_interval, Some(Duration::from_secs(10)));
        assert_eq!((default.budget_bytes, default.canary_interval), (None, None));
        assert_eq!(default.budget_action, BudgetAction::None);
        let off =
            parse(&[("relay.wal.sender.timeout.ms", "0"), ("relay.slot.poll.interval.ms", "0")]);
        let off = off.unwrap();
        assert_eq!((off.wal_sender_timeout, off.poll_interval), (None, None));
        let drop = [("relay.slot.budget.bytes", "5"), ("relay.slot.budget.action", "drop")];
        assert_eq!(parse(&drop).unwrap().budget_action, BudgetAction::Drop);
    }

    #[test]
    fn what_cannot_be_watched_is_refused() {
        for (option, value) in [
            ("relay.wal.sender.timeout.ms", "5"),
            ("relay.slot.budget.action", "drop"),
            ("relay.slot.budget.action", "stop"),
            ("relay.slot.budget.bytes", "1 GB"),
            ("relay.canary.timeout.ms", "0"),
        ] {
            assert_eq!(parse(&[(option, value)]).unwrap_err(), [option], "{value}");
        }
    }
}
