-- The Debezium outbox example's table, and a small generator of its events, for tests of the REST API.
create schema inventory;
create table inventory.outboxevent (
  id            uuid         not null primary key,
  aggregatetype varchar(255) not null,
  aggregateid   varchar(255) not null,
  type          varchar(255) not null,
  timestamp     timestamp    not null,
  payload       jsonb
);

-- first..last: one transaction per event; unless keep, the row is deleted in the transaction that inserts it.
create procedure inventory.load_events(agg text, first bigint, last bigint, keep boolean, per_second int)
language plpgsql as $$
declare
  event_id uuid;
begin
  for seq in first .. last loop
    event_id := gen_random_uuid();
    insert into inventory.outboxevent values
      (event_id, agg, seq::text, 'OrderCreated', now(), jsonb_build_object('id', seq));
    if not keep then
      delete from inventory.outboxevent where id = event_id;
    end if;
    commit;
  end loop;
end $$;
