//! Recorded cases in which the relay differs from Debezium, each with the reason.

/// Names and reasons. `cargo test` fails when another case fails, and when one of these passes.
pub(crate) const DEVIATIONS: [(&str, &str); 0] = [];
