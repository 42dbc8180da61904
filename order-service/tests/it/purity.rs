//! What an order is, what is told about it and what may be sent are decided without a database, a network, a clock or a
//! log: in modules that a reader can follow, and a test can call, with values alone.

const PURE: [(&str, &str); 6] = [
    ("money.rs", include_str!("../../src/money.rs")),
    ("order.rs", include_str!("../../src/order.rs")),
    ("event.rs", include_str!("../../src/event.rs")),
    ("trace_context.rs", include_str!("../../src/trace_context.rs")),
    ("http/fields.rs", include_str!("../../src/http/fields.rs")),
    ("http/request.rs", include_str!("../../src/http/request.rs")),
];

const BANNED: [&str; 11] = [
    "sqlx",
    "tokio",
    "axum",
    "hyper",
    "tracing::",
    "async ",
    ".await",
    "std::env",
    "std::time",
    "Utc::now",
    "println!",
];

#[test]
fn the_rules_of_orders_and_events_use_no_io() {
    for (file, source) in PURE {
        let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            let found = BANNED.iter().find(|banned| line.contains(*banned));
            assert_eq!(found, None, "{file}: {line}");
        }
    }
}

/// `outbox.rs` is the only writer of the outbox table: no other statement names it.
#[test]
fn only_one_module_writes_to_the_outbox() {
    let others = [
        include_str!("../../src/store.rs"),
        include_str!("../../src/place_order.rs"),
        include_str!("../../src/change_order_line.rs"),
        include_str!("../../src/database.rs"),
        include_str!("../../src/http/orders.rs"),
        include_str!("../../src/http/health.rs"),
    ];
    for source in others {
        assert!(!source.contains("outboxevent"));
    }
    assert!(include_str!("../../src/outbox.rs").contains("insert into inventory.outboxevent"));
}
