//! Debezium's Outbox Event Router as a pure function: a row change and options in, a routed event or a typed error out.
//!
//! [`change`] is what comes in, [`Router`] decides by [`options`], [`event`] is what goes out; [`data`] is Kafka
//! Connect's data model, which both sides are made of. Nothing here knows a clock, a socket or a log: warnings are
//! returned with the event, for the caller to write.
//!
//! Source of the rules: Debezium's documentation of the router and the records in the conformance vectors, made by
//! Debezium 3.7.0. Where they surprise (a default for a null, a schema name that sticks), the code says so.

pub mod chain;
pub mod change;
pub mod data;
pub mod envelope;
pub mod event;
pub mod expand;
pub mod java_properties;
pub mod java_regex;
pub mod json_text;
mod literal;
pub mod naming;
pub mod options;
mod plan;
mod router;
pub mod topic;
mod tracing;
pub mod transform;

pub use event::{Header, Outcome, RouteError, RoutedEvent, Skipped, Warning};
pub use options::{InvalidOption, OptionWarning, RouterOptions};
pub use router::Router;
pub use tracing::RandomBits;
