//! Consumes order events from Kafka and writes each shipment once, with dedup inside the MySQL transaction.
