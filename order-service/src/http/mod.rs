//! The HTTP side: routes, and what every request goes through on its way to one.

mod body;
mod fields;
mod health;
mod orders;
mod problem;
mod request;
mod trace;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use self::problem::Problem;
use crate::outbox::Retention;

/// The original of 2019 ran in an application server, below this path.
const OLD_BASE_PATH: &str = "/order-service/rest";

const DOCS_PATH: &str = "/docs";

/// Upper bound of a request. The bounds inside (body, pool, lock, statement) end most of them earlier.
const REQUEST_DURATION_MAX: Duration = Duration::from_secs(15);

/// What handlers share.
#[derive(Clone)]
pub(crate) struct AppState {
    pub(crate) pool: PgPool,
    pub(crate) retention: Retention,
    /// Cancelled when the process is about to stop.
    pub(crate) stop: CancellationToken,
    prepared: Arc<AtomicBool>,
    in_flight: Arc<AtomicUsize>,
}

impl AppState {
    pub(crate) fn new(pool: PgPool, retention: Retention, stop: CancellationToken) -> AppState {
        AppState { pool, retention, stop, prepared: Arc::default(), in_flight: Arc::default() }
    }

    /// The schema is up to date; requests may come.
    pub(crate) fn set_prepared(&self) {
        self.prepared.store(true, Ordering::Release);
    }

    /// Requests that are being worked on.
    pub(crate) fn requests_in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    fn is_prepared(&self) -> bool {
        self.prepared.load(Ordering::Acquire)
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "order-service",
        description = "Takes purchase orders and writes each with its outbox events in one transaction.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    servers((url = "/"), (url = "/order-service/rest", description = "The orders paths once more, where the first version had them")),
    components(schemas(problem::Problem))
)]
struct Documentation;

/// All routes.
pub(crate) fn router(state: AppState) -> Router {
    let (orders, orders_documentation) = OpenApiRouter::with_openapi(Documentation::openapi())
        .routes(routes!(orders::list_orders, orders::place_order))
        .routes(routes!(orders::get_order))
        .routes(routes!(orders::change_order_line))
        .split_for_parts();
    let (health, health_documentation) = OpenApiRouter::new()
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .split_for_parts();
    let documentation = orders_documentation.merge_from(health_documentation);
    let orders = orders.route_layer(middleware::from_fn_with_state(state.clone(), wait_for_schema));
    // The page comes from this process and asks nobody else: its validator badge would send the document to a stranger.
    let docs = SwaggerUi::new(DOCS_PATH)
        .url("/openapi.json", documentation)
        .config(utoipa_swagger_ui::Config::default().validator_url("none"));

    let routes = Router::new()
        .merge(orders.clone())
        .nest(OLD_BASE_PATH, orders)
        .merge(health)
        .merge(docs)
        .route("/", get(|| async { Redirect::to(DOCS_PATH) }))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        // The last layer is the outermost.
        .layer(middleware::from_fn(limit_duration))
        .layer(middleware::map_response(forbid_sniffing))
        .layer(CatchPanicLayer::custom(problem::after_panic))
        .layer(trace::layer())
        .layer(middleware::from_fn_with_state(state.clone(), count_in_flight))
        .with_state(state);
    // Paths are rewritten before they are matched, hence by a layer around a router of its own.
    Router::new().fallback_service(routes).layer(middleware::map_request(drop_trailing_slash))
}

async fn unknown_route(uri: Uri) -> Problem {
    let shown: String = uri.path().chars().take(200).collect();
    std::future::ready(Problem::new(
        StatusCode::NOT_FOUND,
        format!("There is nothing at {shown}; {DOCS_PATH} lists what there is"),
    ))
    .await
}

/// The router adds the header `Allow` to this answer.
async fn wrong_method(request: Request) -> Problem {
    std::future::ready(Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} is not possible here; the header Allow says what is", request.method()),
    ))
    .await
}

/// `/orders/` means `/orders`, as in the original. The documentation page keeps its slash: its files lie behind it.
async fn drop_trailing_slash(mut request: Request) -> Request {
    let path = request.uri().path();
    let trimmed = path.trim_end_matches('/');
    if trimmed.len() < path.len() && !trimmed.is_empty() && trimmed != DOCS_PATH {
        let rewritten = match request.uri().query() {
            Some(query) => format!("{trimmed}?{query}"),
            None => trimmed.to_owned(),
        };
        if let Ok(uri) = rewritten.parse::<Uri>() {
            *request.uri_mut() = uri;
        }
    }
    std::future::ready(request).await
}

/// Before the migrations have run there are no tables to ask.
async fn wait_for_schema(State(state): State<AppState>, request: Request, next: Next) -> Response {
    if state.is_prepared() {
        next.run(request).await
    } else {
        Problem::unavailable("The service is starting and waits for its database; try again")
            .into_response()
    }
}

async fn limit_duration(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_DURATION_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            Problem::unavailable("This took too long and was given up; try again").into_response()
        }
    }
}

async fn count_in_flight(State(state): State<AppState>, request: Request, next: Next) -> Response {
    /// Counts down even if the client goes away and the request is dropped.
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::AcqRel);
        }
    }
    state.in_flight.fetch_add(1, Ordering::AcqRel);
    let _counted = Counted(Arc::clone(&state.in_flight));
    next.run(request).await
}

/// Answers quote what was sent; a browser must not take one for a page.
async fn forbid_sniffing(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    std::future::ready(response).await
}
