-- What the relay may read: the outbox, and nothing else. Run it once, as a superuser, after order-service has made its
-- tables.
--
-- The connector says "publication.autocreate.mode": "disabled": the publication belongs to whoever runs this, and the
-- relay, which does not own the table, could not make it.

grant select on inventory.outboxevent to outbox_relay;

create publication dbz_publication for table inventory.outboxevent;
