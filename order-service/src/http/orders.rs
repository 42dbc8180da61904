//! The orders endpoints: from a request to a use case and back.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use serde::Serialize;
use tracing::Span;
use utoipa::ToSchema;

use super::AppState;
use super::body::JsonBody;
use super::problem::{FieldError, Problem};
use super::request;
use crate::change_order_line::change_order_line as change;
use crate::failure::Failure;
use crate::order::{LineStatus, PurchaseOrder};
use crate::place_order::place_order as place;
use crate::store;
use crate::trace_context::TraceContext;

/// Orders per page, unless asked otherwise.
const PAGE_LIMIT_DEFAULT: i64 = 20;

/// Orders per page at most: a page with all their lines is held in memory.
const PAGE_LIMIT_MAX: i64 = 100;

/// An order to be placed. This type is for the documentation; `request.rs` reads the body field by field.
#[derive(ToSchema)]
#[schema(as = PlaceOrderRequest)]
#[allow(dead_code)]
pub(super) struct PlaceOrderRequest {
    /// A number greater than 0, or a string of digits.
    #[schema(rename = "customerId", example = 123, minimum = 1)]
    customer_id: i64,
    /// Local date and time. Seconds may be missing, a final Z is dropped, an offset is refused.
    #[schema(rename = "orderDate", example = "2019-01-31T12:13:01")]
    order_date: String,
    #[schema(rename = "lineItems", min_items = 1, max_items = 500)]
    line_items: Vec<PlaceOrderLine>,
}

/// A line of an order to be placed. The fields `id` and `status` are taken and ignored.
#[derive(ToSchema)]
#[allow(dead_code)]
pub(super) struct PlaceOrderLine {
    #[schema(example = "Debezium in Action", min_length = 1, max_length = 255)]
    item: String,
    /// A number, or a string of digits.
    #[schema(example = 2, minimum = 1, maximum = 1_000_000)]
    quantity: i32,
    /// Price of the whole line: a number with at most two decimals, or a string that holds one.
    #[schema(rename = "totalPrice")]
    total_price: crate::money::Money,
}

/// The new status of a line.
#[derive(ToSchema)]
#[allow(dead_code)]
pub(super) struct ChangeOrderLineRequest {
    #[schema(rename = "newStatus", example = "CANCELLED")]
    new_status: LineStatus,
}

/// One page of orders.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct OrderPage {
    /// In the order of their ids.
    orders: Vec<PurchaseOrder>,
    /// Ask for the next page with `after` set to this; null on the last page.
    next_after: Option<i64>,
}

/// The parameters of the page that is asked for, as text and as they came: so that a mistake, and a parameter that comes
/// twice, gets an answer that names it.
type PageQuery = Vec<(String, String)>;

/// Places an order.
///
/// Stores the order and the events OrderCreated and InvoiceCreated in one transaction.
#[utoipa::path(post, path = "/orders", tag = "orders", request_body = PlaceOrderRequest, responses(
    (status = 200, description = "The order, with the ids it was given", body = PurchaseOrder),
    (status = 400, description = "A field is missing or wrong; `errors` names it", body = Problem, content_type = "application/problem+json"),
    (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
    (status = 415, description = "The body is not sent as JSON", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "The database is away; try again", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn place_order(
    State(state): State<AppState>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Json<PurchaseOrder>, Problem> {
    let new_order = request::read_new_order(&body)?;
    let trace_context = trace_context(&headers);
    let order = place(&state.pool, new_order, trace_context.as_ref(), state.retention).await?;
    Span::current().record("order.id", order.id);
    Ok(Json(order))
}

/// Changes the status of an order line.
///
/// Any status may follow any other, the same one included. Each change writes the event OrderLineUpdated.
#[utoipa::path(put, path = "/orders/{orderId}/lines/{orderLineId}", tag = "orders",
    request_body = ChangeOrderLineRequest,
    params(("orderId" = i64, Path, description = "Id of the order"),
           ("orderLineId" = i64, Path, description = "Id of the line")),
    responses(
    (status = 200, description = "The whole order", body = PurchaseOrder),
    (status = 400, description = "Unknown status, or an id that is no number", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "No such order or line", body = Problem, content_type = "application/problem+json"),
    (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
    (status = 415, description = "The body is not sent as JSON", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "The database is away; try again", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn change_order_line(
    State(state): State<AppState>,
    ids: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Json<PurchaseOrder>, Problem> {
    let Path((order_id, order_line_id)) = ids?;
    let order_id = request::read_id("orderId", &order_id);
    let order_line_id = request::read_id("orderLineId", &order_line_id);
    let (order_id, order_line_id) = match (order_id, order_line_id) {
        (Ok(order_id), Ok(order_line_id)) => (order_id, order_line_id),
        (order, line) => {
            return Err(Problem::fields(order.err().into_iter().chain(line.err()).collect()));
        }
    };
    Span::current().record("order.id", order_id);
    let new_status = request::read_new_status(&body)?;
    let trace_context = trace_context(&headers);
    let order = change(
        &state.pool,
        order_id,
        order_line_id,
        new_status,
        trace_context.as_ref(),
        state.retention,
    )
    .await?;
    Ok(Json(order))
}

/// Shows an order.
#[utoipa::path(get, path = "/orders/{orderId}", tag = "orders",
    params(("orderId" = i64, Path, description = "Id of the order")), responses(
    (status = 200, description = "The order", body = PurchaseOrder),
    (status = 400, description = "The id is no number", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "No such order", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "The database is away; try again", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_order(
    State(state): State<AppState>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<PurchaseOrder>, Problem> {
    let Path(order_id) = id?;
    let order_id =
        request::read_id("orderId", &order_id).map_err(|error| Problem::fields(vec![error]))?;
    Span::current().record("order.id", order_id);
    let mut connection = state.pool.acquire().await.map_err(Failure::from)?;
    let order = store::find_order(&mut connection, order_id).await.map_err(Failure::from)?;
    Ok(Json(order.ok_or(Failure::OrderNotFound(order_id))?))
}

/// Lists orders in the order of their ids, page by page.
#[utoipa::path(get, path = "/orders", tag = "orders",
    params(("limit" = Option<i64>, Query, description = "Orders per page, 1 to 100; 20 unless given"),
           ("after" = Option<i64>, Query, description = "Only orders with a greater id: `nextAfter` of the page before")),
    responses(
    (status = 200, description = "A page of orders", body = OrderPage),
    (status = 400, description = "A parameter is out of bounds", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "The database is away; try again", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_orders(
    State(state): State<AppState>,
    page: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<OrderPage>, Problem> {
    let (limit, after) = read_page(&page?.0)?;
    let mut connection = state.pool.acquire().await.map_err(Failure::from)?;
    // One more than asked for tells whether there is another page.
    let mut orders =
        store::list_orders(&mut connection, after, limit + 1).await.map_err(Failure::from)?;
    let page_size = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = orders.len() > page_size;
    orders.truncate(page_size);
    let next_after = if more { orders.last().map(|order| order.id) } else { None };
    Ok(Json(OrderPage { orders, next_after }))
}

fn read_page(page: &[(String, String)]) -> Result<(i64, i64), Problem> {
    let read = |name, default, min, max| {
        let refuse = |rule: String| FieldError::parameter(name, format!("{name} must {rule}"));
        let mut values = page.iter().filter(|(known, _)| known == name).map(|(_, value)| value);
        match (values.next(), values.next()) {
            (None, _) => Ok(default),
            (Some(text), None) => text
                .parse()
                .ok()
                .filter(|number: &i64| (min..=max).contains(number))
                .ok_or_else(|| refuse(format!("be a whole number from {min} to {max}"))),
            (Some(_), Some(_)) => Err(refuse("not come twice".to_owned())),
        }
    };
    let limit = read("limit", PAGE_LIMIT_DEFAULT, 1, PAGE_LIMIT_MAX);
    let after = read("after", 0, 0, i64::MAX);
    match (limit, after) {
        (Ok(limit), Ok(after)) => Ok((limit, after)),
        (limit, after) => {
            Err(Problem::fields(limit.err().into_iter().chain(after.err()).collect()))
        }
    }
}

pub(super) fn trace_context(headers: &HeaderMap) -> Option<TraceContext> {
    let values = |name| headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    TraceContext::from_headers(values("traceparent"), values("tracestate"))
}
