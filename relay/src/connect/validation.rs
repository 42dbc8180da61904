//! Whether a configuration can be taken, with Kafka Connect's and Debezium's words for what is wrong.
//!
//! What Connect itself checks is here; what the connector's options mean is `connector_config`'s to say.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use super::error::ConnectError;
use super::java_text;
use super::plugins;
use super::references::Providers;
use super::secrets;
use super::storage::Properties;
use crate::config::WorkerConfig;
use crate::connector_config::{ConnectorConfig, DatabaseConfig, OptionError};
use crate::source::SourceError;
use crate::source::connection::{Connection, Purpose};

/// Debezium's snapshot modes, in the order in which it names them; `never` is the old name of `no_data`.
const SNAPSHOT_MODES: [&str; 7] = [
    "always",
    "initial_only",
    "configuration_based",
    "when_needed",
    "initial",
    "custom",
    "no_data",
];
const SNAPSHOT_MODE_OLD: &str = "never";

/// Options that Debezium requires, with the older name that does as well.
const REQUIRED: [(&str, &str); 3] = [
    ("database.hostname", "database.hostname"),
    ("database.user", "database.user"),
    ("database.dbname", "database.dbname"),
];

/// An option and what is wrong with it, in the words of the 400 answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldError {
    pub(super) option: String,
    pub(super) message: String,
}

/// A configuration that was looked at.
pub(super) struct Checked {
    /// What is wrong, in the order in which Kafka Connect tells it.
    pub(super) errors: Vec<FieldError>,
    /// The configuration as the connector will have it, unless something is wrong.
    pub(super) connector: Option<ConnectorConfig>,
}

/// Refuses a configuration without a connector class, or with one that is not here.
pub(super) fn check_class(
    properties: &Properties,
    show_passwords: bool,
) -> Result<(), ConnectError> {
    let Some(class) = properties.get("connector.class").and_then(Option::as_deref) else {
        let shown = if show_passwords { properties.clone() } else { secrets::masked(properties) };
        return Err(ConnectError::bad_request(format!(
            "Connector config {} contains no connector type",
            java_text::hash_map(&shown)
        )));
    };
    if plugins::is_connector(class) {
        return Ok(());
    }
    Err(ConnectError::bad_request(format!(
        "Failed to find any class that implements Connector and which name matches {class}, available connectors are: {}",
        plugins::connector_description()
    )))
}

/// Looks at every option; the class has been checked.
pub(super) fn check(properties: &Properties, worker: &WorkerConfig) -> Checked {
    let mut errors = Vec::new();
    let resolved = match Providers::new(worker).resolve(properties) {
        Ok(resolved) => resolved,
        Err(reason) => {
            let option = reason.split(':').next().unwrap_or_default().to_owned();
            return Checked {
                errors: vec![FieldError { option, message: reason }],
                connector: None,
            };
        }
    };
    check_name(resolved.get("name").map(String::as_str), &mut errors);
    check_tasks_max(resolved.get("tasks.max").map(String::as_str), &mut errors);
    let parsed = ConnectorConfig::parse(&resolved, worker);
    let refused = match &parsed {
        Ok(_) => [].as_slice(),
        Err(refused) => refused.as_slice(),
    };
    for refusal in refused.iter().filter(|refusal| is_converter_class(&refusal.option)) {
        push(&mut errors, &refusal.option, class_message(refusal));
    }
    check_transforms(&resolved, refused, &mut errors);
    check_connector(&resolved, &mut errors);
    for refusal in refused {
        let known = errors.iter().any(|error| same_option(&error.option, &refusal.option));
        // Debezium runs without a transform, the relay does not; that is told once the rest is right.
        let own = refusal.option == "transforms" && refusal.value.is_none() && !errors.is_empty();
        if !known && !own {
            push(&mut errors, &refusal.option, described(refusal));
        }
    }
    let connector = parsed.ok().filter(|_| errors.is_empty());
    Checked { errors, connector }
}

/// Looks at every option, and then whether the database lets the connector in, as Debezium does.
pub(super) async fn check_with_database(
    properties: &Properties,
    worker: &WorkerConfig,
) -> Vec<FieldError> {
    let Checked { mut errors, connector } = check(properties, worker);
    if let Some(connector) = connector
        && let Some(problem) = database_problem(&connector.database).await
    {
        let message = format!("Error while validating connector config: {problem}");
        push(&mut errors, "database.hostname", message);
    }
    errors
}

/// In the words of PostgreSQL's Java driver.
async fn database_problem(database: &DatabaseConfig) -> Option<String> {
    match Connection::open(database, Purpose::Query).await {
        Ok(_) => None,
        Err(SourceError::Server { error, .. }) => Some(format!("FATAL: {}", error.message)),
        Err(SourceError::Io { source, .. }) if source.kind() == ErrorKind::ConnectionRefused => {
            Some(format!(
                "Connection to {}:{} refused. Check that the hostname and port are correct and that the postmaster is \
                 accepting TCP/IP connections.",
                database.host, database.port
            ))
        }
        Err(other) => Some(other.to_string()),
    }
}

/// The 400 answer for what is wrong.
pub(super) fn refusal(errors: &[FieldError]) -> ConnectError {
    let mut message = format!(
        "Connector configuration is invalid and contains the following {} error(s):",
        errors.len()
    );
    for error in errors {
        message.push('\n');
        message.push_str(&error.message);
    }
    message.push_str(
        "\nYou can also find the above list of errors at the endpoint \
         `/connector-plugins/{connectorType}/config/validate`",
    );
    ConnectError::bad_request(message)
}

fn push(errors: &mut Vec<FieldError>, option: &str, message: impl Into<String>) {
    errors.push(FieldError { option: option.to_owned(), message: message.into() });
}

fn check_name(name: Option<&str>, errors: &mut Vec<FieldError>) {
    let Some(name) = name else {
        return push(errors, "name", missing("name"));
    };
    if name.trim().is_empty() {
        let message =
            format!("Invalid value {name} for configuration name: String may not be empty");
        return push(errors, "name", message);
    }
    let controls: Vec<String> =
        name.chars().filter(char::is_ascii_control).map(|c| u32::from(c).to_string()).collect();
    if !controls.is_empty() {
        let message = format!(
            "Invalid value {name} for configuration name: String may not contain control sequences but had the \
             following ASCII chars: {}",
            controls.join(", ")
        );
        push(errors, "name", message);
    }
}

fn check_tasks_max(value: Option<&str>, errors: &mut Vec<FieldError>) {
    let Some(value) = value else { return };
    match value.trim().parse::<i32>() {
        Ok(1..) => {}
        Ok(number) => {
            let message = format!(
                "Invalid value {number} for configuration tasks.max: Value must be at least 1"
            );
            push(errors, "tasks.max", message);
        }
        // Kafka counts both: the text is no number, and the null it became is none either.
        Err(_) => {
            let message = format!(
                "Invalid value {value} for configuration tasks.max: Not a number of type INT"
            );
            push(errors, "tasks.max", message);
            let message = "Invalid value null for configuration tasks.max: Value must be non-null";
            push(errors, "tasks.max", message);
        }
    }
}

fn check_transforms(
    resolved: &BTreeMap<String, String>,
    refused: &[OptionError],
    errors: &mut Vec<FieldError>,
) {
    let list = resolved.get("transforms").map(String::as_str).unwrap_or_default();
    let aliases: Vec<&str> = list.split(',').map(str::trim).filter(|a| !a.is_empty()).collect();
    let twice = aliases.iter().enumerate().any(|(index, alias)| aliases[..index].contains(alias));
    if twice {
        let message = format!(
            "Invalid value [{}] for configuration transforms: Duplicate alias provided.",
            aliases.join(", ")
        );
        return push(errors, "transforms", message);
    }
    for alias in aliases {
        let option = format!("transforms.{alias}.type");
        if !resolved.contains_key(&option) {
            push(errors, &option, missing(&option));
        } else if let Some(refusal) = refused.iter().find(|refusal| refusal.option == option) {
            push(errors, &option, class_message(refusal));
        }
    }
}

/// The checks of Debezium's whose wording its users know.
fn check_connector(resolved: &BTreeMap<String, String>, errors: &mut Vec<FieldError>) {
    let given = |option: &str| resolved.get(option).is_some_and(|value| !value.trim().is_empty());
    let require = |option: &str, old: &str, errors: &mut Vec<FieldError>| {
        if !given(option) && !given(old) {
            push(errors, option, invalid(option, "A value is required"));
        }
    };
    let [hostname, user, dbname] = REQUIRED;
    require(hostname.0, hostname.1, errors);
    let port = resolved.get("database.port").map(|port| port.trim().parse::<i32>());
    if matches!(port, Some(Err(_))) {
        // Two of Debezium's validators look at the port, and both say so.
        push(errors, "database.port", invalid("database.port", "An integer is expected"));
        push(errors, "database.port", invalid("database.port", "An integer is expected"));
    }
    require(user.0, user.1, errors);
    require(dbname.0, dbname.1, errors);
    require("topic.prefix", "database.server.name", errors);
    let mode = resolved.get("snapshot.mode").map(|mode| mode.trim().to_ascii_lowercase());
    let known = |mode: &str| SNAPSHOT_MODES.contains(&mode) || mode == SNAPSHOT_MODE_OLD;
    if mode.is_some_and(|mode| !known(&mode)) {
        let problem = format!("Value must be one of {}", SNAPSHOT_MODES.join(", "));
        push(errors, "snapshot.mode", invalid("snapshot.mode", &problem));
    }
}

fn missing(option: &str) -> String {
    format!("Missing required configuration \"{option}\" which has no default value.")
}

fn invalid(option: &str, problem: &str) -> String {
    format!("The '{option}' value is invalid: {problem}")
}

/// What the connector's own reader says, in the form of Debezium's messages.
fn described(refusal: &OptionError) -> String {
    let mut problem = refusal.message.clone();
    if let Some(first) = problem.get(..1).map(str::to_uppercase) {
        problem.replace_range(..1, &first);
    }
    invalid(&refusal.option, &problem)
}

fn is_converter_class(option: &str) -> bool {
    matches!(option, "key.converter" | "value.converter" | "header.converter")
}

/// A class that is Debezium's or Kafka's exists and is not here; another one is not to be found.
fn class_message(refusal: &OptionError) -> String {
    let OptionError { option, value, message } = refusal;
    let Some(class) = value else { return described(refusal) };
    let exists = ["io.debezium.", "org.apache.kafka.", "io.confluent.", "io.apicurio."];
    if exists.iter().any(|package| class.starts_with(package)) {
        return format!("Invalid value {class} for configuration {option}: {message}");
    }
    format!("Invalid value {class} for configuration {option}: Class {class} could not be found.")
}

/// Old and new names of one option are reported once.
fn same_option(reported: &str, refused: &str) -> bool {
    reported == refused
        || (reported == "transforms" && refused.starts_with("transforms"))
        || refused.strip_suffix(".type").is_some_and(|alias| reported.starts_with(alias))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors_of(change: &[(&str, Option<&str>)]) -> Vec<String> {
        let text = include_str!("../../../register-postgres.json");
        let file: serde_json::Value = serde_json::from_str(text).unwrap();
        let mut properties: Properties = serde_json::from_value(file["config"].clone()).unwrap();
        properties.insert("name".to_owned(), Some("c".to_owned()));
        for (option, value) in change {
            match value {
                Some(value) => properties.insert((*option).to_owned(), Some((*value).to_owned())),
                None => properties.remove(*option),
            };
        }
        let checked = check(&properties, &WorkerConfig::default());
        assert_eq!(checked.connector.is_some(), checked.errors.is_empty());
        checked.errors.into_iter().map(|error| error.message).collect()
    }

    #[test]
    fn the_example_s_configuration_is_taken() {
        assert_eq!(errors_of(&[]), [""; 0]);
    }

    #[test]
    fn several_errors_are_told_at_once_in_connect_s_order() {
        let errors = errors_of(&[
            ("tasks.max", Some("0")),
            ("topic.prefix", None),
            ("snapshot.mode", Some("sometimes")),
        ]);
        assert_eq!(
            errors,
            [
                "Invalid value 0 for configuration tasks.max: Value must be at least 1",
                "The 'topic.prefix' value is invalid: A value is required",
                "The 'snapshot.mode' value is invalid: Value must be one of always, initial_only, \
                 configuration_based, when_needed, initial, custom, no_data",
            ]
        );
    }

    #[test]
    fn names_are_checked_as_kafka_connect_does() {
        let check =
            |name: &str, expected: &str| assert_eq!(errors_of(&[("name", Some(name))]), [expected]);
        check("", "Invalid value  for configuration name: String may not be empty");
        check(
            "a\u{7}b\nc",
            "Invalid value a\u{7}b\nc for configuration name: String may not contain control sequences but had the \
             following ASCII chars: 7, 10",
        );
    }

    #[test]
    fn classes_that_are_not_here_are_named() {
        let check = |option: &str, value: Option<&str>, expected: &str| {
            assert_eq!(errors_of(&[(option, value)]), [expected]);
        };
        check(
            "value.converter",
            Some("com.example.NoSuchConverter"),
            "Invalid value com.example.NoSuchConverter for configuration value.converter: Class \
             com.example.NoSuchConverter could not be found.",
        );
        check(
            "transforms.outbox.type",
            Some("com.example.NoSuchTransform"),
            "Invalid value com.example.NoSuchTransform for configuration transforms.outbox.type: Class \
             com.example.NoSuchTransform could not be found.",
        );
        check(
            "transforms.outbox.type",
            None,
            "Missing required configuration \"transforms.outbox.type\" which has no default value.",
        );
        check(
            "transforms",
            Some("outbox,outbox"),
            "Invalid value [outbox, outbox] for configuration transforms: Duplicate alias provided.",
        );
    }

    #[test]
    fn the_refusal_counts_and_lists() {
        let errors = [FieldError { option: "a".to_owned(), message: "Wrong".to_owned() }];
        assert_eq!(
            refusal(&errors).message,
            "Connector configuration is invalid and contains the following 1 error(s):\nWrong\nYou can also find the \
             above list of errors at the endpoint `/connector-plugins/{connectorType}/config/validate`"
        );
    }
}
