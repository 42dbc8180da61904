//! The events that are measured with: an outbox row inserted and deleted in a transaction of its own.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sqlx::{Connection as _, PgConnection};

use crate::database::{PostgresDatabase, postgres_options, statement};

/// Generating a hundred thousand transactions takes seconds; a machine that needs longer than this is stuck.
const LOAD_BOUND: Duration = Duration::from_secs(600);

/// Events of one key keep their order; this many keys, as the orders of a busy minute.
pub(super) const KEYS: u32 = 1000;

/// An order of about 380 bytes as the example writes it, with a sequence number (1, 2, 3...), made inside the server: sending the rows
/// there is not what is measured.
const PROCEDURES: &str = r#"
create schema if not exists measure;
create or replace function measure.order_payload(seq bigint) returns jsonb language sql as $$
  select format('{"seq":%s,"id":%s,"customerId":%s,"orderDate":"2019-01-31T12:13:01","lineItems":['
    '{"id":%s,"item":"WAL in Action","status":"ENTERED","quantity":2,"totalPrice":39.98},'
    '{"id":%s,"item":"Outbox 101","status":"ENTERED","quantity":1,"totalPrice":29.99},'
    '{"id":%s,"item":"Event Streams","status":"ENTERED","quantity":1,"totalPrice":49.99}]}',
    seq, seq, seq % 1000, 3 * seq, 3 * seq + 1, 3 * seq + 2)::jsonb
$$;
create or replace procedure measure.write_event(event_id uuid, aggregate_type text, aggregate_id text, seq bigint)
language plpgsql as $$
begin
  insert into inventory.outboxevent (id, aggregatetype, aggregateid, type, timestamp, payload)
    values (event_id, aggregate_type, aggregate_id, 'OrderCreated', now(), measure.order_payload(seq));
  delete from inventory.outboxevent where id = event_id;
end $$;
create or replace procedure measure.load(aggregate_type text, events bigint, keys bigint) language plpgsql as $$
begin
  for seq in 1 .. events loop
    call measure.write_event(gen_random_uuid(), aggregate_type, (seq % keys)::text, seq);
    commit;
  end loop;
end $$;
"#;

/// A connection for writing events.
pub(super) async fn connect(database: &PostgresDatabase) -> Result<PgConnection> {
    PgConnection::connect_with(&postgres_options(database)).await.context("connect to PostgreSQL")
}

/// Creates what the other functions call.
pub(super) async fn create_procedures(connection: &mut PgConnection) -> Result<()> {
    sqlx::raw_sql(PROCEDURES).execute(connection).await.context("create the load's procedures")?;
    Ok(())
}

/// Bytes of one event's payload, as it goes over the wire.
pub(super) async fn payload_bytes(connection: &mut PgConnection) -> Result<i32> {
    let query = "select octet_length(measure.order_payload(50000)::text)";
    Ok(sqlx::query_scalar(query).fetch_one(connection).await?)
}

/// Commits one event and waits until it is on disk.
pub(super) async fn write_event(
    connection: &mut PgConnection,
    id: uuid::Uuid,
    aggregate_type: &str,
    seq: u32,
) -> Result<()> {
    sqlx::query("call measure.write_event($1, $2, $3, $4)")
        .bind(id)
        .bind(aggregate_type)
        .bind((seq % KEYS).to_string())
        .bind(i64::from(seq))
        .execute(connection)
        .await
        .context("write an event")?;
    Ok(())
}

/// Commits `events` transactions with one event each, and leaves the server with nothing else to do: the dead rows are
/// cleared, everything is on disk.
pub(super) async fn load(
    database: &PostgresDatabase,
    aggregate_type: &str,
    events: u32,
) -> Result<()> {
    let loading = async {
        let mut connection = connect(database).await?;
        // Whether these commits wait for the disk is not what is measured.
        sqlx::raw_sql("set synchronous_commit = off").execute(&mut connection).await?;
        let call = format!("call measure.load('{aggregate_type}', {events}, {KEYS})");
        sqlx::raw_sql(statement(call)).execute(&mut connection).await?;
        for last in ["vacuum inventory.outboxevent", "checkpoint"] {
            sqlx::raw_sql(last).execute(&mut connection).await?;
        }
        connection.close().await?;
        anyhow::Ok(())
    };
    let loaded = tokio::time::timeout(LOAD_BOUND, loading).await;
    loaded.context("the load takes too long")?.context("load the events")
}
