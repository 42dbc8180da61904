//! One message = one transaction: dedup, the shipment, and the memory of the message stand or fall together.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use sqlx::MySqlPool;
use tokio::time::{sleep, timeout};

use crate::backoff::Backoff;
use crate::dead_letter::DeadLetters;
use crate::event::{self, Content, OrderEvent, Poison};
use crate::failure::{self, Answer};
use crate::message::Message;
use crate::message_log::{self, Seen};
use crate::shipment::NewShipment;
use crate::store::{self, Inserted};

/// A transaction of two inserts that takes longer hangs on a connection that leads nowhere. Above the wait for a
/// connection (3 s) and for the locks of both inserts (2 s each), which end sooner and say more. The look for a shipment
/// after a collision hardly waits: the insert that collided has its lock.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(8);
/// Deadlocks are repeated at once this often; then they wait like any other failure, so that a livelock ends.
const RETRIES_AT_ONCE_MAX: u32 = 5;

/// What became of a message. Each of these ends its journey: its offset may be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A new event, handled, and recorded in the message log.
    Handled,
    /// An event that was handled before.
    Duplicate,
    /// Poison: the dead letter topic has it, confirmed by the broker.
    DeadLettered,
}

/// Handles messages, one at a time.
pub(crate) struct Handler {
    pool: MySqlPool,
    dead_letters: DeadLetters,
}

impl Handler {
    pub(crate) fn new(pool: MySqlPool, dead_letters: DeadLetters) -> Handler {
        Handler { pool, dead_letters }
    }

    /// Handles a message for good, however long the database or Kafka are away.
    ///
    /// May be dropped at any point: an open transaction is rolled back, and the message comes again.
    pub(crate) async fn handle(&self, message: &Message) -> Outcome {
        let handled = match event::read(message) {
            Ok(event) => {
                log_received(message, &event);
                self.apply_until_it_counts(&event).await
            }
            Err(poison) => Err(poison),
        };
        match handled {
            Ok(outcome) => outcome,
            Err(poison) => {
                self.dead_letters.publish(message, &poison).await;
                Outcome::DeadLettered
            }
        }
    }

    /// Repeats the transaction until it commits or the data turns out to be poison.
    async fn apply_until_it_counts(&self, event: &OrderEvent) -> Result<Outcome, Poison> {
        let mut backoff = Backoff::new();
        let mut retries_at_once = 0;
        loop {
            let (answer, what, problem) = match timeout(ATTEMPT_TIMEOUT, self.apply(event)).await {
                Ok(Ok(outcome)) => {
                    if backoff.attempt() > 0 {
                        tracing::info!(outbox.event_id = %event.event_id, retry.attempts = backoff.attempt(), "MySQL takes events again, the consumer goes on");
                    }
                    return Ok(outcome);
                }
                Ok(Err(error)) => {
                    (failure::answer(&error), failure::headline(&error), error.to_string())
                }
                Err(_) => (
                    Answer::RetryLater,
                    failure::AWAY,
                    format!("no answer within {} s", ATTEMPT_TIMEOUT.as_secs()),
                ),
            };
            match answer {
                Answer::DeadLetter => return Err(Poison::RefusedByDatabase(problem)),
                Answer::RetryAtOnce if retries_at_once < RETRIES_AT_ONCE_MAX => {
                    retries_at_once += 1
                }
                Answer::RetryAtOnce | Answer::RetryLater => {
                    // Said once for an outage, not for every attempt.
                    if backoff.attempt() == 0 {
                        tracing::warn!(outbox.event_id = %event.event_id, error = problem, "{what}: the consumer holds the message and retries");
                    } else {
                        tracing::debug!(outbox.event_id = %event.event_id, error = problem, "the consumer still holds the message");
                    }
                    sleep(backoff.next()).await;
                }
            }
        }
    }

    /// The transaction. Dropping it, or an error, rolls everything back.
    async fn apply(&self, event: &OrderEvent) -> sqlx::Result<Outcome> {
        let mut transaction = self.pool.begin().await?;
        if message_log::record(&mut transaction, event.event_id).await? == Seen::Before {
            transaction.rollback().await?;
            tracing::info!("Event with UUID {} was already retrieved, ignoring it", event.event_id);
            return Ok(Outcome::Duplicate);
        }
        let inserted = match &event.content {
            Content::OrderCreated { order, .. } => {
                store::insert(&mut transaction, &NewShipment::of(order)).await?
            }
            Content::OrderLineUpdated { .. } | Content::Unknown => Inserted::Yes,
        };
        transaction.commit().await?;
        log_handled(event, inserted);
        Ok(Outcome::Handled)
    }
}

/// The line of the original, after the commit: one line is one event that counts. An attempt that was rolled back says
/// nothing here, and its repetition nothing twice.
fn log_handled(event: &OrderEvent, inserted: Inserted) {
    match &event.content {
        Content::OrderCreated { order, payload } => {
            tracing::info!("Processing 'OrderCreated' event: {payload}");
            if inserted == Inserted::OrderHasShipment {
                tracing::warn!(
                    outbox.event_id = %event.event_id,
                    order.id = order.order_id,
                    "Another event made the shipment of this order already; the event is recorded, no second shipment is made"
                );
            }
        }
        Content::OrderLineUpdated { payload } => {
            tracing::info!("Processing 'OrderLineUpdated' event: {payload}");
        }
        Content::Unknown => {
            tracing::warn!(outbox.event_id = %event.event_id, outbox.event_type = event.event_type, "Unknown event type");
        }
    }
}

/// The line of the original. The key is always quoted, as there, whatever the producer's converter does.
fn log_received(message: &Message, event: &OrderEvent) {
    let timestamp = message
        .timestamp_millis
        .and_then(DateTime::from_timestamp_millis)
        .map(|timestamp| timestamp.to_rfc3339_opts(SecondsFormat::Millis, true))
        .unwrap_or_default();
    tracing::info!(
        "Received 'Order' event -- key: {:?}, event id: '{}', event type: '{}', ts: '{timestamp}'",
        event::display_key(message.key.as_deref()),
        event.event_id,
        event.event_type.escape_debug(),
    );
}
