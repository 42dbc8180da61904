//! `GET /shipments`, page by page or by order id, and `GET /shipments/{orderId}`.

use std::collections::HashMap;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Serialize;

use super::Shared;
use super::problem::Problem;
use crate::store::{self, Shipment};

const LIMIT: &str = "limit";
const AFTER: &str = "after";
const ORDER_ID: &str = "orderId";
/// Shipments of a page, when the caller does not say.
const LIMIT_DEFAULT: u32 = 50;
/// A page beyond this would be a report.
const LIMIT_MAX: u32 = 500;

/// A page of shipments, in the order in which they were made.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    items: Vec<Shipment>,
    /// The `after` of the next page; null on the last one.
    next: Option<i64>,
}

type Parameters = Result<Query<HashMap<String, String>>, QueryRejection>;

/// `?limit=50&after=<id>`, or `?orderId=<id>`: then the page has one item or none.
pub(super) async fn list(
    State(shared): State<Shared>,
    parameters: Parameters,
) -> Result<Json<Page>, Problem> {
    let Query(parameters) =
        parameters.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    if let Some(unknown) =
        parameters.keys().find(|name| ![LIMIT, AFTER, ORDER_ID].contains(&name.as_str()))
    {
        let detail = format!(
            "There is no parameter `{}`; there are limit, after and orderId",
            unknown.escape_debug()
        );
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    }
    if let Some(order_id) = parameters.get(ORDER_ID) {
        let shipment = store::of_order(&shared.pool, whole_number(ORDER_ID, order_id)?).await?;
        return Ok(Json(Page { items: shipment.into_iter().collect(), next: None }));
    }
    let after = parameters.get(AFTER).map_or(Ok(0), |after| whole_number(AFTER, after))?;
    let limit = parameters.get(LIMIT).map_or(Ok(LIMIT_DEFAULT), |limit| read_limit(limit))?;
    // One more than asked for tells whether there is a next page.
    let mut items = store::page(&shared.pool, after, limit + 1).await?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = items.last().filter(|_| more).map(|shipment| shipment.id);
    Ok(Json(Page { items, next }))
}

/// The shipment of an order: an order has one at most, so the id of the order names it.
pub(super) async fn of_order(
    State(shared): State<Shared>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Shipment>, Problem> {
    let Path(order_id) =
        path.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let order_id = whole_number(ORDER_ID, &order_id)?;
    store::of_order(&shared.pool, order_id).await?.map(Json).ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            format!("There is no shipment of order {order_id} (yet)"),
        )
    })
}

fn read_limit(text: &str) -> Result<u32, Problem> {
    text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit)).ok_or_else(|| {
        Problem::bad_parameter(LIMIT, format!("limit must be a whole number from 1 to {LIMIT_MAX}"))
    })
}

fn whole_number(field: &'static str, text: &str) -> Result<i64, Problem> {
    text.parse().map_err(|_| {
        Problem::bad_parameter(field, format!("{field} must be a whole number of 64 bits"))
    })
}
