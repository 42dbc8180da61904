//! Health: is the process alive, and may it get requests.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::AppState;
use crate::database;

/// What a probe is told.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// `UP` or `DOWN`.
    #[schema(example = "UP")]
    status: &'static str,
    checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Serialize, ToSchema)]
pub(crate) struct Check {
    #[schema(example = "database")]
    name: &'static str,
    /// `UP` or `DOWN`.
    #[schema(example = "UP")]
    status: &'static str,
}

fn health(checks: Vec<(&'static str, bool)>) -> (StatusCode, Json<Health>) {
    let word = |up: bool| if up { "UP" } else { "DOWN" };
    let up = checks.iter().all(|(_, up)| *up);
    let code = if up { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let checks = checks.into_iter().map(|(name, up)| Check { name, status: word(up) }).collect();
    (code, Json(Health { status: word(up), checks }))
}

/// The process runs. Says nothing about the database: restarting us would not heal it.
#[utoipa::path(get, path = "/health/live", tag = "health",
    responses((status = 200, description = "The process runs", body = Health)))]
pub(super) async fn live() -> impl IntoResponse {
    std::future::ready(health(Vec::new())).await
}

/// Orders can be taken: the schema is up to date, the database answers, and we are not about to stop.
#[utoipa::path(get, path = "/health/ready", tag = "health", responses(
    (status = 200, description = "Orders can be taken", body = Health),
    (status = 503, description = "Starting, stopping, or without a database", body = Health)))]
pub(super) async fn ready(State(state): State<AppState>) -> impl IntoResponse {
    let prepared = state.is_prepared();
    health(vec![
        ("schema", prepared),
        ("database", prepared && database::answers(&state.pool).await),
        ("accepting", !state.stop.is_cancelled()),
    ])
}
