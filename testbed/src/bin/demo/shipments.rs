//! What the shipment side has in MySQL.

use anyhow::Result;
use sqlx::{Connection as _, MySqlConnection, Row as _};

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shipment {
    pub(crate) id: i64,
    pub(crate) customer_id: i64,
    pub(crate) order_id: i64,
    pub(crate) order_date: String,
}

pub(crate) async fn all(database_url: &str) -> Result<Vec<Shipment>> {
    let mut connection = MySqlConnection::connect(database_url).await?;
    let query = "select id, customerId, orderId, cast(orderDate as char) from Shipment order by id";
    let rows = sqlx::query(query).fetch_all(&mut connection).await?;
    connection.close().await?;
    let shipment = |row: sqlx::mysql::MySqlRow| {
        Ok(Shipment {
            id: row.try_get(0)?,
            customer_id: row.try_get(1)?,
            order_id: row.try_get(2)?,
            order_date: row.try_get(3)?,
        })
    };
    rows.into_iter().map(shipment).collect()
}

/// The ids of the consumed events, as UUID text without hyphens in lower case.
pub(crate) async fn consumed_event_ids(database_url: &str) -> Result<Vec<String>> {
    let mut connection = MySqlConnection::connect(database_url).await?;
    let query = "select lower(hex(eventId)) from ConsumedMessage order by timeOfReceiving";
    let ids = sqlx::query_scalar(query).fetch_all(&mut connection).await?;
    connection.close().await?;
    Ok(ids)
}
