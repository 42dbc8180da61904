//! The outbox: the only code that writes to the outbox table.
//!
//! Rows are inserted and, unless they are to be kept, deleted again in the same transaction. The relay reads them from
//! the WAL, where the insert stays; the table stays empty and needs no cleanup. There is no update of a row, ever: an
//! event that happened does not change.

use sqlx::PgTransaction;
use uuid::Uuid;

use crate::event::DomainEvent;
use crate::trace_context::TraceContext;

/// What becomes of an outbox row at the end of its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Deleted in the transaction that inserted it: only the WAL has it.
    Delete,
    /// Kept for audit and replay; someone has to clean up.
    Keep,
}

/// Writes the events into the outbox, in this order, as part of the caller's transaction.
///
/// It takes a transaction and not a connection, so that it cannot be used outside of one: events that are not committed
/// together with what they tell are the mistake that the pattern exists for.
pub(crate) async fn append(
    transaction: &mut PgTransaction<'_>,
    events: &[DomainEvent],
    trace_context: Option<&TraceContext>,
    retention: Retention,
) -> sqlx::Result<()> {
    // Version 7 ids grow with time, which keeps the primary key's index compact where rows are kept.
    let event_ids: Vec<Uuid> = events.iter().map(|_| Uuid::now_v7()).collect();
    let aggregate_types: Vec<&str> = events.iter().map(|event| event.aggregate_type).collect();
    let aggregate_ids: Vec<&str> = events.iter().map(|event| event.aggregate_id.as_str()).collect();
    let types: Vec<&str> = events.iter().map(|event| event.event_type).collect();
    let payloads: Vec<&str> = events.iter().map(|event| event.payload.get()).collect();
    // `clock_timestamp()` and not `now()`: the latter is the start of the transaction, which for a change that waited
    // for its order's lock lies before the events that overtook it.
    sqlx::query(
        "insert into inventory.outboxevent
           (id, aggregatetype, aggregateid, type, timestamp, payload, tracingspancontext)
         select id, aggregatetype, aggregateid, type, clock_timestamp(), payload::jsonb, $6
         from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[])
           with ordinality as event (id, aggregatetype, aggregateid, type, payload, position)
         order by position",
    )
    .bind(&event_ids)
    .bind(&aggregate_types)
    .bind(&aggregate_ids)
    .bind(&types)
    .bind(&payloads)
    .bind(trace_context.map(TraceContext::to_properties))
    .execute(&mut **transaction)
    .await?;
    if retention == Retention::Delete {
        sqlx::query("delete from inventory.outboxevent where id = any($1)")
            .bind(&event_ids)
            .execute(&mut **transaction)
            .await?;
    }
    for (event, event_id) in events.iter().zip(&event_ids) {
        tracing::debug!(
            outbox.event_id = %event_id,
            outbox.event_type = event.event_type,
            outbox.aggregate_id = event.aggregate_id,
            "wrote an event to the outbox"
        );
    }
    Ok(())
}
