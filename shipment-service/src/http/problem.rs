//! Errors as RFC 9457 problem documents. None of them shows what the database said.

use std::any::Any;

use axum::Json;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// An error answer.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    /// The parameter that is wrong, where one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            field: None,
        }
    }

    /// A parameter that can't be taken.
    pub(super) fn bad_parameter(field: &'static str, detail: impl Into<String>) -> Problem {
        Problem { field: Some(field), ..Problem::new(StatusCode::BAD_REQUEST, detail) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

/// The log has the cause, the caller the fact.
impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Problem {
        tracing::warn!(error = %error, "MySQL does not answer a REST request");
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "The database does not answer; try again later",
        )
    }
}

/// The answer to a request whose handler panicked. The panic itself has been printed by then.
pub(super) fn after_panic(_: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("The handler of a REST request panicked");
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "Something went wrong; the service's log says what",
    )
    .into_response()
}
