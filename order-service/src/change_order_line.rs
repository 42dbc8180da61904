//! Use case: a line of an order gets a new status. One transaction stores the change and tells about it.

use sqlx::PgPool;

use crate::event::DomainEvent;
use crate::failure::Failure;
use crate::order::{LineStatus, PurchaseOrder};
use crate::outbox::{self, Retention};
use crate::store;
use crate::trace_context::TraceContext;

/// Changes the line and, in the same transaction, writes the event `OrderLineUpdated`. Answers the whole order.
///
/// The order's row is locked first and stays locked until the commit, although only a line changes. The order is the
/// aggregate: its events share one record key, and consumers rely on their sequence. The relay sends events in commit
/// order. Without the lock two changes could read the same old status and commit in either order, and their events would
/// tell a story that never happened (ENTERED to CANCELLED, ENTERED to SHIPPED). With it, changes of one order
/// happen one after the other, and each event starts where the one before ended. Other orders are not held up.
pub(crate) async fn change_order_line(
    pool: &PgPool,
    order_id: i64,
    order_line_id: i64,
    new_status: LineStatus,
    trace_context: Option<&TraceContext>,
    retention: Retention,
) -> Result<PurchaseOrder, Failure> {
    let mut transaction = pool.begin().await?;
    if !store::lock_order(&mut transaction, order_id).await? {
        return Err(Failure::OrderNotFound(order_id));
    }
    // Read after the lock was granted, in a statement of its own: it sees what the holder before us committed.
    let mut order = store::find_order(&mut transaction, order_id)
        .await?
        .ok_or(Failure::OrderNotFound(order_id))?;
    let change = order
        .change_line_status(order_line_id, new_status)
        .ok_or(Failure::LineNotFound(order_line_id))?;
    store::update_line_status(&mut transaction, &change).await?;
    let events = [DomainEvent::order_line_updated(&change)?];
    outbox::append(&mut transaction, &events, trace_context, retention).await?;
    transaction.commit().await?;
    Ok(order)
}
