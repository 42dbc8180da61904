//! Names and choices at the top level of a connector's options, old names beside the current ones.

use std::time::Duration;

use super::options::Options;

/// Debezium's class, and the short names under which Connect finds it.
const CONNECTOR_CLASSES: [&str; 3] =
    ["io.debezium.connector.postgresql.PostgresConnector", "PostgresConnector", "Postgres"];

/// A slot's name where none is given, as in Debezium.
const SLOT_DEFAULT: &str = "debezium";

/// Longest name of a slot: PostgreSQL's NAMEDATALEN less the terminating byte.
const SLOT_NAME_MAX: usize = 63;

/// Debezium's defaults: six attempts, ten seconds apart.
const SLOT_RETRIES: u64 = 6;
const SLOT_RETRY_DELAY_MS: u64 = 10_000;

/// Far more attempts than anybody waits for, and little enough to be multiplied with delays.
const RETRIES_MAX: u64 = 1_000_000;

/// The longest delay that an option may ask for: a day.
const DELAY_MAX_MS: u64 = 24 * 60 * 60 * 1_000;

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

/// Debezium tries `slot.max.retries` times to get hold of a slot, and starts its task anew `errors.max.retries` times,
/// which by default is without limit.
pub(super) fn slot_patience(options: &mut Options<'_>) -> Option<Duration> {
    let retries = options.number("slot.max.retries", SLOT_RETRIES, 0..=RETRIES_MAX);
    let delay = options.milliseconds("slot.retry.delay.ms", SLOT_RETRY_DELAY_MS, 0..=DELAY_MAX_MS);
    let per_start = delay.saturating_mul(u32::try_from(retries).unwrap_or(u32::MAX));
    if options.text("errors.max.retries").is_none_or(|text| text == "-1") {
        return None;
    }
    let restarts = options.number("errors.max.retries", 0, 0..=RETRIES_MAX);
    Some(per_start.saturating_mul(u32::try_from(restarts + 1).unwrap_or(u32::MAX)))
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

/// Options of pgoutput that leave the form of its messages as it is. `binary` and `streaming` would change it, and the
/// relay gives the others itself.
const STREAM_PARAMETERS: [&str; 1] = ["origin"];

/// `slot.stream.params`: `name=value`, separated by semicolons.
pub(super) fn stream_parameters(options: &mut Options<'_>) -> Vec<(String, String)> {
    const OPTION: &str = "slot.stream.params";
    let text = options.text(OPTION).unwrap_or_default();
    let mut parameters = Vec::new();
    for parameter in text.split(';').map(str::trim).filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some((name, value)) if STREAM_PARAMETERS.contains(&name.trim()) => {
                parameters.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            _ => {
                let message = format!(
                    "the relay passes on {}; what else pgoutput needs it gives itself",
                    STREAM_PARAMETERS.join(", ")
                );
                options.refuse(OPTION, Some(parameter.to_owned()), message);
            }
        }
    }
    parameters
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_slot_has_a_name_that_postgresql_takes() {
        let refused = |name: &str| {
            let properties = BTreeMap::from([("slot.name".to_owned(), name.to_owned())]);
            let mut options = Options::new(&properties);
            slot(&mut options);
            options.finish().is_err()
        };
        for name in ["Outbox", "out-box", "", &"s".repeat(64)] {
            assert!(refused(name), "{name}");
        }
        for name in ["outbox_1", &"s".repeat(63)] {
            assert!(!refused(name), "{name}");
        }
    }
}
