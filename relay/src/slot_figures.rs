//! How far a replication slot is behind, and how long it can stay so; pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pgoutput::Lsn;

/// Looks at the WAL that are remembered: at one each 10 s this is an hour.
const SAMPLES_MAX: usize = 360;

/// The rate of WAL is taken over this time: long enough to even out a checkpoint, short enough to see a change of load.
const RATE_WINDOW: Duration = Duration::from_secs(300);

/// From this share of the budget on the log warns, in percent.
pub const WARN_PERCENT: u64 = 80;

/// What `pg_replication_slots` says of the slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SlotLook {
    /// Whether a session reads from it.
    pub active: bool,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: String,
    /// Bytes that can be written before the slot may lose its WAL; none: no limit is set (`max_slot_wal_keep_size`).
    pub safe_wal_size: Option<i64>,
    /// The oldest WAL that it holds back.
    pub restart_lsn: Option<Lsn>,
    /// What was acknowledged.
    pub confirmed_flush_lsn: Option<Lsn>,
    /// Where the server's WAL ends.
    pub wal_end: Lsn,
}

/// How full the budget is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fill {
    /// Below the share that warns.
    Fine,
    /// At or above it.
    Warned,
    /// Above the budget.
    Exceeded,
}

/// A look at a slot, and what follows from it and those before.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotReport {
    /// The slot's name.
    pub slot: String,
    /// What was seen.
    pub look: SlotLook,
    /// WAL that the slot holds back, in bytes.
    pub retained_bytes: u64,
    /// WAL that is not acknowledged, in bytes.
    pub lag_bytes: u64,
    /// For how long something has not been acknowledged.
    pub lag: Duration,
    /// How fast the server writes WAL, bytes a second.
    pub wal_rate: f64,
    /// When `safe_wal_size` is used up, if the slot stood still and WAL came as it did; none: never, or not known.
    pub full_in: Option<Duration>,
    /// `relay.slot.budget.bytes`.
    pub budget_bytes: Option<u64>,
}

impl SlotReport {
    /// How full the budget is; without one, as long as it lasts.
    #[must_use]
    pub fn fill(&self) -> Fill {
        let Some(budget) = self.budget_bytes else { return Fill::Fine };
        if self.retained_bytes > budget {
            Fill::Exceeded
        } else if u128::from(self.retained_bytes) * 100
            >= u128::from(budget) * u128::from(WARN_PERCENT)
        {
            Fill::Warned
        } else {
            Fill::Fine
        }
    }

    /// Why the slot makes the connector unready.
    #[must_use]
    pub fn unready(&self) -> Option<String> {
        match self.look.wal_status.as_str() {
            "lost" => return Some("the slot has lost WAL that it still needed".to_owned()),
            "unreserved" => {
                return Some(
                    "the slot is about to lose WAL that it still needs (wal_status is unreserved)"
                        .to_owned(),
                );
            }
            _ => {}
        }
        let budget = self.budget_bytes.filter(|_| self.fill() == Fill::Exceeded)?;
        Some(format!(
            "the slot holds back {} bytes of WAL, its budget (relay.slot.budget.bytes) is {budget}",
            self.retained_bytes
        ))
    }
}

/// The looks of the last time: what a single look cannot tell.
#[derive(Debug)]
pub struct SlotHistory {
    slot: String,
    samples: VecDeque<(Instant, Lsn)>,
}

impl SlotHistory {
    /// Of a slot that was not looked at yet.
    #[must_use]
    pub fn new(slot: &str) -> Self {
        Self { slot: slot.to_owned(), samples: VecDeque::new() }
    }

    /// Takes in a look.
    pub fn report(
        &mut self,
        look: SlotLook,
        budget_bytes: Option<u64>,
        now: Instant,
    ) -> SlotReport {
        let wal_end = look.wal_end;
        if self.samples.back().is_some_and(|(_, last)| *last > wal_end) {
            // Another server, or another history of this one.
            self.samples.clear();
        }
        self.samples.push_back((now, wal_end));
        if self.samples.len() > SAMPLES_MAX {
            self.samples.pop_front();
        }
        let behind =
            |lsn: Option<Lsn>| lsn.map_or(0, |lsn| wal_end.as_u64().saturating_sub(lsn.as_u64()));
        let wal_rate = self.rate(now);
        SlotReport {
            slot: self.slot.clone(),
            retained_bytes: behind(look.restart_lsn),
            lag_bytes: behind(look.confirmed_flush_lsn),
            lag: self.lag(look.confirmed_flush_lsn, now),
            wal_rate,
            full_in: look.safe_wal_size.and_then(|safe| full_in(safe, wal_rate)),
            budget_bytes,
            look,
        }
    }

    /// Since the first look at which WAL was there that is not acknowledged now.
    fn lag(&self, confirmed: Option<Lsn>, now: Instant) -> Duration {
        let Some(confirmed) = confirmed else { return Duration::ZERO };
        let first = self.samples.iter().find(|(_, wal_end)| *wal_end > confirmed);
        first.map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at))
    }

    fn rate(&self, now: Instant) -> f64 {
        let in_window =
            |(at, _): &&(Instant, Lsn)| now.saturating_duration_since(*at) <= RATE_WINDOW;
        let (Some((begun, from)), Some((_, to))) =
            (self.samples.iter().find(in_window), self.samples.back())
        else {
            return 0.0;
        };
        let seconds = now.saturating_duration_since(*begun).as_secs_f64();
        // A rate needs no more digits than f64 has.
        #[allow(clippy::cast_precision_loss)]
        let bytes = to.as_u64().saturating_sub(from.as_u64()) as f64;
        if seconds > 0.0 { bytes / seconds } else { 0.0 }
    }
}

fn full_in(safe_wal_size: i64, wal_rate: f64) -> Option<Duration> {
    if safe_wal_size <= 0 {
        return Some(Duration::ZERO);
    }
    #[allow(clippy::cast_precision_loss)]
    let seconds = safe_wal_size as f64 / wal_rate;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn look(wal_end: u64, restart: u64, confirmed: u64) -> SlotLook {
        SlotLook {
            active: true,
            wal_status: "reserved".to_owned(),
            safe_wal_size: Some(1_000),
            restart_lsn: Some(Lsn::new(restart)),
            confirmed_flush_lsn: Some(Lsn::new(confirmed)),
            wal_end: Lsn::new(wal_end),
        }
    }

    #[test]
    fn lag_is_told_in_bytes_and_in_seconds_since_the_first_look_that_saw_it() {
        let begun = Instant::now();
        let mut history = SlotHistory::new("slot");
        let report = history.report(look(100, 50, 100), None, begun);
        assert_eq!((report.lag_bytes, report.retained_bytes), (0, 50));
        assert_eq!(report.lag, Duration::ZERO);
        history.report(look(200, 50, 100), None, begun + 10 * SECOND);
        let report = history.report(look(300, 50, 100), None, begun + 20 * SECOND);
        assert_eq!((report.lag_bytes, report.lag), (200, 10 * SECOND));
        let report = history.report(look(300, 50, 300), None, begun + 30 * SECOND);
        assert_eq!((report.lag_bytes, report.lag), (0, Duration::ZERO));
    }

    #[test]
    fn the_time_until_the_slot_is_full_follows_from_the_rate_of_wal() {
        let begun = Instant::now();
        let mut history = SlotHistory::new("slot");
        assert_eq!(history.report(look(0, 0, 0), None, begun).full_in, None);
        let report = history.report(look(100, 0, 0), None, begun + 10 * SECOND);
        assert!((report.wal_rate - 10.0).abs() < 1e-9);
        assert_eq!(report.full_in, Some(100 * SECOND));
        let spent = SlotLook { safe_wal_size: Some(-1), ..look(100, 0, 0) };
        let report = history.report(spent, None, begun + 20 * SECOND);
        assert_eq!(report.full_in, Some(Duration::ZERO));
        let unlimited = SlotLook { safe_wal_size: None, ..look(200, 0, 0) };
        assert_eq!(history.report(unlimited, None, begun + 30 * SECOND).full_in, None);
    }

    #[test]
    fn a_budget_warns_at_its_share_and_is_exceeded_above_it() {
        let report = |retained, budget| {
            SlotHistory::new("slot").report(look(retained, 0, 0), budget, Instant::now())
        };
        assert_eq!(report(u64::MAX / 4, None).fill(), Fill::Fine);
        for (retained, fill) in
            [(799, Fill::Fine), (800, Fill::Warned), (1_000, Fill::Warned), (1_001, Fill::Exceeded)]
        {
            assert_eq!(report(retained, Some(1_000)).fill(), fill, "{retained}");
        }
        assert_eq!(report(1_000, Some(1_000)).unready(), None);
        let reason = report(1_001, Some(1_000)).unready().unwrap();
        assert!(reason.contains("1001") && reason.contains("relay.slot.budget.bytes"), "{reason}");
    }

    #[test]
    fn a_slot_that_loses_its_wal_is_not_ready() {
        for status in ["lost", "unreserved"] {
            let look = SlotLook { wal_status: status.to_owned(), ..look(1, 1, 1) };
            assert!(
                SlotHistory::new("slot").report(look, None, Instant::now()).unready().is_some()
            );
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_a_server_that_was_set_back_begins_anew() {
        let begun = Instant::now();
        let mut history = SlotHistory::new("slot");
        for index in 0..2_000 {
            history.report(look(index, 0, 0), None, begun + SECOND);
        }
        assert_eq!(history.samples.len(), SAMPLES_MAX);
        history.report(look(5, 0, 0), None, begun + 2 * SECOND);
        assert_eq!(history.samples.len(), 1);
    }
}
