//! Streams outbox rows from PostgreSQL's WAL to Kafka; a drop-in for Debezium Connect with the Outbox Event Router.
//!
//! The modules stand in the order in which the data flows; `pipeline` is the sentence that joins them.

pub mod columns;
pub mod config;
pub mod connect;
pub mod connector_config;
pub mod convert;
pub mod record;
pub mod task;
