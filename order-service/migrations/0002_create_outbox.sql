-- The outbox: domain events on their way to Kafka.
--
-- Why a table? A service that writes to its database and then to Kafka can die between the two: the order exists and
-- nobody hears of it, or everybody hears of an order that was rolled back. So the service writes the event here, in the
-- same transaction as the order. Both are committed or neither is.
--
-- Who reads it? Nobody runs a query. The relay reads PostgreSQL's write-ahead log (WAL), in which every committed insert
-- into this table appears, in commit order. That is why the service may delete a row in the transaction that
-- inserted it: the insert is in the WAL all the same, and the table stays empty. OUTBOX_KEEP_ROWS=true keeps the rows, for
-- audit and replay.
--
-- Column names are those that Debezium's Outbox Event Router expects.
create table inventory.outboxevent (
  -- Identity of the event. It travels as the record header `id`, and a consumer knows a repeated event by it.
  id                 uuid         primary key,
  -- The kind of business object the event is about; the relay makes the topic of it: Order -> OrderEvents.
  aggregatetype      varchar(255) not null,
  -- Which of them: the record key. Kafka keeps records of one key in order.
  aggregateid        varchar(255) not null,
  -- What happened: OrderCreated, InvoiceCreated, OrderLineUpdated. Travels as the header `eventType`.
  type               varchar(255) not null,
  timestamp          timestamptz  not null,
  -- The event itself, as the consumer will see it.
  payload            jsonb,
  -- The caller's W3C trace context as java.util.Properties text (`traceparent=00-...-01`), if there was one.
  tracingspancontext varchar(256)
);
