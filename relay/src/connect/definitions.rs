//! Definitions of options (`connector-plugins/{name}/config`) and the answer of `.../config/validate`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::Serialize;

use super::plugins;
use super::storage::Properties;
use super::validation::FieldError;

/// The table of options; its head says how it is made.
const TABLE: &str = include_str!("option_definitions.tsv");

/// Groups of the answer before those of transforms, and after them, in Kafka Connect's order.
const COMMON_GROUPS: [&str; 7] = [
    "Common",
    "Transforms",
    "Predicates",
    "Error Handling",
    "Topic Creation",
    "Exactly Once Support",
    "offsets.topic",
];
const TRANSFORM_GROUPS: [&str; 3] = ["Table", "Router", "Tracing"];
const CONNECTOR_GROUPS: [&str; 10] = [
    "CONNECTION",
    "CONNECTION_ADVANCED",
    "CONNECTOR",
    "CONNECTOR_ADVANCED",
    "CONNECTOR_SNAPSHOT",
    "ADVANCED",
    "ADVANCED_HEARTBEAT",
    "FILTERS",
    "CONNECTION_ADVANCED_SSL",
    "CONNECTION_ADVANCED_REPLICATION",
];

/// Debezium's words for options that have one of a few, of those that are taken here.
const WORDS: [(&str, &[&str]); 13] = [
    ("binary.handling.mode", &["bytes", "base64", "base64-url-safe", "hex"]),
    ("database.sslmode", &["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]),
    ("decimal.handling.mode", &["precise", "string", "double"]),
    ("event.processing.failure.handling.mode", &["fail"]),
    ("field.name.adjustment.mode", &["none", "avro", "avro_unicode"]),
    ("hstore.handling.mode", &["json", "map"]),
    ("interval.handling.mode", &["numeric", "string"]),
    ("plugin.name", &["pgoutput"]),
    ("publication.autocreate.mode", &["disabled", "all_tables", "filtered", "no_tables"]),
    ("schema.name.adjustment.mode", &["none", "avro", "avro_unicode"]),
    ("snapshot.mode", &["always", "initial_only", "when_needed", "initial", "no_data"]),
    ("lsn.flush.mode", &["connector"]),
    (
        "time.precision.mode",
        &[
            "adaptive",
            "adaptive_time_microseconds",
            "connect",
            "isostring",
            "microseconds",
            "nanoseconds",
        ],
    ),
];

/// Options that Kafka Connect has for each transform, with type, importance and default.
const OF_TRANSFORM: [(&str, &str, &str, Option<&str>); 4] = [
    ("type", "CLASS", "HIGH", None),
    ("plugin.version", "STRING", "MEDIUM", None),
    ("negate", "BOOLEAN", "MEDIUM", Some("false")),
    ("predicate", "STRING", "MEDIUM", Some("")),
];

/// An option as Kafka Connect describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Definition {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    required: bool,
    default_value: Option<&'static str>,
    importance: &'static str,
    documentation: String,
    group: Option<String>,
    order_in_group: i32,
    width: &'static str,
    display_name: String,
    dependents: Vec<String>,
}

/// An option's value in an answer of `validate`.
#[derive(Debug, Serialize)]
struct Value {
    name: String,
    value: Option<String>,
    recommended_values: Vec<&'static str>,
    errors: Vec<String>,
    visible: bool,
}

#[derive(Debug, Serialize)]
struct Validated {
    definition: Option<Definition>,
    value: Value,
}

/// The answer of `validate`.
#[derive(Debug, Serialize)]
pub(super) struct Validation {
    name: String,
    error_count: usize,
    groups: Vec<String>,
    configs: Vec<Validated>,
}

static COMMON: LazyLock<Vec<Definition>> = LazyLock::new(|| part("common"));
static ROUTER: LazyLock<Vec<Definition>> = LazyLock::new(|| part("router"));
static CONNECTOR: LazyLock<Vec<Definition>> = LazyLock::new(|| part("connector"));

/// The options of a plugin; `None`: there is no such plugin.
pub(super) fn of_plugin(plugin: &str) -> Option<Vec<Definition>> {
    if plugins::is_connector(plugin) {
        return Some(CONNECTOR.iter().chain(COMMON.iter()).cloned().collect());
    }
    let simple = plugins::ROUTER_CLASS.rsplit('.').next();
    if plugin == plugins::ROUTER_CLASS || Some(plugin) == simple {
        return Some(ROUTER.clone());
    }
    plugins::is_known(plugin).then(Vec::new)
}

/// What was found wrong with a configuration, option by option.
pub(super) fn validation(properties: &Properties, errors: &[FieldError]) -> Validation {
    let text = |option: &str| properties.get(option).cloned().flatten();
    let transforms = text("transforms").unwrap_or_default();
    let mut seen = BTreeSet::new();
    let aliases = transforms.split(',').map(str::trim).filter(|alias| !alias.is_empty());
    let aliases: Vec<&str> = aliases.filter(|alias| seen.insert(*alias)).collect();
    let mut messages: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for error in errors {
        messages.entry(&error.option).or_default().push(error.message.clone());
    }
    let of_transforms = aliases.iter().flat_map(|alias| of_alias(alias));
    let given: Vec<Definition> = COMMON.iter().cloned().chain(of_transforms).collect();
    let mut configs = Vec::new();
    for definition in given {
        let value = text(&definition.name).or(definition.default_value.map(str::to_owned));
        configs.push(validated(definition, value, &mut messages));
    }
    for definition in CONNECTOR.iter() {
        // Debezium answers without the values of its own options.
        configs.push(validated(definition.clone(), None, &mut messages));
    }
    let strangers = messages.into_iter().map(|(option, errors)| Validated {
        definition: None,
        value: Value { errors, ..value(option.to_owned(), None) },
    });
    configs.extend(strangers);
    Validation {
        name: text("connector.class").unwrap_or_default(),
        error_count: errors.len(),
        groups: groups(&aliases),
        configs,
    }
}

fn validated(
    definition: Definition,
    given: Option<String>,
    messages: &mut BTreeMap<&str, Vec<String>>,
) -> Validated {
    let errors = messages.remove(definition.name.as_str()).unwrap_or_default();
    let value = Value { errors, ..value(definition.name.clone(), given) };
    Validated { definition: Some(definition), value }
}

fn value(name: String, value: Option<String>) -> Value {
    let recommended_values = recommended(&name);
    Value { name, value, recommended_values, errors: Vec::new(), visible: true }
}

/// What an option may be, where there is a choice.
fn recommended(option: &str) -> Vec<&'static str> {
    if option.starts_with("transforms.") && option.ends_with(".type") {
        return plugins::of_kind("transformation");
    }
    match option {
        "key.converter" | "value.converter" => plugins::of_kind("converter"),
        "header.converter" => plugins::of_kind("header_converter"),
        _ => {
            let words = WORDS.iter().find(|(name, _)| *name == option);
            words.map(|(_, words)| words.to_vec()).unwrap_or_default()
        }
    }
}

fn groups(aliases: &[&str]) -> Vec<String> {
    let owned = |groups: &[&str]| groups.iter().map(|group| (*group).to_owned()).collect();
    let mut all: Vec<String> = owned(&COMMON_GROUPS);
    for alias in aliases {
        all.push(format!("Transforms: {alias}"));
        all.extend(TRANSFORM_GROUPS.map(|group| format!("Transforms: {alias}: {group}")));
    }
    all.extend(CONNECTOR_GROUPS.map(str::to_owned));
    all
}

fn of_alias(alias: &str) -> Vec<Definition> {
    let prefix = format!("transforms.{alias}");
    let group = format!("Transforms: {alias}");
    let own =
        OF_TRANSFORM.into_iter().zip(1..).map(|((name, kind, importance, default), order)| {
            Definition {
                required: name == "type",
                ..definition(&format!("{prefix}.{name}"), kind, importance, &group, default, order)
            }
        });
    let of_router = ROUTER.iter().cloned().map(|definition| Definition {
        name: format!("{prefix}.{}", definition.name),
        group: definition.group.map(|part| format!("{group}: {part}")),
        ..definition
    });
    own.chain(of_router).collect()
}

fn part(part: &str) -> Vec<Definition> {
    let mut orders: BTreeMap<&str, i32> = BTreeMap::new();
    let rows = TABLE.lines().filter_map(|line| {
        let mut columns = line.split('\t');
        if columns.next()? != part {
            return None;
        }
        let mut column = || columns.next();
        let (name, kind, importance, group) = (column()?, column()?, column()?, column()?);
        let order = orders.entry(group).or_default();
        *order += 1;
        Some(definition(name, kind, importance, group, column()?.strip_prefix('='), *order))
    });
    rows.collect()
}

fn definition(
    name: &str,
    kind: &'static str,
    importance: &'static str,
    group: &str,
    default_value: Option<&'static str>,
    order_in_group: i32,
) -> Definition {
    let (documentation, display_name) = match name {
        "name" => (
            "Globally unique name to use for this connector.".to_owned(),
            "Connector name".to_owned(),
        ),
        _ => (
            format!("See the documentation of Debezium or Kafka Connect for {name}."),
            name.to_owned(),
        ),
    };
    Definition {
        name: name.to_owned(),
        kind,
        required: matches!(name, "name" | "connector.class"),
        default_value,
        importance,
        documentation,
        group: Some(group.to_owned()),
        order_in_group,
        width: "MEDIUM",
        display_name,
        dependents: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_whole() {
        let rows = TABLE.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(COMMON.len() + ROUTER.len() + CONNECTOR.len(), rows);
        assert_eq!(of_plugin("PostgresConnector").map(|all| all.len()), Some(165));
        assert_eq!(of_plugin("EventRouter").map(|all| all.len()), Some(19));
        assert!(of_plugin("com.example.Nope").is_none());
        let groups: Vec<_> = CONNECTOR.iter().filter_map(|d| d.group.as_deref()).collect();
        assert!(groups.iter().all(|group| CONNECTOR_GROUPS.contains(group)));
    }

    #[test]
    fn errors_stand_at_their_options_and_strangers_are_kept() {
        let properties = Properties::from([
            ("connector.class".to_owned(), Some("Postgres".to_owned())),
            ("transforms".to_owned(), Some("a,a".to_owned())),
        ]);
        let error = |option: &str| FieldError { option: option.into(), message: "wrong".into() };
        let answer = validation(&properties, &[error("topic.prefix"), error("stranger")]);
        assert_eq!(answer.error_count, 2);
        let wrong: Vec<_> = answer.configs.iter().filter(|c| !c.value.errors.is_empty()).collect();
        assert_eq!(
            wrong.iter().map(|c| c.value.name.as_str()).collect::<Vec<_>>(),
            ["topic.prefix", "stranger"]
        );
        assert_eq!(answer.configs.len(), 188 + 1);
        let recommended = |option: &str| {
            let found = answer.configs.iter().find(|config| config.value.name == option);
            found.map(|config| config.value.recommended_values.clone()).unwrap_or_default()
        };
        assert_eq!(recommended("hstore.handling.mode"), ["json", "map"]);
        assert_eq!(recommended("transforms.a.type"), [plugins::ROUTER_CLASS]);
        assert!(recommended("key.converter").iter().all(|class| plugins::is_known(class)));
        assert_eq!(recommended("name"), [""; 0]);
    }
}
