//! A limit for calls of Kafka's client.

use std::time::Duration;

use super::SinkError;

/// Waits for a call of Kafka's client that blocks, and that may not come back although it has a time limit of its own:
/// then its thread is left to it, and the caller begins anew with other clients.
pub(super) async fn bounded<T: Send + 'static>(
    what: &str,
    at_most: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SinkError> {
    let called = tokio::task::spawn_blocking(call);
    match tokio::time::timeout(at_most, called).await {
        Ok(done) => done.map_err(|_| panicked()),
        Err(_) => {
            let reason = format!("{what} did not come to an end in {} s", at_most.as_secs());
            Err(SinkError::Producer { reason })
        }
    }
}

pub(super) fn panicked() -> SinkError {
    SinkError::Producer { reason: "a call of Kafka's client panicked; see the log".to_owned() }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_call_that_does_not_come_back_is_left_to_its_thread() {
        let (release, released) = mpsc::channel::<()>();
        let call = move || released.recv().is_ok();
        let left = bounded("a test", Duration::from_millis(1), call).await;
        assert!(left.unwrap_err().to_string().contains("a test did not come to an end"));
        drop(release);
        assert_eq!(bounded("a test", Duration::from_secs(60), || 5).await.unwrap(), 5);
    }
}
