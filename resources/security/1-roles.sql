-- Roles with the least that each program needs. Run it once, as a superuser, in the empty database of the orders, before
-- order-service starts for the first time:
--
--   psql -d orderdb -v ON_ERROR_STOP=1 -f resources/security/1-roles.sql
--   alter role order_service password '...'; alter role outbox_relay password '...';   (or \password in psql)
--
-- The example itself does without: its one user is the one that PostgreSQL's image creates, a superuser.

-- Nobody comes in, or creates anything, just because the database is there.
do $$
begin
  execute format('revoke all on database %I from public', current_database());
end $$;
revoke create on schema public from public;

-- order-service: makes its tables (it migrates at start) and writes them. It cannot replicate.
create role order_service login nosuperuser nocreatedb nocreaterole noreplication;
create schema inventory authorization order_service;
do $$
begin
  execute format('grant connect, create on database %I to order_service', current_database());
  -- The list of its migrations lies beside its tables.
  execute format('alter role order_service in database %I set search_path = inventory', current_database());
end $$;

-- The relay: replicates, and makes nothing. What it may read is in 2-outbox.sql.
create role outbox_relay login replication nosuperuser nocreatedb nocreaterole connection limit 20;
do $$
begin
  execute format('grant connect on database %I to outbox_relay', current_database());
end $$;
grant usage on schema inventory to outbox_relay;
