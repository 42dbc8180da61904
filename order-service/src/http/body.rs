//! The body of a request: JSON only, of bounded size, within a bounded time.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use futures::StreamExt;

use super::problem::Problem;

/// Largest body that is looked at. An order of 500 lines with long names needs about 150 kB. The event made of a body is
/// little larger than the body, so this, too, keeps it below the 1 MB that Kafka takes as one record by default.
pub(crate) const BODY_BYTES_MAX: usize = 512 * 1024;

/// How much of a larger body is read and thrown away, so that a client that is still sending gets to read the 413
/// instead of a broken connection.
const DISCARD_BYTES_MAX: usize = 32 * 1024 * 1024;

/// How long a client may take to send a body.
const BODY_READ_DURATION_MAX: Duration = Duration::from_secs(8);

/// The bytes of a JSON body. Whether they are JSON is for the reader of the request to say.
pub(crate) struct JsonBody(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Send the body as JSON, with the header Content-Type: application/json",
            ));
        }
        let waits = request.headers().contains_key(header::EXPECT);
        let length = announced_length(request.headers());
        if length
            .is_some_and(|length| length > DISCARD_BYTES_MAX || (waits && length > BODY_BYTES_MAX))
        {
            // Too much even to throw away, or the client asked before sending: it need not send at all.
            return Err(too_large());
        }
        tokio::time::timeout(BODY_READ_DURATION_MAX, read(request.into_body()))
            .await
            .unwrap_or_else(|_| {
                Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time"))
            })
            .map(JsonBody)
    }
}

/// `application/json` or a type that ends in `+json`, with whatever parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(content_type) =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn announced_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn read(body: Body) -> Result<Bytes, Problem> {
    let mut chunks = body.into_data_stream();
    let mut kept = Vec::new();
    let mut received = 0_usize;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| {
            Problem::new(StatusCode::BAD_REQUEST, "The body ended before it was complete")
        })?;
        received = received.saturating_add(chunk.len());
        if received > DISCARD_BYTES_MAX {
            break;
        }
        if received <= BODY_BYTES_MAX {
            kept.extend_from_slice(&chunk);
        }
    }
    if received > BODY_BYTES_MAX { Err(too_large()) } else { Ok(kept.into()) }
}

fn too_large() -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("The body must not be larger than {BODY_BYTES_MAX} bytes; split the order"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content_type: Option<&'static str>, expected: bool) {
        let mut headers = HeaderMap::new();
        if let Some(value) = content_type {
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
        }
        assert_eq!(is_json(&headers), expected, "{content_type:?}");
    }

    #[test]
    fn json_is_known_by_its_content_type() {
        check(Some("application/json"), true);
        check(Some("Application/JSON; charset=utf-8"), true);
        check(Some("application/merge-patch+json"), true);
        check(Some("text/plain"), false);
        check(Some("application/jsonp"), false);
        check(None, false);
    }
}
