//! The service in this process, on a free port, with a database of its own; and a client that keeps answers as text, so
//! that the digits of a number can be compared.

use std::time::Duration;

use anyhow::{Context, Result};
use order_service::OrderService;
use order_service::config::Config;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use testbed::{PostgresDatabase, eventually};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// For anything that takes milliseconds on a quiet machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const ORDER_REQUEST: &str =
    include_str!("../../../resources/data/create-order-request.json");
pub(crate) const CANCEL_REQUEST: &str =
    include_str!("../../../resources/data/cancel-order-line-request.json");

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) async fn to(request: RequestBuilder) -> Result<Answer> {
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Answer { status, headers, text: response.text().await? })
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap_or(""))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    /// Checks that this is a problem of RFC 9457 with this status, and gives its body.
    pub(crate) fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        problem
    }
}

/// A running service.
pub(crate) struct Service {
    pub(crate) base: String,
    pub(crate) client: reqwest::Client,
    stop: CancellationToken,
    running: JoinHandle<Result<()>>,
}

impl Service {
    /// Starts one and waits until it takes orders.
    pub(crate) async fn ready(database_url: &str, settings: &[(&str, &str)]) -> Result<Service> {
        let service = Service::start(database_url, settings).await?;
        service.wait_until_ready().await?;
        Ok(service)
    }

    /// Starts one that may have to wait for its database.
    pub(crate) async fn start(database_url: &str, settings: &[(&str, &str)]) -> Result<Service> {
        let config = Config::from_lookup(|name| match name {
            "DATABASE_URL" => Some(database_url.to_owned()),
            "HTTP_ADDRESS" => Some("127.0.0.1:0".to_owned()),
            _ => {
                settings.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            }
        })?;
        let service = OrderService::bind(config).await?;
        let base = format!("http://{}", service.address()?);
        let stop = CancellationToken::new();
        let running = tokio::spawn(service.run(stop.clone()));
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Service { base, client, stop, running })
    }

    pub(crate) async fn wait_until_ready(&self) -> Result<()> {
        eventually("readiness", DEADLINE, || async {
            let answer = self.get("/health/ready").await?;
            Ok((answer.status == StatusCode::OK).then_some(()))
        })
        .await
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer> {
        Answer::to(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Result<Answer> {
        self.send_json(Method::POST, path, body).await
    }

    pub(crate) async fn put(&self, path: &str, body: impl Into<reqwest::Body>) -> Result<Answer> {
        self.send_json(Method::PUT, path, body).await
    }

    pub(crate) async fn send_json(
        &self,
        method: Method,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> Result<Answer> {
        let request =
            self.request(method, path).header("content-type", "application/json").body(body);
        Answer::to(request).await
    }

    /// Whether it has ended without being asked to.
    pub(crate) fn has_ended(&self) -> bool {
        self.running.is_finished()
    }

    /// Stops it as a signal would, and hands on how it ended.
    pub(crate) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.running.await?
    }
}

/// A database, a service on it and a connection of the test's own.
pub(crate) struct World {
    pub(crate) service: Service,
    pub(crate) database: PostgresDatabase,
    pub(crate) pool: PgPool,
}

impl World {
    pub(crate) async fn new() -> Result<World> {
        World::with(&[]).await
    }

    pub(crate) async fn with(settings: &[(&str, &str)]) -> Result<World> {
        let database = empty_database().await?;
        let service = Service::ready(&database.url(), settings).await?;
        let pool = pool(&database.url()).await?;
        Ok(World { service, database, pool })
    }

    /// The number that the query gives.
    pub(crate) async fn count(&self, query: &'static str) -> Result<i64> {
        Ok(sqlx::query_scalar(query).fetch_one(&self.pool).await?)
    }
}

pub(crate) async fn empty_database() -> Result<PostgresDatabase> {
    testbed::servers().await?.postgres_database().await
}

pub(crate) async fn pool(url: &str) -> Result<PgPool> {
    PgPoolOptions::new().max_connections(3).connect(url).await.context("the test's own connection")
}

/// An order with one line of this price.
pub(crate) fn order_with_price(price: &str) -> String {
    format!(
        r#"{{"customerId":1,"orderDate":"2019-01-31T12:13:01","lineItems":[{{"item":"A","quantity":1,"totalPrice":{price}}}]}}"#
    )
}
