//! CORS: which pages of other origins a browser lets call the API. Off unless `access.control.allow.origin` is set. Pure.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method};

use super::answer::{self, Answer};
use crate::config::CrossOrigin;

/// What a page may send beside what every page may.
const HEADERS: HeaderValue =
    HeaderValue::from_static("Accept,Authorization,Content-Type,Origin,X-Requested-With");
/// Seconds for which a browser need not ask again, as in Kafka Connect.
const MAX_AGE: HeaderValue = HeaderValue::from_static("1800");

/// The answer to a browser that asks whether it may call; `None` for any other call.
pub(super) fn preflight(
    config: &CrossOrigin,
    method: &Method,
    headers: &HeaderMap,
) -> Option<Answer> {
    let asks = method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    if !asks || allowed(config, headers).is_none() {
        return None;
    }
    let mut answer = answer::empty(200);
    if let Ok(methods) = HeaderValue::from_str(&config.methods) {
        answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
    answer.headers_mut().insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    Some(answer)
}

/// The origin that an answer is to name.
pub(super) fn allowed(config: &CrossOrigin, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    let is_allowed = |known: &String| known == "*" || known.as_bytes() == origin.as_bytes();
    config.origins.iter().any(is_allowed).then(|| origin.clone())
}

/// Lets the page of that origin read an answer. Browsers send no stored credentials along: nothing allows them to.
pub(super) fn allow(answer: &mut Answer, origin: HeaderValue) {
    answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    answer.headers_mut().append(VARY, HeaderValue::from_static("Origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(origins: &[&str]) -> CrossOrigin {
        let origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        CrossOrigin { origins, methods: "GET,PUT".to_owned() }
    }

    fn headers(origin: &'static str) -> HeaderMap {
        HeaderMap::from_iter([
            (ORIGIN, HeaderValue::from_static(origin)),
            (ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PUT")),
        ])
    }

    #[test]
    fn only_origins_that_are_named_may_read_answers() {
        let check =
            |origins: &[&str], origin| allowed(&config(origins), &headers(origin)).is_some();
        assert!(check(&["https://a", "https://b"], "https://b"));
        assert!(check(&["*"], "https://b"));
        assert!(!check(&["https://a"], "https://a.evil"));
        assert!(!check(&[], "https://a"));
        assert_eq!(allowed(&config(&["*"]), &HeaderMap::new()), None);
    }

    #[test]
    fn a_browser_that_asks_is_told_the_methods_and_nobody_else_is() {
        let answer = preflight(&config(&["*"]), &Method::OPTIONS, &headers("https://a")).unwrap();
        assert_eq!(answer.headers()[ACCESS_CONTROL_ALLOW_METHODS], "GET,PUT");
        assert!(preflight(&config(&[]), &Method::OPTIONS, &headers("https://a")).is_none());
        assert!(preflight(&config(&["*"]), &Method::GET, &headers("https://a")).is_none());
    }
}
