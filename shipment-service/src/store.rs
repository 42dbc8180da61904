//! Shipments in SQL: the insert of the consumer and the reads of the REST side.

use chrono::NaiveDateTime;
use serde::Serialize;
use sqlx::{FromRow, MySqlConnection, MySqlPool};

use crate::shipment::NewShipment;

/// A row of `Shipment`.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, Serialize)]
#[serde(rename_all = "camelCase")]
#[sqlx(rename_all = "camelCase")]
pub(crate) struct Shipment {
    pub(crate) id: i64,
    pub(crate) customer_id: i64,
    pub(crate) order_id: i64,
    pub(crate) order_date: NaiveDateTime,
}

/// What became of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    Yes,
    /// The order has a shipment already, so there is nothing to do.
    OrderHasShipment,
}

/// Inserts a shipment inside the transaction that handles its event.
///
/// A violation of the unique order id undoes this one statement and not the transaction, which goes on. One of another key,
/// such as one that somebody added, is an error: the order would have no shipment.
///
/// # Errors
/// What the database says, a second shipment of the order aside.
pub(crate) async fn insert(
    transaction: &mut MySqlConnection,
    shipment: &NewShipment,
) -> sqlx::Result<Inserted> {
    let inserted =
        sqlx::query("insert into Shipment (customerId, orderId, orderDate) values (?, ?, ?)")
            .bind(shipment.customer_id)
            .bind(shipment.order_id)
            .bind(shipment.order_date)
            .execute(&mut *transaction)
            .await;
    match inserted {
        Ok(_) => Ok(Inserted::Yes),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
            if has_shipment(transaction, shipment.order_id).await? {
                Ok(Inserted::OrderHasShipment)
            } else {
                Err(sqlx::Error::Database(error))
            }
        }
        Err(error) => Err(error),
    }
}

/// Whether the order's shipment is there now, whatever this transaction has read before (a locking read). Asks for a column
/// that the index of orders does not have, so that the row is read and not only its entry.
async fn has_shipment(transaction: &mut MySqlConnection, order_id: i64) -> sqlx::Result<bool> {
    let found = sqlx::query("select customerId from Shipment where orderId = ? lock in share mode")
        .bind(order_id)
        .fetch_optional(transaction)
        .await?;
    Ok(found.is_some())
}

/// Up to `limit` shipments with an id above `after`, by id.
pub(crate) async fn page(pool: &MySqlPool, after: i64, limit: u32) -> sqlx::Result<Vec<Shipment>> {
    sqlx::query_as(
        "select id, customerId, orderId, orderDate from Shipment where id > ? order by id limit ?",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// The shipment of an order.
pub(crate) async fn of_order(pool: &MySqlPool, order_id: i64) -> sqlx::Result<Option<Shipment>> {
    sqlx::query_as("select id, customerId, orderId, orderDate from Shipment where orderId = ?")
        .bind(order_id)
        .fetch_optional(pool)
        .await
}
