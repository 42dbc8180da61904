//! Start, health and outage: the service is there before its database and outlives its absence.

use anyhow::Result;
use futures::future::join_all;
use reqwest::StatusCode;
use testbed::{PostgresDatabase, eventually};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::service::{DEADLINE, ORDER_REQUEST, Service, empty_database, pool};

/// A way to the database that can be cut and opened again; the port stays the same.
struct Road {
    port: u16,
    database: String,
    traffic: Option<JoinHandle<()>>,
}

impl Road {
    /// A port with nothing behind it.
    fn closed(database: &PostgresDatabase) -> Road {
        let database = format!("{}:{}", database.host, database.port);
        Road { port: testbed::free_port(), database, traffic: None }
    }

    fn url(&self, database: &PostgresDatabase) -> String {
        let (host, port) = (&database.host, database.port);
        database.url().replace(&format!("{host}:{port}"), &format!("127.0.0.1:{}", self.port))
    }

    async fn open(&mut self) -> Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await?;
        let database = self.database.clone();
        self.traffic = Some(tokio::spawn(async move {
            // Dropped with this task, and every connection with it.
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let database = database.clone();
                connections.spawn(async move {
                    let mut far = TcpStream::connect(database).await?;
                    copy_bidirectional(&mut near, &mut far).await
                });
            }
        }));
        Ok(())
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
