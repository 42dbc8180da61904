//! Problems: every answer that is not a success, as JSON of RFC 9457 (<https://www.rfc-editor.org/rfc/rfc9457>).

use std::any::Any;
use std::error::Error;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::{error, warn};
use utoipa::ToSchema;

use crate::failure::Failure;

/// When a client may try again after a 503: the pool reconnects at once, a database needs a moment.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// What is wrong with a request, and what to do.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    #[serde(skip)]
    status: StatusCode,
    /// `about:blank`: the status says what kind of problem it is.
    #[schema(example = "about:blank")]
    r#type: &'static str,
    /// The status in words.
    #[schema(example = "Bad Request")]
    title: &'static str,
    /// The HTTP status once more, for readers that only keep the body.
    #[serde(rename = "status")]
    #[schema(example = 400)]
    code: u16,
    /// What happened and what to do.
    detail: String,
    /// One entry per field or parameter that has to change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
}

/// One field or parameter that has to change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// Where in the body, as a JSON pointer in a URI fragment (RFC 6901).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "#/lineItems/0/quantity")]
    pub(crate) pointer: Option<String>,
    /// Which parameter of the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "limit")]
    pub(crate) parameter: Option<&'static str>,
    /// What to do.
    #[schema(example = "quantity must be a whole number from 1 to 1000000")]
    pub(crate) detail: String,
}

impl FieldError {
    pub(crate) fn parameter(parameter: &'static str, detail: impl Into<String>) -> FieldError {
        FieldError { pointer: None, parameter: Some(parameter), detail: detail.into() }
    }
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem {
            status,
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("Problem"),
            code: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    /// A 400 that names fields. The detail repeats the first of them, for readers of one line.
    pub(crate) fn fields(errors: Vec<FieldError>) -> Problem {
        let mut detail = errors.first().map_or_else(String::new, |error| error.detail.clone());
        if errors.len() > 1 {
            detail.push_str(&format!(" (and {} more, see errors)", errors.len() - 1));
        }
        Problem { errors, ..Problem::new(StatusCode::BAD_REQUEST, detail) }
    }

    /// A 503 that asks to try again.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    fn internal() -> Problem {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Something went wrong on our side; the service's log says what",
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER.as_secs()));
        }
        response
    }
}

/// Where a failure is handled, hence where it is logged: the answer never shows what the database said.
impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match &failure {
            Failure::OrderNotFound(_) | Failure::LineNotFound(_) => {
                Problem::new(StatusCode::NOT_FOUND, failure.to_string())
            }
            Failure::Unavailable(source) => {
                warn!(error = %source, "{failure}");
                Problem::unavailable("The database cannot be used now; try again")
            }
            Failure::Database(_) | Failure::Event(_) => {
                error!(error = failure.source().map(tracing::field::display), "{failure}");
                Problem::internal()
            }
        }
    }
}

/// A path whose bytes are no text. The router's own message is for us; a path has nothing else to get wrong.
impl From<PathRejection> for Problem {
    fn from(_: PathRejection) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, "The path is not valid; ids are whole numbers")
    }
}

/// A query that is no list of names and values.
impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, rejection.body_text())
    }
}

/// The answer to a request whose handler panicked. The panic itself has been printed by then.
pub(crate) fn after_panic(_: Box<dyn Any + Send + 'static>) -> Response {
    error!("a request's handler panicked");
    Problem::internal().into_response()
}
