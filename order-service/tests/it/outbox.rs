//! The outbox: events are in the WAL exactly if their order is, in commit order, and the table stays empty.

use anyhow::{Context, Result};
use futures::future::join_all;
use serde_json::{Value, json};

use super::service::{Answer, CANCEL_REQUEST, DEADLINE, ORDER_REQUEST, World, order_with_price};
use super::wal::Slot;

const TRACE_PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The word after `table inventory.x: ` and the table: `orderline INSERT`.
fn shape(change: &str) -> String {
    match change.strip_prefix("table inventory.") {
        Some(rest) => rest.split(": ").take(2).collect::<Vec<_>>().join(" "),
        None => change.split(' ').next().unwrap_or_default().to_owned(),
    }
}

#[tokio::test]
async fn order_and_events_are_one_transaction_that_leaves_the_table_empty() -> Result<()> {
    let world = World::new().await?;
    let slot = Slot::create(&world.pool).await?;
    world.service.post("/orders", ORDER_REQUEST).await?;
    world.service.put("/orders/1/lines/2", CANCEL_REQUEST).await?;

    let changes = slot.changes().await?;
    let shapes: Vec<String> = changes.iter().map(|change| shape(change)).collect();
    assert_eq!(
        shapes,
        [
            "BEGIN",
            "purchaseorder INSERT",
            "orderline INSERT",
            "orderline INSERT",
            "outboxevent INSERT",
            "outboxevent INSERT",
            "outboxevent DELETE",
            "outboxevent DELETE",
            "COMMIT",
            "BEGIN",
            "orderline UPDATE",
            "outboxevent INSERT",
            "outboxevent DELETE",
            "COMMIT",
        ],
        "{changes:#?}"
    );
    let inserts: Vec<&String> =
        changes.iter().filter(|change| change.contains("outboxevent: INSERT")).collect();
    for (insert, parts) in inserts.iter().zip([
        ["'Order'", "'1'", "'OrderCreated'"],
        ["'Customer'", "'123'", "'InvoiceCreated'"],
        ["'Order'", "'1'", "'OrderLineUpdated'"],
    ]) {
        assert!(parts.iter().all(|part| insert.contains(part)), "{insert}");
    }
    assert_eq!(world.count("select count(*) from inventory.outboxevent").await?, 0);
    slot.drop().await
}

#[tokio::test]
async fn rows_are_kept_where_that_is_asked_for() -> Result<()> {
    let world = World::with(&[("OUTBOX_KEEP_ROWS", "true")]).await?;
    let slot = Slot::create(&world.pool).await?;
    world.service.post("/orders", ORDER_REQUEST).await?;
    let rows: Vec<(String, String, String, Option<String>)> = sqlx::query_as(
        "select aggregatetype, aggregateid, type, tracingspancontext from inventory.outboxevent order by id",
    )
    .fetch_all(&world.pool)
    .await?;
    let row = |aggregate: &str, id: &str, event: &str| {
        (aggregate.to_owned(), id.to_owned(), event.to_owned(), None)
    };
    assert_eq!(rows, [row("Order", "1", "OrderCreated"), row("Customer", "123", "InvoiceCreated")]);
    let fresh = "select count(*) from inventory.outboxevent
                 where abs(extract(epoch from clock_timestamp() - timestamp)) < 300";
    assert_eq!(world.count(fresh).await?, 2);
    let shapes: Vec<String> =
        slot.outbox_changes().await?.iter().map(|change| shape(change)).collect();
    assert_eq!(shapes, ["outboxevent INSERT", "outboxevent INSERT"]);
    slot.drop().await
}

#[tokio::test]
async fn events_carry_money_with_its_digits() -> Result<()> {
    let world = World::with(&[("OUTBOX_KEEP_ROWS", "true")]).await?;
    for price in ["10.00", "0.00", "12345678901234567.89", "0.1"] {
        sqlx::query("truncate inventory.outboxevent").execute(&world.pool).await?;
        world.service.post("/orders", order_with_price(price)).await?;
        let found: Vec<String> = sqlx::query_scalar(
            "select coalesce(payload->'lineItems'->0->>'totalPrice', payload->>'invoiceValue')
             from inventory.outboxevent",
        )
        .fetch_all(&world.pool)
        .await?;
        assert_eq!(found, [price, price]);
    }
    Ok(())
}

#[tokio::test]
async fn a_failing_outbox_leaves_neither_order_nor_event() -> Result<()> {
    let world = World::new().await?;
    world.service.post("/orders", ORDER_REQUEST).await?;
    let slot = Slot::create(&world.pool).await?;
    sqlx::raw_sql(
        "create function inventory.refuse() returns trigger language plpgsql as
           $$ begin raise exception 'a secret of the database'; end $$;
         create trigger refuse before insert on inventory.outboxevent
           for each row when (new.type in ('InvoiceCreated', 'OrderLineUpdated'))
           execute function inventory.refuse();",
    )
    .execute(&world.pool)
    .await?;

    let placed = world.service.post("/orders", ORDER_REQUEST).await?;
    let changed = world.service.put("/orders/1/lines/2", CANCEL_REQUEST).await?;
    for answer in [placed, changed] {
        answer.problem(500);
        assert!(!answer.text.contains("secret"), "{}", answer.text);
    }
    assert_eq!(world.count("select count(*) from inventory.purchaseorder").await?, 1);
    assert_eq!(
        world.count("select count(*) from inventory.orderline where status = 'ENTERED'").await?,
        2
    );
    assert_eq!(world.count("select count(*) from inventory.outboxevent").await?, 0);
    let changes = slot.changes().await?;
    let ours: Vec<&String> =
        changes.iter().filter(|change| change.contains("inventory.")).collect();
    assert!(ours.is_empty(), "{ours:#?}");

    sqlx::query("drop trigger refuse on inventory.outboxevent").execute(&world.pool).await?;
    assert_eq!(world.service.post("/orders", ORDER_REQUEST).await?.status.as_u16(), 200);
    slot.drop().await
}

/// The `"oldStatus"` and `"newStatus"` of an event as `test_decoding` prints it.
fn statuses(change: &str) -> Result<(String, String)> {
    let (_, from) = change.split_once("payload[jsonb]:'").context("no payload")?;
    let (payload, _) = from.split_once('\'').context("no end of the payload")?;
    let payload: Value = serde_json::from_str(payload)?;
    let text = |field: &str| payload[field].as_str().map(str::to_owned).context("no status");
    Ok((text("oldStatus")?, text("newStatus")?))
}

#[tokio::test]
async fn concurrent_changes_of_one_line_tell_one_story() -> Result<()> {
    const CHANGES: usize = 40;
    let world = World::new().await?;
    world.service.post("/orders", ORDER_REQUEST).await?;
    let slot = Slot::create(&world.pool).await?;
    let change = |index: usize| {
        let status = ["CANCELLED", "SHIPPED", "ENTERED"][index % 3];
        world.service.put("/orders/1/lines/2", json!({ "newStatus": status }).to_string())
    };
    for answer in join_all((0..CHANGES).map(change)).await {
        assert_eq!(answer?.status.as_u16(), 200);
    }
    let mut inserts = slot.outbox_changes().await?;
    inserts.retain(|change| change.contains(": INSERT:"));
    assert_eq!(inserts.len(), CHANGES);
    // Each event starts where the one committed before it ended.
    let mut status = "ENTERED".to_owned();
    for insert in &inserts {
        let (old_status, new_status) = statuses(insert)?;
        assert_eq!(old_status, status, "{inserts:#?}");
        status = new_status;
    }
    let order = world.service.get("/orders/1").await?.json();
    assert_eq!(order["lineItems"][1]["status"], status);
    slot.drop().await
}

#[tokio::test]
async fn a_change_waits_for_the_one_before_it_and_other_orders_do_not() -> Result<()> {
    let world = World::new().await?;
    world.service.post("/orders", ORDER_REQUEST).await?;
    world.service.post("/orders", ORDER_REQUEST).await?;
    let mut holder = world.pool.begin().await?;
    sqlx::query("select id from inventory.purchaseorder where id = 1 for update")
        .execute(&mut *holder)
        .await?;
    // The other line of the same order: the order is what is locked.
    let waiting = world.service.put("/orders/1/lines/1", CANCEL_REQUEST);
    let meanwhile = async {
        wait_for_a_blocked_statement(&world).await?;
        let other = world.service.put("/orders/2/lines/3", CANCEL_REQUEST).await?;
        assert_eq!(other.status.as_u16(), 200, "{}", other.text);
        assert_eq!(
            world.service.get("/orders/1").await?.json()["lineItems"][0]["status"],
            "ENTERED"
        );
        holder.rollback().await?;
        anyhow::Ok(())
    };
    let (waited, others) = tokio::join!(waiting, meanwhile);
    others?;
    assert_eq!(waited?.json()["lineItems"][0]["status"], "CANCELLED");
    Ok(())
}

#[tokio::test]
async fn a_change_that_waits_too_long_is_asked_to_try_again() -> Result<()> {
    let world = World::new().await?;
    world.service.post("/orders", ORDER_REQUEST).await?;
    let mut holder = world.pool.begin().await?;
    sqlx::query("select id from inventory.purchaseorder where id = 1 for update")
        .execute(&mut *holder)
        .await?;
    let answer = world.service.put("/orders/1/lines/1", CANCEL_REQUEST).await?;
    answer.problem(503);
    assert!(!answer.header("retry-after").is_empty());
    assert!(!answer.text.contains("lock"), "{}", answer.text);
    Ok(holder.rollback().await?)
}

/// Waits until a statement in this test's database waits for a lock.
pub(crate) async fn wait_for_a_blocked_statement(world: &World) -> Result<()> {
    let blocked = "select count(*) from pg_stat_activity
                   where datname = current_database() and wait_event_type = 'Lock'";
    testbed::eventually("blocked statement", DEADLINE, || async {
        Ok((world.count(blocked).await? > 0).then_some(()))
    })
    .await
}

#[tokio::test]
async fn the_trace_of_the_caller_is_kept_with_each_event() -> Result<()> {
    let world = World::with(&[("OUTBOX_KEEP_ROWS", "true")]).await?;
    let post = |headers: &[(&'static str, &'static str)]| {
        let mut request = world
            .service
            .request(reqwest::Method::POST, "/orders")
            .header("content-type", "application/json")
            .body(ORDER_REQUEST);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::to(request)
    };
    for (headers, expected) in [
        (vec![("traceparent", TRACE_PARENT)], Some(format!("traceparent={TRACE_PARENT}\n"))),
        (
            vec![("traceparent", TRACE_PARENT), ("tracestate", "congo=t61rcWkgMzE")],
            Some(format!("traceparent={TRACE_PARENT}\ntracestate=congo\\=t61rcWkgMzE\n")),
        ),
        (vec![("traceparent", "00-not-a-trace")], None),
        (vec![], None),
    ] {
        sqlx::query("truncate inventory.outboxevent").execute(&world.pool).await?;
        assert_eq!(post(&headers).await?.status.as_u16(), 200);
        let found: Vec<Option<String>> =
            sqlx::query_scalar("select tracingspancontext from inventory.outboxevent")
                .fetch_all(&world.pool)
                .await?;
        assert_eq!(found, [expected.clone(), expected]);
    }
    Ok(())
}
