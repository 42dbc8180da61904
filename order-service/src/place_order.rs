//! Use case: a customer places an order. One transaction stores the order and tells about it.

use sqlx::PgPool;

use crate::event::DomainEvent;
use crate::failure::Failure;
use crate::order::{NewOrder, PurchaseOrder};
use crate::outbox::{self, Retention};
use crate::store;
use crate::trace_context::TraceContext;

/// Stores the order and, in the same transaction, the events `OrderCreated` and `InvoiceCreated`.
///
/// Should anything fail before the commit, neither the order nor an event exists: dropping the transaction rolls it back.
pub(crate) async fn place_order(
    pool: &PgPool,
    new_order: NewOrder,
    trace_context: Option<&TraceContext>,
    retention: Retention,
) -> Result<PurchaseOrder, Failure> {
    let invoice_value = new_order.value();
    let mut transaction = pool.begin().await?;
    let order = store::insert_order(&mut transaction, new_order).await?;
    let events =
        [DomainEvent::order_created(&order)?, DomainEvent::invoice_created(&order, invoice_value)?];
    outbox::append(&mut transaction, &events, trace_context, retention).await?;
    transaction.commit().await?;
    Ok(order)
}
