//! Every request that cannot be served gets a problem that says what to do, and leaves nothing behind.

use anyhow::Result;
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::service::{Answer, CANCEL_REQUEST, ORDER_REQUEST, World};

async fn world_with_an_order() -> Result<World> {
    let world = World::new().await?;
    world.service.post("/orders", ORDER_REQUEST).await?;
    Ok(world)
}

#[tokio::test]
async fn a_bad_order_is_refused_by_field_and_not_stored() -> Result<()> {
    let world = World::new().await?;
    let good = ORDER_REQUEST;
    for (body, pointer) in [
        (good.replacen("\"quantity\": 2", "\"quantity\": -2", 1), "#/lineItems/0/quantity"),
        (good.replacen("39.98", "39.985", 1), "#/lineItems/0/totalPrice"),
        (good.replacen("29.99", "-29.99", 1), "#/lineItems/1/totalPrice"),
        (good.replacen("\"item\": \"Debezium for Dummies\",", "", 1), "#/lineItems/1/item"),
        (good.replacen("\"customerId\": \"123\",", "", 1), "#/customerId"),
        (good.replacen("2019-01-31", "2019-02-31", 1), "#/orderDate"),
        (
            r#"{"customerId":1,"orderDate":"2019-01-31T12:13:01","lineItems":[]}"#.into(),
            "#/lineItems",
        ),
        (good.replacen("\"lineItems\"", "\"lines\"", 1), "#/lines"),
        ("hello".to_owned(), "#"),
        (String::new(), "#"),
    ] {
        let problem = world.service.post("/orders", body.clone()).await?.problem(400);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    }
    assert_eq!(world.count("select count(*) from inventory.purchaseorder").await?, 0);
    Ok(())
}

#[tokio::test]
async fn an_unknown_status_is_refused_with_the_known_ones() -> Result<()> {
    let world = world_with_an_order().await?;
    let answer = world.service.put("/orders/1/lines/2", r#"{"newStatus":"LOST"}"#).await?;
    let problem = answer.problem(400);
    assert_eq!(problem["errors"][0]["pointer"], "#/newStatus");
    assert!(answer.text.contains("ENTERED, CANCELLED, SHIPPED"), "{problem}");
    let order = world.service.get("/orders/1").await?.json();
    assert_eq!(order["lineItems"][1]["status"], "ENTERED");
    Ok(())
}

#[tokio::test]
async fn what_is_not_there_is_told_in_the_words_of_the_original() -> Result<()> {
    let world = world_with_an_order().await?;
    for (path, words) in [
        ("/orders/999/lines/1", "Order with id 999 could not be found"),
        ("/order-service/rest/orders/-1/lines/1", "Order with id -1 could not be found"),
        ("/orders/1/lines/999", "Order does not contain line with id 999"),
    ] {
        let problem = world.service.put(path, CANCEL_REQUEST).await?.problem(404);
        assert_eq!(problem["detail"], words);
    }
    let problem = world.service.get("/orders/999").await?.problem(404);
    assert_eq!(problem["detail"], "Order with id 999 could not be found");
    Ok(())
}

#[tokio::test]
async fn an_id_that_is_no_number_is_refused_by_name() -> Result<()> {
    let world = world_with_an_order().await?;
    for (path, parameter) in [
        ("/orders/abc/lines/1", "orderId"),
        ("/orders/1/lines/x", "orderLineId"),
        ("/orders/99999999999999999999/lines/1", "orderId"),
        ("/orders/1.5/lines/1", "orderId"),
    ] {
        let problem = world.service.put(path, CANCEL_REQUEST).await?.problem(400);
        assert_eq!(problem["errors"][0]["parameter"], parameter, "{path}: {problem}");
    }
    let both = world.service.put("/orders/a/lines/b", CANCEL_REQUEST).await?.problem(400);
    assert_eq!(both["errors"].as_array().unwrap().len(), 2);
    world.service.get("/orders/abc").await?.problem(400);
    world.service.get("/orders/%ff").await?.problem(400);
    world.service.put("/orders/%ff/lines/1", CANCEL_REQUEST).await?.problem(400);
    Ok(())
}

#[tokio::test]
async fn a_page_out_of_bounds_is_refused_by_parameter() -> Result<()> {
    let world = World::new().await?;
    for (query, parameter) in [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=ten", "limit"),
        ("limit=1&limit=2", "limit"),
        ("after=-1", "after"),
        ("after=x", "after"),
    ] {
        let problem = world.service.get(&format!("/orders?{query}")).await?.problem(400);
        assert_eq!(problem["errors"][0]["parameter"], parameter, "{query}: {problem}");
    }
    Ok(())
}

#[tokio::test]
async fn a_body_that_is_not_sent_as_json_is_refused() -> Result<()> {
    let world = World::new().await?;
    for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
        let mut request = world.service.request(Method::POST, "/orders").body(ORDER_REQUEST);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        Answer::to(request).await?.problem(415);
    }
    let utf8 = world
        .service
        .request(Method::POST, "/orders")
        .header("content-type", "application/json; charset=utf-8")
        .body(ORDER_REQUEST);
    assert_eq!(Answer::to(utf8).await?.status.as_u16(), 200);
    Ok(())
}

#[tokio::test]
async fn a_body_of_ten_megabytes_is_refused_with_an_answer_that_arrives() -> Result<()> {
    let world = World::new().await?;
    let large = format!("{{\"item\":\"{}\"}}", "x".repeat(10 * 1024 * 1024));
    let problem = world.service.post("/orders", large.clone()).await?.problem(413);
    assert!(problem["detail"].as_str().unwrap().contains("524288"), "{problem}");
    world.service.put("/orders/1/lines/1", large.clone()).await?.problem(413);
    // Without a length, in chunks: counted as it comes.
    let mut connection = TcpStream::connect(world.service.base.replace("http://", "")).await?;
    let head = "POST /orders HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    connection.write_all(head.as_bytes()).await?;
    for chunk in large.as_bytes().chunks(64 * 1024) {
        connection.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await?;
        connection.write_all(chunk).await?;
        connection.write_all(b"\r\n").await?;
    }
    connection.write_all(b"0\r\n\r\n").await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    Ok(())
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() -> Result<()> {
    let world = World::new().await?;
    for (method, path, allow) in [
        (Method::DELETE, "/orders", "GET,HEAD,POST"),
        (Method::PATCH, "/order-service/rest/orders/", "GET,HEAD,POST"),
        (Method::POST, "/orders/1", "GET,HEAD"),
        (Method::GET, "/orders/1/lines/1", "PUT"),
        (Method::POST, "/health/ready", "GET,HEAD"),
    ] {
        let answer = Answer::to(world.service.request(method, path)).await?;
        answer.problem(405);
        assert_eq!(answer.header("allow"), allow, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn an_unknown_path_is_a_problem_as_well() -> Result<()> {
    let world = World::new().await?;
    for path in ["/nothing", "/order", "/order-service/rest", "/orders/1/lines", "/q/health"] {
        world.service.get(path).await?.problem(404);
    }
    Ok(())
}
