-- What the shipment side knows: one row per order that has to be shipped.
--
-- `orderId` is unique: whatever happens to the messages, an order is never shipped twice.
-- `orderDate` is the local date and time that the order carries; it has no time zone.
--
-- Each file here holds one statement and can be run again: MySQL commits every DDL statement by itself,
-- so a start that is killed in the middle of a migration is repaired by running the file once more.
create table if not exists Shipment (
  id         bigint      not null auto_increment primary key,
  customerId bigint      not null,
  orderId    bigint      not null,
  orderDate  datetime(6) not null,
  constraint shipment_of_order unique (orderId)
);
