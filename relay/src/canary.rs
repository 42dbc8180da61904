//! The canary: a logical decoding message that is written from time to time and must come back through the slot. Pure.

use std::time::{Duration, Instant};

/// Every canary's prefix begins so. A message with it is never published, whoever wrote it.
pub const PREFIX: &str = "relay.canary.";

/// Whether a logical decoding message is a canary, of this relay or of another.
#[must_use]
pub fn is_canary(prefix: &str) -> bool {
    prefix.starts_with(PREFIX)
}

/// The prefix of a connector's canaries.
#[must_use]
pub fn prefix(connector: &str) -> String {
    format!("{PREFIX}{connector}")
}

/// What came back of what was sent. Off until [`begin`](Self::begin).
#[derive(Debug, Clone, Default)]
pub struct Canary {
    /// The longest time between two returns.
    silence_max: Duration,
    /// When the last one came back, or the watch began; none: no watch.
    seen_at: Option<Instant>,
    /// What is on its way, since when.
    sent: Option<(String, Instant)>,
    /// How long the last one took.
    round_trip: Option<Duration>,
    returned: u64,
}

impl Canary {
    /// A stream begins, whose canaries must come back at least this often.
    pub fn begin(&mut self, silence_max: Duration, now: Instant) {
        self.silence_max = silence_max;
        self.seen_at = Some(now);
        self.sent = None;
    }

    /// The stream is over: nothing is expected.
    pub fn forget(&mut self) {
        self.seen_at = None;
        self.sent = None;
    }

    /// One is sent; at most one is on its way.
    pub fn sent(&mut self, token: String, now: Instant) {
        self.sent = Some((token, now));
    }

    /// It could not be sent.
    pub fn take_back(&mut self) {
        self.sent = None;
    }

    /// One came back; of another relay, or of an earlier stream, it says nothing.
    pub fn returned(&mut self, token: &[u8], now: Instant) {
        let ours = self.sent.take_if(|(sent, _)| sent.as_bytes() == token);
        let (Some((_, sent_at)), Some(seen_at)) = (ours, &mut self.seen_at) else { return };
        *seen_at = now;
        self.round_trip = Some(now.duration_since(sent_at));
        self.returned += 1;
    }

    /// Whether one is on its way.
    #[must_use]
    pub const fn is_on_its_way(&self) -> bool {
        self.sent.is_some()
    }

    /// How long the last one took.
    #[must_use]
    pub const fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// How many came back.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.returned
    }

    /// How long none has come back; none while there is no watch.
    #[must_use]
    pub fn silence(&self, now: Instant) -> Option<Duration> {
        self.seen_at.map(|seen_at| now.saturating_duration_since(seen_at))
    }

    /// What is wrong when none has come back for too long.
    #[must_use]
    pub fn late(&self, now: Instant) -> Option<String> {
        let silence = self.silence(now).filter(|silence| *silence > self.silence_max)?;
        Some(format!(
            "no canary has come back through the slot for {:.1} s, at most {:.1} s are allowed",
            silence.as_secs_f64(),
            self.silence_max.as_secs_f64()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_canary_that_comes_back_keeps_the_watch_content() {
        let begun = Instant::now();
        let mut canary = Canary::default();
        assert_eq!(canary.late(begun + 100 * SECOND), None, "nobody watches");
        canary.begin(5 * SECOND, begun);
        canary.sent("a".to_owned(), begun + SECOND);
        assert_eq!(canary.late(begun + 5 * SECOND), None);
        canary.returned(b"a", begun + 4 * SECOND);
        assert_eq!(canary.round_trip(), Some(3 * SECOND));
        assert_eq!(canary.late(begun + 9 * SECOND), None);
        let late = canary.late(begun + 10 * SECOND).unwrap();
        assert!(late.contains("6.0 s") && late.contains("5.0 s"), "{late}");
    }

    #[test]
    fn a_canary_of_somebody_else_says_nothing() {
        let begun = Instant::now();
        let mut canary = Canary::default();
        canary.begin(SECOND, begun);
        canary.sent("a".to_owned(), begun);
        canary.returned(b"b", begun + SECOND);
        assert_eq!(canary.count(), 0);
        assert!(canary.is_on_its_way() && canary.late(begun + 2 * SECOND).is_some());
        canary.forget();
        assert_eq!(canary.late(begun + 2 * SECOND), None);
    }

    #[test]
    fn canaries_are_known_by_their_prefix() {
        assert!(is_canary(&prefix("outbox-connector")) && is_canary("relay.canary."));
        assert!(!is_canary("relay.canaries") && !is_canary("order"));
    }
}
