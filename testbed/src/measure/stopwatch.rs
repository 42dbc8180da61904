//! Durations: looking often enough to time something, and what many of them amount to.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

/// How often the awaited fact is looked at: what is timed takes tens of milliseconds at least.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Looks until `check` answers `true` and returns how long that took from `began`. Errors mean "not yet".
///
/// # Errors
/// When the deadline (from `began`) passes first.
pub(super) async fn time_until<F, Fut>(
    what: &str,
    began: Instant,
    deadline: Duration,
    mut check: F,
) -> Result<Duration>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<bool>>,
{
    loop {
        let answer = check().await;
        let elapsed = began.elapsed();
        match answer {
            Ok(true) => return Ok(elapsed),
            Err(error) if elapsed > deadline => {
                return Err(error).context(format!("after {deadline:?} still no {what}"));
            }
            Ok(false) if elapsed > deadline => bail!("after {deadline:?} still no {what}"),
            Ok(false) | Err(_) => tokio::time::sleep(LOOK_INTERVAL).await,
        }
    }
}

/// Several measurements of one thing, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    pub min_s: f64,
    pub median_s: f64,
    pub max_s: f64,
    pub count: usize,
}

impl Spread {
    pub(super) fn of(durations: &[Duration]) -> Self {
        let seconds: Vec<f64> = durations.iter().map(Duration::as_secs_f64).collect();
        Self {
            min_s: seconds.iter().copied().fold(f64::INFINITY, f64::min),
            median_s: median(&seconds),
            max_s: seconds.iter().copied().fold(0.0, f64::max),
            count: seconds.len(),
        }
    }
}

/// The middle value, or the mean of the two middle ones. Not a number for none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (None, _) => f64::NAN,
        (Some(upper), 0) => sorted.get(middle - 1).map_or(*upper, |lower| lower.midpoint(*upper)),
        (Some(value), _) => *value,
    }
}

/// The value that `percent` of the sorted values do not exceed (nearest rank). Not a number for none.
pub(super) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_whatever_the_order() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_percentile_is_a_value_that_occurred() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 50), 50.0);
        assert_eq!(percentile(&hundred, 99), 99.0);
        assert_eq!(percentile(&[7.0], 95), 7.0);
        assert!(percentile(&[], 50).is_nan());
    }

    #[test]
    fn a_spread_names_both_ends() {
        let spread = Spread::of(&[3, 1, 2].map(Duration::from_secs));
        assert_eq!(spread, Spread { min_s: 1.0, median_s: 2.0, max_s: 3.0, count: 3 });
    }
}
