//! Whether the server is still there: it is asked for a sign of life when it has been silent, and given up when it
//! gives none.
//!
//! TCP alone does not tell. Its keepalive needs a peer that does not answer on the network level; a proxy whose other
//! side is gone and a server that stands still both go on answering there, and an acknowledgement that is on its way
//! switches the keepalive off.

use std::time::Duration;

use tokio::time::Instant;

/// What a server may take for an answer that is there already, but has not been read: nothing is read while Kafka has
/// no room.
const READ_TIME: Duration = Duration::from_secs(1);

/// How long the server has been silent.
#[derive(Debug)]
pub(super) struct Silence {
    /// How long an answer may take.
    max: Duration,
    heard_at: Instant,
    /// When it was first asked since then.
    asked_at: Option<Instant>,
    /// End of the time for an answer that has not been read, since that was looked for. Waits are cut short and begun
    /// anew whenever something else happens; this is not.
    last_chance: Option<Instant>,
}

impl Silence {
    pub(super) const fn new(max: Duration, now: Instant) -> Self {
        Self { max, heard_at: now, asked_at: None, last_chance: None }
    }

    /// Bytes have arrived.
    pub(super) const fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.asked_at = None;
        self.last_chance = None;
    }

    /// Whether the message that is about to be sent should ask for an answer.
    pub(super) fn asks(&mut self, now: Instant) -> bool {
        let asks = now.duration_since(self.heard_at) >= self.max / 3;
        if asks {
            self.asked_at.get_or_insert(now);
        }
        asks
    }

    /// How long to wait for bytes from now on; `None`: for ever, it has not been asked.
    pub(super) fn patience(&mut self, now: Instant) -> Option<Duration> {
        let mut until = self.asked_at? + self.max;
        if until < now + READ_TIME {
            until = until.max(*self.last_chance.get_or_insert(now + READ_TIME));
        }
        Some(until.saturating_duration_since(now))
    }

    /// How long an answer may take.
    pub(super) const fn max(&self) -> Duration {
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(60);

    #[test]
    fn a_silent_server_is_asked_and_given_up_when_it_does_not_answer() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut silence = Silence::new(MAX, began);
        assert!(!silence.asks(at(10)));
        assert_eq!(silence.patience(at(10)), None);
        assert!(silence.asks(at(20)));
        assert!(silence.asks(at(30)), "it may not have come through");
        assert_eq!(silence.patience(at(30)), Some(Duration::from_secs(50)), "since the first time");
        silence.heard(at(31));
        assert_eq!(silence.patience(at(31)), None);
        assert!(!silence.asks(at(41)));
    }

    #[test]
    fn an_answer_that_waits_to_be_read_is_read() {
        let began = Instant::now();
        let mut silence = Silence::new(MAX, began);
        silence.asks(began + MAX);
        let late = began + 10 * MAX;
        assert_eq!(silence.patience(late), Some(READ_TIME));
        // A wait that is cut short is no reason to wait as long again.
        assert_eq!(silence.patience(late + READ_TIME / 2), Some(READ_TIME / 2));
        assert_eq!(silence.patience(late + READ_TIME), Some(Duration::ZERO));
        silence.heard(late + READ_TIME);
        assert_eq!(silence.patience(late + READ_TIME), None);
    }
}
