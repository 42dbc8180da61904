//! Waiting for a fact, with a deadline, instead of for a time.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::{Instant, sleep, timeout_at};

/// Short, since a test waits for this at the end of each step; the checks are cheap.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Calls `check` until it answers `Some`, and returns that. `None` and errors mean "not yet".
///
/// # Errors
/// When the deadline passes first: names `what` and the last error, if the last check had one.
pub async fn eventually<T, F, Fut>(what: &str, deadline: Duration, mut check: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    let until = Instant::now() + deadline;
    let mut last_error = None;
    loop {
        match timeout_at(until, check()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => last_error = None,
            Ok(Err(error)) => last_error = Some(error),
            Err(_) => {}
        }
        if Instant::now() >= until {
            let passed = format!("after {deadline:?} still no {what}");
            match last_error {
                Some(error) => return Err(error).context(passed),
                None => bail!(passed),
            }
        }
        sleep(CHECK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn the_first_answer_is_returned() {
        let calls = Cell::new(0);
        let answer = eventually("third call", Duration::from_secs(5), || {
            calls.set(calls.get() + 1);
            let found = (calls.get() == 3).then_some("here");
            async move { Ok(found) }
        });
        assert_eq!(answer.await.unwrap(), "here");
    }

    #[tokio::test]
    async fn a_passed_deadline_names_what_was_waited_for_and_the_last_error() {
        let answer: Result<()> =
            eventually("shipment", Duration::from_millis(50), || async { bail!("no database") })
                .await;
        let message = format!("{:#}", answer.unwrap_err());
        assert!(message.contains("no shipment") && message.contains("no database"), "{message}");
    }

    #[tokio::test]
    async fn a_check_that_hangs_does_not_outlive_the_deadline() {
        let answer: Result<()> =
            eventually("answer", Duration::from_millis(50), std::future::pending).await;
        assert!(answer.is_err());
    }
}
