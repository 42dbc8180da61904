//! Recorded cases in which the relay differs from Debezium, each with the reason.

/// Names and reasons. `cargo test` fails when another case fails, and when one of these passes.
pub(crate) const DEVIATIONS: [(&str, &str); 5] = [
    ("conn-heartbeat", HEARTBEAT),
    ("conn-heartbeat-binary-delegate", HEARTBEAT),
    ("conn-heartbeat-schemas", HEARTBEAT),
    ("conn-transaction-metadata", TRANSACTION_METADATA),
    ("conn-transaction-metadata-raw", TRANSACTION_METADATA),
];

const HEARTBEAT: &str = "there is no heartbeat topic yet";
const TRANSACTION_METADATA: &str =
    "provide.transaction.metadata is refused as long as it is not there";
