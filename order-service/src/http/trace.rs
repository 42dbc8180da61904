//! One log line per request: method, route, status and time; never a body or a query.

use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::response::Response;
use tower_http::classify::{ServerErrorsAsFailures, SharedClassifier};
use tower_http::trace::{DefaultOnBodyChunk, DefaultOnEos, TraceLayer};
use tracing::{Span, field};

use super::orders::trace_context;

type Layer = TraceLayer<
    SharedClassifier<ServerErrorsAsFailures>,
    fn(&Request) -> Span,
    (),
    fn(&Response, Duration, &Span),
    DefaultOnBodyChunk,
    DefaultOnEos,
    (),
>;

/// Probes come every few seconds; their lines are for debugging.
const HEALTH_ROUTES: &str = "/health/";

/// The span that the lines of a request belong to, and the line when it is answered. A failure is logged where it is
/// handled, so none is logged here once more.
pub(super) fn layer() -> Layer {
    TraceLayer::new_for_http()
        .make_span_with(span as fn(&Request) -> Span)
        .on_request(())
        .on_response(answered as fn(&Response, Duration, &Span))
        .on_failure(())
}

fn span(request: &Request) -> Span {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let trace = trace_context(request.headers());
    let span = if route.is_some_and(|route| route.starts_with(HEALTH_ROUTES)) {
        tracing::debug_span!(
            "request",
            http.request.method = %request.method(),
            http.route = route,
            order.id = field::Empty,
            trace.id = field::Empty
        )
    } else {
        tracing::info_span!(
            "request",
            http.request.method = %request.method(),
            http.route = route,
            order.id = field::Empty,
            trace.id = field::Empty
        )
    };
    if let Some(trace) = &trace {
        span.record("trace.id", trace.trace_id());
    }
    span
}

fn answered(response: &Response, latency: Duration, span: &Span) {
    let status = response.status().as_u16();
    let latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    // A span that is filtered out is a probe's.
    if span.metadata().is_some_and(|metadata| *metadata.level() == tracing::Level::INFO) {
        tracing::info!(
            parent: span,
            http.response.status_code = status,
            http.request.duration_us = latency_us,
            "answered a request"
        );
    } else {
        tracing::debug!(
            parent: span,
            http.response.status_code = status,
            http.request.duration_us = latency_us,
            "answered a probe"
        );
    }
}
