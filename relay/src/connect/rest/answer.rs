//! Answers in the forms that Kafka Connect's web server gives them.

use axum::body::Body;
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE,
};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::super::error::ConnectError;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(super) type Answer = Response<Body>;

pub(super) fn json(value: &impl Serialize) -> Answer {
    json_with(200, value)
}

pub(super) fn json_with(status: u16, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => build(status, body, &[(CONTENT_TYPE, JSON)]),
        Err(error) => build(500, error.to_string(), &[]),
    }
}

pub(super) fn created(location: &str, value: &impl Serialize) -> Answer {
    let mut answer = json_with(201, value);
    if let Ok(location) = HeaderValue::from_str(location) {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer
}

pub(super) fn text(text: String, content_type: &'static str) -> Answer {
    build(200, text, &[(CONTENT_TYPE, HeaderValue::from_static(content_type))])
}

pub(super) fn empty(status: u16) -> Answer {
    build(status, Body::empty(), &[])
}

/// An error of a resource.
pub(super) fn error(error: &ConnectError) -> Answer {
    json_with(error.status, &error.body())
}

/// What a connection beyond the limit is told; then it is closed.
pub(super) fn busy() -> Answer {
    let message = "The worker has too many connections; try again later";
    let mut answer = json_with(503, &json!({"error_code": 503, "message": message}));
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// Who calls has to say who they are, in one of these ways.
pub(super) fn unauthorized(challenges: &[&'static str]) -> Answer {
    let message = "User cannot access the resource.";
    let mut answer = json_with(401, &json!({"error_code": 401, "message": message}));
    for challenge in challenges {
        answer.headers_mut().append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    answer
}

/// An error before a resource was reached: JSON without saying so, as Kafka Connect has it.
pub(super) fn unmatched(status: u16) -> Answer {
    build(status, http_error(status).to_string(), &[])
}

/// The same words from a resource.
pub(super) fn matched(status: u16) -> Answer {
    json_with(status, &http_error(status))
}

fn http_error(status: u16) -> serde_json::Value {
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let reason = code.canonical_reason().unwrap_or_default();
    json!({"error_code": status, "message": format!("HTTP {status} {reason}")})
}

/// What OPTIONS answers.
pub(super) fn options(allowed: &str, as_text: bool) -> Answer {
    let body = if as_text { allowed.to_owned() } else { String::new() };
    let mut answer = build(200, body, &[]);
    let headers = answer.headers_mut();
    if let Ok(allowed) = HeaderValue::from_str(allowed) {
        headers.insert(ALLOW, allowed);
    }
    if as_text {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    answer
}

/// A path that the web server itself refuses; only what a browser may show gets a page.
pub(super) fn refused_path(reason: &str, with_page: bool) -> Answer {
    let cache = (CACHE_CONTROL, HeaderValue::from_static("must-revalidate,no-cache,no-store"));
    if !with_page {
        return build(400, Body::empty(), &[cache]);
    }
    let page = format!(
        "<html>\n<head>\n<meta http-equiv=\"Content-Type\" content=\"text/html;charset=ISO-8859-1\"/>\n\
         <title>Error 400 {reason}</title>\n</head>\n<body>\n<h2>HTTP ERROR 400 {reason}</h2>\n<table>\n\
         <tr><th>URI:</th><td>/badURI</td></tr>\n<tr><th>STATUS:</th><td>400</td></tr>\n\
         <tr><th>MESSAGE:</th><td>{reason}</td></tr>\n</table>\n<hr/>\
         <a href=\"https://jetty.org/\">Powered by Jetty:// 12.0.34</a><hr/>\n\n</body>\n</html>\n"
    );
    let html = HeaderValue::from_static("text/html;charset=iso-8859-1");
    build(400, page, &[cache, (CONTENT_TYPE, html)])
}

fn build(status: u16, body: impl Into<Body>, headers: &[(HeaderName, HeaderValue)]) -> Answer {
    let mut answer = Response::new(body.into());
    *answer.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        answer.headers_mut().insert(name.clone(), value.clone());
    }
    answer
}
