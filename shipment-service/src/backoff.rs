//! How long to wait before the next attempt.

use std::time::Duration;

/// Short, because most outages are a restart.
const DELAY_MIN: Duration = Duration::from_millis(100);
/// Bounds how long after the end of an outage nothing happens.
const DELAY_MAX: Duration = Duration::from_secs(3);

/// Delays that double up to a bound, with jitter, so that several instances don't knock at the same moment.
#[derive(Debug)]
pub(crate) struct Backoff {
    attempt: u32,
}

impl Backoff {
    pub(crate) fn new() -> Backoff {
        Backoff { attempt: 0 }
    }

    /// Failed attempts so far.
    pub(crate) fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Counts a failed attempt and says how long to wait: between half of the delay and the whole.
    pub(crate) fn next(&mut self) -> Duration {
        let delay = DELAY_MIN.saturating_mul(1_u32 << self.attempt.min(16)).min(DELAY_MAX);
        self.attempt = self.attempt.saturating_add(1);
        delay / 2 + (delay / 2).mul_f64(random_share())
    }
}

/// A number from 0 to 1. A random UUID is random enough for a jitter, and spares a dependency.
fn random_share() -> f64 {
    f64::from(u32::from(uuid::Uuid::new_v4().as_u64_pair().1 as u16))
        / f64::from(u32::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_bound_and_never_exceed_it() {
        let mut backoff = Backoff::new();
        let delays: Vec<Duration> = (0..40).map(|_| backoff.next()).collect();
        assert!(delays[0] >= DELAY_MIN / 2 && delays[0] <= DELAY_MIN, "{:?}", delays[0]);
        assert!(delays[2] >= DELAY_MIN * 2 && delays[2] <= DELAY_MIN * 4, "{:?}", delays[2]);
        assert!(delays[39] >= DELAY_MAX / 2 && delays.iter().all(|delay| *delay <= DELAY_MAX));
        assert_eq!(backoff.attempt(), 40);
    }
}
