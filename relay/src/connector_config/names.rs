//! Names and choices at the top level of a connector's options, old names beside the current ones.

use super::SnapshotMode;
use super::options::Options;

/// Debezium's class, and the short names under which Connect finds it.
const CONNECTOR_CLASSES: [&str; 3] =
    ["io.debezium.connector.postgresql.PostgresConnector", "PostgresConnector", "Postgres"];

/// A slot's name where none is given, as in Debezium.
const SLOT_DEFAULT: &str = "debezium";

/// Longest name of a slot: PostgreSQL's NAMEDATALEN less the terminating byte.
const SLOT_NAME_MAX: usize = 63;

/// Whether `class` names the PostgreSQL connector.
#[must_use]
pub fn is_postgres_connector(class: &str) -> bool {
    CONNECTOR_CLASSES.contains(&class.trim())
}

pub(super) fn check_class(options: &mut Options<'_>) {
    let class = options.required(&["connector.class"], CONNECTOR_CLASSES[0]);
    if !class.is_empty() && !is_postgres_connector(&class) {
        let message = format!("the relay is a drop-in for {}", CONNECTOR_CLASSES[0]);
        options.refuse("connector.class", Some(class), message);
    }
    match options.text("plugin.name").as_deref() {
        Some("pgoutput") => {}
        None => options.remark("option `plugin.name` is not given; pgoutput is used".to_owned()),
        Some(other) => {
            let message = "the relay reads pgoutput, which every PostgreSQL has; use pgoutput";
            options.refuse("plugin.name", Some(other.to_owned()), message.to_owned());
        }
    }
}

/// The PostgreSQL connector always has one task: a slot has one reader. Debezium ignores a larger limit as well.
pub(super) fn check_task_limit(options: &mut Options<'_>) {
    options.number("tasks.max", 1, 1..=u64::from(u32::MAX));
}

pub(super) fn topic_prefix(options: &mut Options<'_>) -> String {
    let what = "the logical name of the database server";
    let prefix = options.required(&["topic.prefix", "database.server.name"], what);
    let legal = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-');
    if !prefix.chars().all(legal) {
        let message = "it may hold letters, digits, dots, hyphens and underscores";
        options.refuse("topic.prefix", Some(prefix.clone()), message.to_owned());
    }
    prefix
}

pub(super) fn slot(options: &mut Options<'_>) -> String {
    let slot = options.text("slot.name").unwrap_or_else(|| SLOT_DEFAULT.to_owned());
    let legal = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_';
    if slot.is_empty() || slot.len() > SLOT_NAME_MAX || !slot.chars().all(legal) {
        let message = format!(
            "it may hold lower case letters, digits and underscores, up to {SLOT_NAME_MAX}"
        );
        options.refuse("slot.name", Some(slot.clone()), message);
    }
    slot
}

pub(super) fn snapshot_mode(options: &mut Options<'_>) -> SnapshotMode {
    let choices = [
        ("initial", SnapshotMode::Initial),
        ("no_data", SnapshotMode::NoData),
        ("never", SnapshotMode::NoData),
    ];
    options.choice("snapshot.mode", &choices, SnapshotMode::Initial)
}

/// Options of the connector that are known but not taken elsewhere: harmless ones are accepted with a remark, and
/// those that would promise something the relay does not do are refused.
pub(super) fn check_the_rest(options: &mut Options<'_>) {
    check_skipped_operations(options);
    for (option, accepted) in MUST_KEEP_DEFAULT {
        let Some(value) = options.text(option) else { continue };
        if !accepted.iter().any(|word| word.eq_ignore_ascii_case(&value)) {
            let message = format!("this version supports only {}", accepted.join(", "));
            options.refuse(option, Some(value), message);
        }
    }
    for option in options.names() {
        // A mask that is not applied would publish what somebody wanted hidden.
        if option.starts_with("column.") && !is_column_option(&option) {
            let message = "this version supports column.include.list, column.exclude.list, \
                           column.mask.with.<n>.chars and column.truncate.to.<n>.chars";
            options.refuse(&option, None, message.to_owned());
        }
        if option.starts_with("topic.creation.") {
            options.remark(format!(
                "option `{option}` has no effect: topics are created by the broker, with its defaults"
            ));
        }
    }
    for option in REFUSED {
        if let Some(value) = options.text(option) {
            let message = "this version does not support the option; remove it".to_owned();
            options.refuse(option, Some(value), message);
        }
    }
    for option in HARMLESS {
        if options.text(option).is_some() {
            options.remark(format!("option `{option}` is accepted and has no effect here"));
        }
    }
    // Read by `columns` and `convert`.
    options.known(|name| {
        VALUE_OPTIONS.contains(&name)
            || is_column_option(name)
            || name.starts_with("topic.creation.")
            || ["key.converter", "value.converter", "header.converter"]
                .iter()
                .any(|converter| name.starts_with(converter))
    });
}

/// Updates, deletes and truncates make no event, skipped or not; inserts must not be skipped.
fn check_skipped_operations(options: &mut Options<'_>) {
    let Some(text) = options.text("skipped.operations") else { return };
    let mut operations = text.split(',').map(str::trim);
    if text != "none" && !operations.all(|operation| matches!(operation, "u" | "d" | "t")) {
        let message = "an outbox lives by its inserts; the relay supports none, u, d and t";
        options.refuse("skipped.operations", Some(text), message.to_owned());
    }
}

fn is_column_option(name: &str) -> bool {
    let number = |prefix: &str, suffix: &str| {
        name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix)).is_some_and(|number| {
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    matches!(
        name,
        "column.include.list" | "column.exclude.list" | "column.whitelist" | "column.blacklist"
    ) || number("column.mask.with.", ".chars")
        || number("column.truncate.to.", ".chars")
}

/// Options that decide how values are written.
const VALUE_OPTIONS: [&str; 11] = [
    "binary.handling.mode",
    "decimal.handling.mode",
    "field.name.adjustment.mode",
    "hstore.handling.mode",
    "include.unknown.datatypes",
    "interval.handling.mode",
    "money.fraction.digits",
    "schema.name.adjustment.mode",
    "time.precision.mode",
    "topic.delimiter",
    "unavailable.value.placeholder",
];

/// Options that change what is published or promised, with the values that mean what the relay does.
const MUST_KEEP_DEFAULT: [(&str, &[&str]); 9] = [
    ("tombstones.on.delete", &["true", "false"]),
    ("lsn.flush.mode", &["connector"]),
    ("flush.lsn.source", &["true"]),
    ("provide.transaction.metadata", &["false"]),
    ("errors.tolerance", &["none"]),
    ("exactly.once.support", &["requested"]),
    ("slot.failover", &["false"]),
    ("publish.via.partition.root", &["false"]),
    ("event.processing.failure.handling.mode", &["fail"]),
];

/// Options that the relay has no meaning for yet.
const REFUSED: [&str; 12] = [
    "converters",
    "post.processors",
    "database.initial.statements",
    "snapshot.include.collection.list",
    "snapshot.select.statement.overrides",
    "message.key.columns",
    "heartbeat.action.query",
    "signal.data.collection",
    "errors.deadletterqueue.topic.name",
    "transaction.boundary",
    "transaction.boundary.interval.ms",
    "transaction.id.prefix",
];

/// Options that tune Debezium's own machinery; the relay's needs no such tuning.
const HARMLESS: [&str; 24] = [
    // A keepalive of PostgreSQL moves an idle slot; there is no heartbeat topic.
    "heartbeat.interval.ms",
    "topic.heartbeat.prefix",
    "poll.interval.ms",
    "max.batch.size",
    "max.queue.size",
    "max.queue.size.in.bytes",
    "database.tcpKeepAlive",
    "snapshot.fetch.size",
    "snapshot.max.threads",
    "snapshot.delay.ms",
    "snapshot.lock.timeout.ms",
    "snapshot.locking.mode",
    "slot.max.retries",
    "slot.retry.delay.ms",
    "slot.stream.params",
    "retriable.restart.connector.wait.ms",
    "errors.max.retries",
    "errors.retry.timeout",
    "errors.retry.delay.max.ms",
    "errors.log.enable",
    "errors.log.include.messages",
    "offset.flush.interval.ms",
    "schema.refresh.mode",
    "include.schema.changes",
];
