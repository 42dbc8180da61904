//! An answer that is no success, as Kafka Connect words it: a status code and a message.

use serde_json::{Value, json};

/// What a request failed with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct ConnectError {
    /// HTTP status code; also `error_code` of the body.
    pub(super) status: u16,
    /// For the caller.
    pub(super) message: String,
}

impl ConnectError {
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self { status: 400, message: message.into() }
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self { status: 403, message: message.into() }
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self { status: 404, message: message.into() }
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self { status: 409, message: message.into() }
    }

    /// Kafka Connect answers 500 to a body that it cannot read; clients may rely on it.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self { status: 500, message: message.into() }
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self { status: 503, message: message.into() }
    }

    /// The body of every error of the REST API.
    pub(super) fn body(&self) -> Value {
        json!({"error_code": self.status, "message": self.message})
    }
}
