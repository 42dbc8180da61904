//! `/health/live`: restart me when this fails. `/health/ready`: orders flow now.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::Shared;

/// Shorter than the timeout that probes usually have.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the consumer's loop comes round. A database or a Kafka that is away is no reason to be restarted.
pub(super) async fn live(State(shared): State<Shared>) -> (StatusCode, Json<Value>) {
    let age = u64::try_from(shared.vitals.beat_age().as_millis()).unwrap_or(u64::MAX);
    answer(shared.vitals.live(), json!({ "consumerBeatAgeMillis": age }))
}

/// Whether the database answers, no message is held, and the consumer is a member of its group or waits for a topic that is
/// yet to come.
pub(super) async fn ready(State(shared): State<Shared>) -> (StatusCode, Json<Value>) {
    let question = sqlx::query("select 1").execute(&shared.pool);
    let database = matches!(timeout(DATABASE_TIMEOUT, question).await, Ok(Ok(_)));
    let consuming = shared.vitals.consuming();
    answer(
        database && consuming,
        json!({
            "database": { "status": status(database) },
            "consumer": { "status": status(consuming), "stage": shared.vitals.consumer() },
        }),
    )
}

fn answer(healthy: bool, checks: Value) -> (StatusCode, Json<Value>) {
    let code = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({ "status": status(healthy), "checks": checks })))
}

fn status(up: bool) -> &'static str {
    if up { "UP" } else { "DOWN" }
}
