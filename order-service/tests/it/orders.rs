//! Placing, changing, showing and listing orders: the original's paths and JSON.

use anyhow::Result;
use serde_json::json;

use super::service::{CANCEL_REQUEST, ORDER_REQUEST, World, order_with_price};

const CREATED: &str = concat!(
    r#"{"id":1,"customerId":123,"orderDate":"2019-01-31T12:13:01","lineItems":["#,
    r#"{"id":1,"item":"Debezium in Action","quantity":2,"totalPrice":39.98,"status":"ENTERED"},"#,
    r#"{"id":2,"item":"Debezium for Dummies","quantity":1,"totalPrice":29.99,"status":"ENTERED"}]}"#,
);

#[tokio::test]
async fn the_walk_through_of_the_readme_works_on_a_new_database() -> Result<()> {
    let world = World::new().await?;
    let created = world.service.post("/order-service/rest/orders", ORDER_REQUEST).await?;
    assert_eq!((created.status.as_u16(), created.text.as_str()), (200, CREATED));
    assert_eq!(created.header("content-type"), "application/json");

    let path = "/order-service/rest/orders/1/lines/2";
    let changed = world.service.put(path, CANCEL_REQUEST).await?;
    let (before, after) = CREATED.rsplit_once("ENTERED").unwrap();
    assert_eq!(changed.status.as_u16(), 200);
    assert_eq!(changed.text, format!("{before}CANCELLED{after}"));

    // The tables and columns that the README's queries name.
    let stored: (i64, i64, String) = sqlx::query_as(
        "select po.customerid, ol.order_id, ol.status from inventory.purchaseorder po, inventory.orderline ol
         where ol.order_id = po.id and ol.id = 2",
    )
    .fetch_one(&world.pool)
    .await?;
    assert_eq!(stored, (123, 1, "CANCELLED".to_owned()));
    world.service.stop().await
}

#[tokio::test]
async fn every_path_works_in_both_forms_and_with_a_slash_at_its_end() -> Result<()> {
    let world = World::new().await?;
    for base in ["", "/order-service/rest"] {
        for slash in ["", "/"] {
            let created =
                world.service.post(&format!("{base}/orders{slash}"), ORDER_REQUEST).await?;
            assert_eq!(created.status.as_u16(), 200, "{base}{slash}: {}", created.text);
            let order = created.json();
            let (id, line) = (&order["id"], &order["lineItems"][0]["id"]);
            let path = format!("{base}/orders/{id}/lines/{line}{slash}");
            assert_eq!(world.service.put(&path, CANCEL_REQUEST).await?.status.as_u16(), 200);
            let shown = world.service.get(&format!("{base}/orders/{id}{slash}")).await?;
            assert_eq!(shown.json()["lineItems"][0]["status"], "CANCELLED");
            let list = world.service.get(&format!("{base}/orders{slash}?limit=1")).await?;
            assert_eq!(list.json()["orders"][0]["id"], 1, "{}", list.text);
        }
    }
    Ok(())
}

#[tokio::test]
async fn money_keeps_its_digits_in_answers_and_in_the_database() -> Result<()> {
    let world = World::new().await?;
    for price in ["10", "10.5", "10.00", "0.10", "0.00", "0", "12345678901234567.89"] {
        for sent in [price.to_owned(), format!("\"{price}\"")] {
            let created = world.service.post("/orders", order_with_price(&sent)).await?;
            let wanted = format!("\"totalPrice\":{price},");
            assert!(created.text.contains(&wanted), "{price}: {}", created.text);
            let order = created.json();
            let (id, line) = (&order["id"], &order["lineItems"][0]["id"]);
            let shown = world.service.get(&format!("/orders/{id}")).await?;
            assert_eq!(shown.text, created.text);
            let path = format!("/orders/{id}/lines/{line}");
            let changed = world.service.put(&path, CANCEL_REQUEST).await?;
            assert!(changed.text.contains(&wanted), "{price}: {}", changed.text);
        }
    }
    Ok(())
}

#[tokio::test]
async fn any_status_may_follow_any_other_and_lines_stay_in_order() -> Result<()> {
    let world = World::new().await?;
    world.service.post("/orders", ORDER_REQUEST).await?;
    for status in ["SHIPPED", "ENTERED", "CANCELLED", "CANCELLED", "SHIPPED"] {
        let body = json!({ "newStatus": status }).to_string();
        let order = world.service.put("/orders/1/lines/1", body).await?.json();
        assert_eq!(order["lineItems"][0]["status"], status);
        assert_eq!(order["lineItems"][0]["id"], 1);
        assert_eq!(order["lineItems"][1]["id"], 2);
        assert_eq!(order["lineItems"][1]["status"], "ENTERED");
    }
    Ok(())
}

#[tokio::test]
async fn the_list_is_read_page_by_page() -> Result<()> {
    let world = World::new().await?;
    assert_eq!(world.service.get("/orders").await?.text, r#"{"orders":[],"nextAfter":null}"#);
    for _ in 0..5 {
        world.service.post("/orders", ORDER_REQUEST).await?;
    }
    let mut seen = Vec::new();
    let mut after = json!(0);
    for _ in 0..3 {
        let page = world.service.get(&format!("/orders?limit=2&after={after}")).await?.json();
        for order in page["orders"].as_array().unwrap() {
            assert_eq!(order["lineItems"].as_array().unwrap().len(), 2);
            seen.push(order["id"].as_i64().unwrap());
        }
        after = page["nextAfter"].clone();
    }
    assert_eq!((seen, after), (vec![1, 2, 3, 4, 5], json!(null)));
    Ok(())
}

#[tokio::test]
async fn the_largest_order_that_is_allowed_is_stored_line_by_line() -> Result<()> {
    let world = World::new().await?;
    let lines: Vec<_> = (0..500)
        .map(|index| json!({"item": format!("{index:0255}"), "quantity": 1, "totalPrice": 1.5}))
        .collect();
    let body = json!({"customerId": 1, "orderDate": "2019-01-31T12:13:01", "lineItems": lines});
    let order = world.service.post("/orders", body.to_string()).await?.json();
    for (index, line) in order["lineItems"].as_array().unwrap().iter().enumerate() {
        assert_eq!(line["item"], format!("{index:0255}"));
        assert_eq!(line["id"], index + 1);
    }
    assert_eq!(world.service.get("/orders/1").await?.json(), order);
    Ok(())
}
