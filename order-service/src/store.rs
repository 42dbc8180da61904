//! Orders in SQL. Every function is one or two statements; who calls them decides on the transaction.

use std::collections::BTreeMap;

use chrono::NaiveDateTime;
use sqlx::{PgConnection, PgTransaction};

use crate::money::Money;
use crate::order::{LineStatus, NewOrder, OrderLine, PurchaseOrder, StatusChange};

/// Stores a new order with its lines.
pub(crate) async fn insert_order(
    transaction: &mut PgTransaction<'_>,
    order: NewOrder,
) -> sqlx::Result<PurchaseOrder> {
    let order_id: i64 = sqlx::query_scalar(
        "insert into inventory.purchaseorder (customerid, orderdate) values ($1, $2) returning id",
    )
    .bind(order.customer_id())
    .bind(order.order_date())
    .fetch_one(&mut **transaction)
    .await?;

    let lines = order.lines();
    let items: Vec<&str> = lines.iter().map(|line| line.item.as_str()).collect();
    let quantities: Vec<i32> = lines.iter().map(|line| line.quantity).collect();
    // Amounts travel as text: sqlx's decimal encoding drops the digits of 0.00.
    let total_prices: Vec<String> = lines.iter().map(|line| line.total_price.to_string()).collect();
    // One statement for all lines. `order by` makes the identity column count in the order of the request.
    let mut line_ids: Vec<i64> = sqlx::query_scalar(
        "insert into inventory.orderline (item, quantity, totalprice, status, order_id)
         select item, quantity, totalprice::numeric, $4, $5
         from unnest($1::text[], $2::integer[], $3::text[])
           with ordinality as line (item, quantity, totalprice, position)
         order by position
         returning id",
    )
    .bind(&items)
    .bind(&quantities)
    .bind(&total_prices)
    .bind(LineStatus::Entered.name())
    .bind(order_id)
    .fetch_all(&mut **transaction)
    .await?;
    if line_ids.len() != lines.len() {
        // A trigger or a rule of someone else's swallowed some.
        return Err(sqlx::Error::RowNotFound);
    }
    // Nothing promises an order of what `returning` gives back; the ids themselves have one.
    line_ids.sort_unstable();
    Ok(order.into_stored(order_id, line_ids))
}

/// Locks the order's row until the transaction ends. False if there is no such order.
pub(crate) async fn lock_order(
    transaction: &mut PgTransaction<'_>,
    order_id: i64,
) -> sqlx::Result<bool> {
    let found: Option<i64> =
        sqlx::query_scalar("select id from inventory.purchaseorder where id = $1 for update")
            .bind(order_id)
            .fetch_optional(&mut **transaction)
            .await?;
    Ok(found.is_some())
}

/// The order with its lines, if there is one.
pub(crate) async fn find_order(
    connection: &mut PgConnection,
    order_id: i64,
) -> sqlx::Result<Option<PurchaseOrder>> {
    let rows = sqlx::query_as(
        "select id, customerid, orderdate from inventory.purchaseorder where id = $1",
    )
    .bind(order_id)
    .fetch_all(&mut *connection)
    .await?;
    Ok(with_lines(connection, rows).await?.pop())
}

/// The first `limit` orders whose ids are greater than `after`, in the order of their ids.
pub(crate) async fn list_orders(
    connection: &mut PgConnection,
    after: i64,
    limit: i64,
) -> sqlx::Result<Vec<PurchaseOrder>> {
    let rows = sqlx::query_as(
        "select id, customerid, orderdate from inventory.purchaseorder
         where id > $1 order by id limit $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(&mut *connection)
    .await?;
    with_lines(connection, rows).await
}

/// Writes the new status of a line.
pub(crate) async fn update_line_status(
    transaction: &mut PgTransaction<'_>,
    change: &StatusChange,
) -> sqlx::Result<()> {
    sqlx::query("update inventory.orderline set status = $1 where id = $2 and order_id = $3")
        .bind(change.new_status.name())
        .bind(change.order_line_id)
        .bind(change.order_id)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct OrderRow {
    id: i64,
    customerid: i64,
    orderdate: NaiveDateTime,
}

#[derive(sqlx::FromRow)]
struct LineRow {
    id: i64,
    item: String,
    quantity: i32,
    totalprice: String,
    status: String,
    order_id: i64,
}

async fn with_lines(
    connection: &mut PgConnection,
    orders: Vec<OrderRow>,
) -> sqlx::Result<Vec<PurchaseOrder>> {
    let order_ids: Vec<i64> = orders.iter().map(|order| order.id).collect();
    let rows: Vec<LineRow> = sqlx::query_as(
        "select id, item, quantity, totalprice::text, status, order_id from inventory.orderline
         where order_id = any($1) order by order_id, id",
    )
    .bind(&order_ids)
    .fetch_all(connection)
    .await?;
    let mut lines: BTreeMap<i64, Vec<OrderLine>> = BTreeMap::new();
    for row in rows {
        lines.entry(row.order_id).or_default().push(order_line(row)?);
    }
    let with_its_lines = |order: OrderRow| PurchaseOrder {
        id: order.id,
        customer_id: order.customerid,
        order_date: order.orderdate,
        line_items: lines.remove(&order.id).unwrap_or_default(),
    };
    Ok(orders.into_iter().map(with_its_lines).collect())
}

/// The tables' checks keep out what this refuses, so an error here means that somebody changed the tables.
fn order_line(row: LineRow) -> sqlx::Result<OrderLine> {
    let total_price: Money =
        row.totalprice.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    let status = LineStatus::from_name(&row.status)
        .ok_or_else(|| sqlx::Error::Decode(format!("unknown status of line {}", row.id).into()))?;
    Ok(OrderLine { id: row.id, item: row.item, quantity: row.quantity, total_price, status })
}
