//! The Kafka Connect REST API over HTTP: limits, matching of path, method and media types, then one call of the herder.

pub(super) mod access;
mod answer;
pub(super) mod body;
mod connectors;
mod cross_origin;
mod request;
mod routes;
mod server;
pub(super) mod tls;

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, Uri};
use serde_json::json;
use tokio::sync::{Semaphore, watch};

use self::access::Access;
use self::answer::Answer;
use self::routes::{NoResource, Resource};
use super::error::ConnectError;
use super::herder::Herder;
use super::{metrics, readiness};
use crate::config::WorkerConfig;

pub(super) use self::connectors::name_config;
pub(super) use self::server::serve;

/// The largest body: a configuration has a few KiB, even with certificates in it.
const BODY_MAX_BYTES: usize = 1024 * 1024;
/// How long a client may take to send its body, against slow ones that hold turns. 1 MiB comes in this time at 70 kB/s.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);
/// Calls that are worked on at one time; more wait their turn, of which there are as many as connections at the most.
const REQUESTS_MAX: usize = 64;
/// How long a call waits for its turn before it is sent away.
const TURN_WAIT: Duration = Duration::from_secs(10);
/// The longest a call may take, as in Kafka Connect.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a call waits for a worker that is starting: long enough for a script that starts both, short enough for a
/// person who has forgotten Kafka.
const STARTUP_WAIT: Duration = Duration::from_secs(10);

/// The herder, once it has read the storage topics.
pub(super) type HerderCell = watch::Receiver<Option<Arc<Herder>>>;

/// What the handlers share.
#[derive(Clone)]
pub(super) struct Api {
    herder: HerderCell,
    worker: Arc<WorkerConfig>,
    access: Arc<Access>,
    requests: Arc<Semaphore>,
}

/// A call that is to be answered.
struct Call {
    method: Method,
    resource: Resource,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Call {
    fn query(&self) -> Option<&str> {
        self.uri.query()
    }

    fn location(&self, herder: &Herder, name: &str) -> String {
        let scheme = if herder.worker.rest.tls.is_some() { "https" } else { "http" };
        request::location(scheme, &self.headers, &herder.worker.advertised.to_string(), name)
    }
}

impl Api {
    pub(super) fn new(herder: HerderCell, worker: Arc<WorkerConfig>, access: Access) -> Self {
        let requests = Arc::new(Semaphore::new(REQUESTS_MAX));
        Self { herder, worker, access: Arc::new(access), requests }
    }

    async fn handle(self, request: Request<Body>) -> Answer {
        let origins = &self.worker.rest.cross_origin;
        let origin = cross_origin::allowed(origins, request.headers());
        let asked = cross_origin::preflight(origins, request.method(), request.headers());
        let mut answer = match asked {
            Some(answer) => answer,
            None => self.admitted(request).await,
        };
        if let Some(origin) = origin {
            cross_origin::allow(&mut answer, origin);
        }
        answer
    }

    /// Lets in who may call, when it is their turn. Probes come first and need no credentials.
    async fn admitted(&self, request: Request<Body>) -> Answer {
        let resource = Resource::find(request.uri().path());
        match &resource {
            Ok(Resource::Health | Resource::Live | Resource::Ready) => {
                return self.matched(request, resource).await;
            }
            _ if !self.access.allows(request.headers()) => {
                return answer::unauthorized(&self.access.challenges());
            }
            _ => {}
        }
        let Ok(turn) = tokio::time::timeout(TURN_WAIT, self.requests.acquire()).await else {
            let message = "The worker has too many calls at once; try again later";
            return answer::error(&ConnectError::unavailable(message.to_owned()));
        };
        // An error: closed, which it never is.
        let _turn = turn;
        let answered = tokio::time::timeout(REQUEST_TIMEOUT, self.matched(request, resource)).await;
        answered.unwrap_or_else(|_| answer::error(&ConnectError::internal("Request timed out")))
    }

    /// Matches in the order of JAX-RS: path, method, content type, accepted types; then reads the body, if not of GET.
    async fn matched(
        &self,
        request: Request<Body>,
        resource: Result<Resource, NoResource>,
    ) -> Answer {
        let (parts, body) = request.into_parts();
        let resource = match resource {
            Ok(resource) => resource,
            Err(NoResource::Unknown) => return answer::unmatched(404),
            Err(NoResource::Refused(reason)) => {
                let with_page = matches!(parts.method, Method::GET | Method::HEAD | Method::POST);
                return answer::refused_path(reason, with_page);
            }
        };
        if parts.method == Method::OPTIONS {
            return answer::options(&resource.options(), request::accepts_text(&parts.headers));
        }
        let method = if parts.method == Method::HEAD { Method::GET } else { parts.method };
        if !resource.methods().contains(&method.as_str()) {
            return answer::unmatched(405);
        }
        if resource.wants_json() && !request::may_be_json(&parts.headers) {
            return answer::unmatched(415);
        }
        if resource != Resource::Metrics && !request::accepts_json(&parts.headers) {
            return answer::unmatched(406);
        }
        // Nobody asks with a body. Probes have neither turn nor credentials, and would wait for theirs without end.
        let body = if method == Method::GET { Body::empty() } else { body };
        let body = match read_body(body, BODY_TIMEOUT).await {
            Ok(body) => body,
            Err(error) => return answer::error(&error),
        };
        // A body of no known type is not read; resources that ignore it do not mind.
        let read = matches!((&method, &resource), (&Method::POST, Resource::Connectors))
            || method == Method::PATCH
            || (method == Method::PUT
                && matches!(
                    resource,
                    Resource::Config(_) | Resource::PluginValidate(_) | Resource::Logger(_)
                ));
        if read && !body.is_empty() && !request::has_content_type(&parts.headers) {
            return answer::matched(415);
        }
        let call = Call { method, resource, uri: parts.uri, headers: parts.headers, body };
        self.answer(&call).await
    }

    async fn answer(&self, call: &Call) -> Answer {
        match call.resource {
            Resource::Live => return answer::json(&json!({"status": "live"})),
            Resource::Health => return self.health(),
            Resource::Ready => return self.ready(),
            Resource::Metrics => return self.metrics(),
            _ => {}
        }
        let mut cell = self.herder.clone();
        let started = tokio::time::timeout(STARTUP_WAIT, cell.wait_for(Option::is_some)).await;
        let herder = started.ok().and_then(Result::ok).and_then(|herder| herder.clone());
        let Some(herder) = herder else {
            let message = format!(
                "The worker is starting up: it waits for Kafka at {}; try again later",
                self.worker.bootstrap_servers
            );
            return answer::error(&ConnectError::unavailable(message));
        };
        match connectors::answer(&herder, call).await {
            Ok(answer) => answer,
            Err(error) => answer::error(&error),
        }
    }

    /// `GET /health` of Kafka Connect 4.
    fn health(&self) -> Answer {
        let started = self.herder.borrow().is_some();
        match started {
            true => answer::json(&json!({
                "status": "healthy",
                "message": "Worker has completed startup and is ready to handle requests.",
            })),
            false => answer::json_with(
                503,
                &json!({"status": "starting", "message": "Worker is still starting up."}),
            ),
        }
    }

    /// While the worker starts there are no connectors to tell of.
    fn metrics(&self) -> Answer {
        let herder = self.herder.borrow().clone();
        let connectors = herder.map(|herder| herder.registry.health()).unwrap_or_default();
        answer::text(metrics::text(&connectors), metrics::CONTENT_TYPE)
    }

    fn ready(&self) -> Answer {
        let herder = self.herder.borrow().clone();
        match herder {
            Some(herder) => {
                let registered = herder.names().len();
                let (status, body) = readiness::answer(&herder.registry.health(), registered);
                answer::json_with(status, &body)
            }
            None => answer::json_with(
                503,
                &json!({
                    "status": "starting",
                    "waits_for": format!("Kafka at {}", self.worker.bootstrap_servers),
                }),
            ),
        }
    }
}

/// The whole body, where it is small enough and comes in time.
async fn read_body(body: Body, timeout: Duration) -> Result<Bytes, ConnectError> {
    match tokio::time::timeout(timeout, axum::body::to_bytes(body, BODY_MAX_BYTES)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(ConnectError {
            status: 413,
            message: format!("The request body is larger than {BODY_MAX_BYTES} bytes"),
        }),
        Err(_) => Err(ConnectError {
            status: 408,
            message: format!("The request body did not come within {} s", timeout.as_secs()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_that_does_not_come_or_is_too_large_is_refused() {
        let never = futures::stream::pending::<Result<Bytes, std::io::Error>>();
        let late = read_body(Body::from_stream(never), Duration::from_millis(1)).await;
        assert_eq!(late.unwrap_err().status, 408);
        let large = read_body(Body::from(vec![0; BODY_MAX_BYTES + 1]), BODY_TIMEOUT).await;
        assert_eq!(large.unwrap_err().status, 413);
        let whole = read_body(Body::from(vec![0; BODY_MAX_BYTES]), BODY_TIMEOUT).await;
        assert_eq!(whole.unwrap().len(), BODY_MAX_BYTES);
    }
}
