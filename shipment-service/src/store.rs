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
/// A violation of the unique order id undoes this one statement and not the transaction, which goes on.
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
            .execute(transaction)
            .await;
    match inserted {
        Ok(_) => Ok(Inserted::Yes),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
            Ok(Inserted::OrderHasShipment)
        }
        Err(error) => Err(error),
    }
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
