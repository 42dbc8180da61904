-- Purchase orders and their lines: what this service is about, without any thought of events.
--
-- The service runs these files at start, each once, in the order of their numbers, and notes them in
-- `_sqlx_migrations`. Several instances may start at once: the first takes an advisory lock, the others wait for it
-- and then find nothing left to do.

-- All tables live in a schema of their own, so that a publication, a grant or a backup can name them as one.
create schema if not exists inventory;

create table inventory.purchaseorder (
  -- An identity column counts 1, 2, 3 on a new database. A rolled back order leaves a gap; nobody may read meaning
  -- into the distance of two ids.
  id          bigint       generated always as identity primary key,
  customerid  bigint       not null check (customerid > 0),
  -- The customer's local date and time as sent, hence without a time zone.
  orderdate   timestamp(6) not null
);

create table inventory.orderline (
  id          bigint       generated always as identity primary key,
  item        varchar(255) not null,
  quantity    integer      not null check (quantity > 0),
  -- Money is decimal: 39.98 is not a binary fraction. `numeric` without a scale of its own keeps the digits as they were
  -- sent (10 stays 10, 10.00 stays 10.00), so every answer and every event about a line shows the same number. The check
  -- keeps cents the smallest unit.
  totalprice  numeric      not null check (totalprice >= 0 and scale(totalprice) <= 2),
  status      varchar(255) not null check (status in ('ENTERED', 'CANCELLED', 'SHIPPED')),
  order_id    bigint       not null references inventory.purchaseorder
);

-- Lines are always read by order and answered in the order of their ids.
create index orderline_by_order on inventory.orderline (order_id, id);
