//! Debezium's Outbox Event Router as a pure function: a row change and options in, a routed event or a typed error out.
