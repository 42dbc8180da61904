//! Start, health and outage: the service is there before its database and outlives its absence.

use anyhow::Result;
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use testbed::{PostgresDatabase, eventually};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::service::{CANCEL_REQUEST, DEADLINE, ORDER_REQUEST, Service, empty_database, pool};

/// A way to the database that can be cut and opened again; the port stays the same.
struct Road {
    port: u16,
    database: String,
    traffic: Option<JoinHandle<()>>,
    /// Changes when the connections of the moment freeze.
    frozen: watch::Sender<()>,
}

impl Road {
    /// A port with nothing behind it.
    fn closed(database: &PostgresDatabase) -> Road {
        let database = format!("{}:{}", database.host, database.port);
        Road { port: testbed::free_port(), database, traffic: None, frozen: watch::Sender::new(()) }
    }

    fn url(&self, database: &PostgresDatabase) -> String {
        let (host, port) = (&database.host, database.port);
        database.url().replace(&format!("{host}:{port}"), &format!("127.0.0.1:{}", self.port))
    }

    async fn open(&mut self) -> Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await?;
        let (database, frozen) = (self.database.clone(), self.frozen.clone());
        self.traffic = Some(tokio::spawn(async move {
            // Dropped with this task, and every connection with it.
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let (database, mut frozen) = (database.clone(), frozen.subscribe());
                connections.spawn(async move {
                    let mut far = TcpStream::connect(database).await?;
                    tokio::select! {
                        ended = copy_bidirectional(&mut near, &mut far) => ended,
                        _ = frozen.changed() => std::future::pending().await,
                    }
                });
            }
        }));
        Ok(())
    }

    /// Nothing goes through the connections of the moment any more, and none is closed: what a lost network looks like.
    /// New ones are made as before, as after a failover.
    fn freeze(&self) {
        self.frozen.send_replace(());
    }

    async fn cut(&mut self) {
        if let Some(traffic) = self.traffic.take() {
            traffic.abort();
            let _ = traffic.await;
        }
    }
}

fn check_away(answer: &super::service::Answer, database: &PostgresDatabase) {
    answer.problem(503);
    assert!(!answer.header("retry-after").is_empty());
    for secret in ["refused", "os error", &database.name, &database.user, "127.0.0.1"] {
        assert!(!answer.text.contains(secret), "{}", answer.text);
    }
}

#[tokio::test]
async fn it_is_alive_before_its_database_and_ready_after() -> Result<()> {
    let database = empty_database().await?;
    let mut road = Road::closed(&database);
    let service = Service::start(&road.url(&database), &[]).await?;
    assert_eq!(service.get("/health/live").await?.status, StatusCode::OK);
    let ready = service.get("/health/ready").await?;
    assert_eq!((ready.status.as_u16(), ready.json()["status"].as_str()), (503, Some("DOWN")));
    check_away(&service.post("/orders", ORDER_REQUEST).await?, &database);

    road.open().await?;
    service.wait_until_ready().await?;
    assert_eq!(service.post("/orders", ORDER_REQUEST).await?.json()["id"], 1);
    service.stop().await
}

#[tokio::test]
async fn it_says_so_while_the_database_is_away_and_goes_on_when_it_is_back() -> Result<()> {
    let database = empty_database().await?;
    let mut road = Road::closed(&database);
    road.open().await?;
    let service = Service::ready(&road.url(&database), &[]).await?;
    assert_eq!(service.post("/orders", ORDER_REQUEST).await?.status, StatusCode::OK);

    road.cut().await;
    check_away(&service.post("/orders", ORDER_REQUEST).await?, &database);
    check_away(&service.get("/orders/1").await?, &database);
    assert_eq!(service.get("/health/ready").await?.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(service.get("/health/live").await?.status, StatusCode::OK);

    road.open().await?;
    service.wait_until_ready().await?;
    assert_eq!(service.get("/orders/1").await?.status, StatusCode::OK);
    service.stop().await
}

#[tokio::test]
async fn a_connection_that_leads_nowhere_does_not_keep_its_place_in_the_pool() -> Result<()> {
    let database = empty_database().await?;
    let mut road = Road::closed(&database);
    road.open().await?;
    let service = Service::ready(&road.url(&database), &[("DATABASE_POOL_SIZE", "1")]).await?;
    assert_eq!(service.post("/orders", ORDER_REQUEST).await?.json()["id"], 1);

    let pool = pool(&database.url()).await?;
    let mut other = pool.begin().await?;
    sqlx::query("select id from inventory.purchaseorder for update").execute(&mut *other).await?;
    let change = service
        .request(Method::PUT, "/orders/1/lines/1")
        .header("content-type", "application/json")
        .body(CANCEL_REQUEST);
    let change = tokio::spawn(change.send());
    eventually("a change that waits for the other's lock", DEADLINE, async || {
        let query = "select count(*) from pg_stat_activity
                     where datname = current_database() and wait_event_type = 'Lock'";
        let waiting: i64 = sqlx::query_scalar(query).fetch_one(&pool).await?;
        Ok((waiting == 1).then_some(()))
    })
    .await?;
    road.freeze();
    // The client has seen enough; the only connection of the pool is in the middle of a statement.
    change.abort();
    other.rollback().await?;

    service.wait_until_ready().await?;
    assert_eq!(service.get("/orders/1").await?.status, StatusCode::OK);
    service.stop().await
}

#[tokio::test]
async fn several_instances_may_start_at_once_on_an_empty_database() -> Result<()> {
    let database = empty_database().await?;
    let url = database.url();
    let services = join_all((0..4).map(|_| Service::ready(&url, &[]))).await;
    let services: Vec<Service> = services.into_iter().collect::<Result<_>>()?;
    for (index, service) in services.iter().enumerate() {
        assert_eq!(service.post("/orders", ORDER_REQUEST).await?.json()["id"], index + 1);
    }
    join_all(services.into_iter().map(Service::stop)).await.into_iter().collect()
}

#[tokio::test]
async fn a_schema_that_does_not_match_the_migrations_ends_the_start_with_advice() -> Result<()> {
    let database = empty_database().await?;
    Service::ready(&database.url(), &[]).await?.stop().await?;
    let pool = pool(&database.url()).await?;
    sqlx::query("update _sqlx_migrations set checksum = 'x'").execute(&pool).await?;
    let service = Service::start(&database.url(), &[]).await?;
    eventually("end", DEADLINE, || async { Ok(service.has_ended().then_some(())) }).await?;
    let message = format!("{:#}", service.stop().await.unwrap_err());
    assert!(message.contains("_sqlx_migrations"), "{message}");
    Ok(())
}
