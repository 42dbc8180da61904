//! What a request's headers and query say, read as JAX-RS reads them. Pure.

use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE, HOST};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// What is encoded in a path that is built from a name; a slash is not, as in Kafka Connect.
const IN_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Whether the body may be read as JSON, by what the request says of it.
pub(super) fn may_be_json(headers: &HeaderMap) -> bool {
    header(headers, &CONTENT_TYPE).is_none_or(matches_json)
}

pub(super) fn has_content_type(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_TYPE)
}

/// Whether the client takes JSON as an answer.
pub(super) fn accepts_json(headers: &HeaderMap) -> bool {
    accepts(headers, matches_json)
}

/// Whether the client takes plain text as an answer.
pub(super) fn accepts_text(headers: &HeaderMap) -> bool {
    accepts(headers, |kind| matches!(media_type(kind).as_str(), "*/*" | "text/*" | "text/plain"))
}

/// All values of a query parameter.
pub(super) fn query_values(query: Option<&str>, name: &str) -> Vec<String> {
    let pairs = query.unwrap_or_default().split('&');
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.filter(|(found, _)| decode(found) == name).map(|(_, value)| decode(value)).collect()
}

/// A flag as Java's `Boolean.valueOf` reads it: anything but `true` is false.
pub(super) fn query_flag(query: Option<&str>, name: &str) -> bool {
    query_values(query, name).first().is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Where a connector is to be found, seen from the client.
pub(super) fn location(scheme: &str, headers: &HeaderMap, advertised: &str, name: &str) -> String {
    let host = header(headers, &HOST).unwrap_or(advertised);
    format!("{scheme}://{host}/connectors/{}", utf8_percent_encode(name, IN_PATH))
}

fn header<'a>(headers: &'a HeaderMap, name: &axum::http::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn accepts(headers: &HeaderMap, matches: impl Fn(&str) -> bool) -> bool {
    let mut values = headers.get_all(ACCEPT).iter().peekable();
    if values.peek().is_none() {
        return true;
    }
    let kinds = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let mut wanted = kinds.filter(|kind| !refused(kind));
    wanted.any(matches)
}

/// `q=0` says what is not wanted.
fn refused(kind: &str) -> bool {
    let weight = kind.split(';').skip(1).find_map(|parameter| parameter.trim().strip_prefix("q="));
    weight.is_some_and(|weight| weight.trim().parse::<f32>().is_ok_and(|weight| weight <= 0.0))
}

fn matches_json(kind: &str) -> bool {
    matches!(media_type(kind).as_str(), "*/*" | "application/*" | "application/json")
}

fn media_type(kind: &str) -> String {
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: axum::http::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, axum::http::HeaderValue::from_static(value))])
    }

    #[test]
    fn accept_and_content_type_are_matched_as_media_types() {
        assert!(accepts_json(&HeaderMap::new()));
        assert!(accepts_json(&with(ACCEPT, "text/html,application/xhtml+xml,*/*;q=0.8")));
        assert!(!accepts_json(&with(ACCEPT, "text/plain")));
        assert!(!accepts_json(&with(ACCEPT, "application/json;q=0")));
        assert!(may_be_json(&with(CONTENT_TYPE, "application/json; charset=UTF-8")));
        assert!(!may_be_json(&with(CONTENT_TYPE, "text/plain")));
    }

    #[test]
    fn query_parameters_may_repeat_and_flags_are_lenient() {
        let query = Some("expand=info&expand=status&includeTasks=TRUE&onlyFailed=maybe");
        assert_eq!(query_values(query, "expand"), ["info", "status"]);
        assert!(query_flag(query, "includeTasks"));
        assert!(!query_flag(query, "onlyFailed"));
        assert!(!query_flag(None, "onlyFailed"));
    }

    #[test]
    fn the_location_is_that_of_the_request_s_host() {
        let headers = with(HOST, "relay:8083");
        assert_eq!(
            location("http", &headers, "x:1", "büro a/b"),
            "http://relay:8083/connectors/b%C3%BCro%20a/b"
        );
        assert_eq!(location("https", &HeaderMap::new(), "x:1", "a"), "https://x:1/connectors/a");
    }
}
