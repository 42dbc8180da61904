//! Takes purchase orders over REST and writes each with its outbox rows in one PostgreSQL transaction.
