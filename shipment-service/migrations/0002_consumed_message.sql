-- The message log: the id of every event that was handled. Inserting here comes first in the transaction
-- that handles an event; the primary key decides whether the event is new or a duplicate.
--
-- `eventId` is a UUID in its 16 bytes (show it with `select bin_to_uuid(eventId)` on MySQL, `hex(eventId)` anywhere).
-- `timeOfReceiving` is in UTC.
create table if not exists ConsumedMessage (
  eventId         binary(16)  not null primary key,
  timeOfReceiving datetime(6) not null
);
