//! The REST read side: pages, bounds and problems.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::fixture::{Record, World};

#[tokio::test]
async fn shipments_are_listed_page_by_page() -> Result<()> {
    let world = World::with_partitions(1).await?;
    let service = world.service().await?;
    assert_eq!(service.get("/shipments").await?, (200, json!({ "items": [], "next": null })));
    world.send_all(&(1..=5).map(Record::order_created).collect::<Vec<_>>()).await?;
    world.shipments(5).await?;

    let (mut path, mut seen, mut pages) = ("/shipments?limit=2".to_owned(), Vec::new(), 0);
    loop {
        let (status, page) = service.get(&path).await?;
        assert_eq!(status, 200, "{page}");
        pages += 1;
        seen.extend(
            page["items"].as_array().into_iter().flatten().map(|item| item["orderId"].clone()),
        );
        match page["next"].as_i64() {
            Some(next) => path = format!("/shipments?limit=2&after={next}"),
            None => break,
        }
    }
    assert_eq!((Value::from(seen), pages), (json!([1, 2, 3, 4, 5]), 3));
    assert_eq!(
        service.get("/shipments?orderId=6").await?,
        (200, json!({ "items": [], "next": null }))
    );
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_is_answered_with_a_problem_that_names_the_field() -> Result<()> {
    let world = World::with_partitions(1).await?;
    let service = world.service().await?;
    for (path, status, field) in [
        ("/shipments?limit=0", 400, Some("limit")),
        ("/shipments?limit=501", 400, Some("limit")),
        ("/shipments?limit=-1", 400, Some("limit")),
        ("/shipments?after=x", 400, Some("after")),
        ("/shipments?orderId=99999999999999999999", 400, Some("orderId")),
        ("/shipments?order=1", 400, None),
        ("/shipments/one", 400, Some("orderId")),
        ("/shipments/%FF", 400, None),
        ("/shipments/1", 404, None),
        ("/nothing", 404, None),
    ] {
        let response = reqwest::get(format!("{}{path}", service.url)).await?;
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{path}");
        let problem: Value = response.json().await?;
        assert_eq!(problem["status"], status, "{path}");
        assert_eq!(problem["field"].as_str(), field, "{path}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{path}");
    }
    let response = reqwest::Client::new().post(format!("{}/shipments", service.url)).send().await?;
    assert_eq!(response.status(), 405);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    Ok(())
}

#[tokio::test]
async fn clients_that_never_finish_a_request_leave_room_for_others_and_do_not_hold_up_the_stop()
-> Result<()> {
    let world = World::with_partitions(1).await?;
    let service = world.service().await?;
    let address = service.url.replace("http://", "");
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut connection = TcpStream::connect(&address).await?;
        connection.write_all(b"GET /shipments HTTP/1.1\r\n").await?;
        slow.push(connection);
    }
    assert_eq!(service.get("/health/ready").await?.0, 200);
    let began = Instant::now();
    assert!(service.program.terminate().await?.success());
    assert!(began.elapsed() < Duration::from_secs(10), "took {:?}", began.elapsed());
    Ok(())
}
