//! The router's options, by Debezium's names and with its defaults.

use std::collections::BTreeMap;

use crate::expand::{EmptyArrayBehavior, Expansion, NullBehavior};
use crate::java_regex::Regex;
use crate::naming::NameAdjustment;

/// `table.op.invalid.behavior`.
pub const OP_INVALID_BEHAVIOR: &str = "table.op.invalid.behavior";
/// Column of the event's id.
pub const FIELD_EVENT_ID: &str = "table.field.event.id";
/// Column of the record's key.
pub const FIELD_EVENT_KEY: &str = "table.field.event.key";
/// Column of the event's type. Debezium takes the option and never uses it.
pub const FIELD_EVENT_TYPE: &str = "table.field.event.type";
/// Column of the record's timestamp.
pub const FIELD_EVENT_TIMESTAMP: &str = "table.field.event.timestamp";
/// Column of the payload.
pub const FIELD_EVENT_PAYLOAD: &str = "table.field.event.payload";
/// Column of the version of the envelope's schema.
pub const FIELD_SCHEMA_VERSION: &str = "table.field.event.schema.version";
/// More columns, and where they go.
pub const FIELDS_ADDITIONAL_PLACEMENT: &str = "table.fields.additional.placement";
/// What to do when one of them is missing.
pub const FIELD_ADDITIONAL_MISSING: &str = "table.field.additional.missing";
/// Column that decides the topic.
pub const ROUTE_BY_FIELD: &str = "route.by.field";
/// Expression for its value.
pub const ROUTE_TOPIC_REGEX: &str = "route.topic.regex";
/// Topic made of the expression's groups.
pub const ROUTE_TOPIC_REPLACEMENT: &str = "route.topic.replacement";
/// Whether an empty payload makes a tombstone.
pub const ROUTE_TOMBSTONE: &str = "route.tombstone.on.empty.payload";
/// Whether JSON text is expanded.
pub const EXPAND_JSON_PAYLOAD: &str = "table.expand.json.payload";
/// What becomes of nulls in expanded JSON.
pub const JSON_NULL_BEHAVIOR: &str = "table.json.payload.null.behavior";
/// What becomes of empty arrays in expanded JSON.
pub const JSON_EMPTY_ARRAY_BEHAVIOR: &str = "table.json.payload.empty.array.behavior";
/// How names of expanded JSON are adjusted.
pub const FIELD_NAME_ADJUSTMENT: &str = "field.name.adjustment.mode";
/// Column of the span that wrote the row.
pub const TRACING_FIELD: &str = "tracing.span.context.field";
/// Name of the relay's span.
pub const TRACING_OPERATION: &str = "tracing.operation.name";
/// Whether only rows with a span are traced.
pub const TRACING_FIELD_ONLY: &str = "tracing.with.context.field.only";

/// What an update of an outbox row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidOperation {
    /// It is left out with a warning.
    Warn,
    /// It is left out with an error in the log.
    Error,
    /// It stops the task.
    Fatal,
}

/// Where an additional column goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// A header.
    Header,
    /// A field beside the payload.
    Envelope,
    /// The record's partition.
    Partition,
}

/// An additional column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdditionalField {
    /// Column.
    pub column: String,
    /// Where it goes; none for a word that is no placement, which Debezium notices at the first row only.
    pub placement: Option<Placement>,
    /// Name of the header or field.
    pub alias: String,
}

/// Tracing, which is off unless [`crate::chain::Chain::tracing`] turns it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracingOptions {
    /// Column of the span that wrote the row.
    pub column: String,
    /// Name of the relay's span.
    pub operation: String,
    /// Whether only rows with a span are traced.
    pub column_only: bool,
}

/// All options of one router.
#[derive(Debug, Clone)]
pub struct RouterOptions {
    /// What an update does.
    pub invalid_operation: InvalidOperation,
    /// Column of the event's id.
    pub id_column: String,
    /// Column of the key.
    pub key_column: String,
    /// Column of the timestamp; none: the time at which the change was handled.
    pub timestamp_column: Option<String>,
    /// Column of the payload.
    pub payload_column: String,
    /// Column of the version of the envelope's schema.
    pub version_column: Option<String>,
    /// Additional columns.
    pub additional: Vec<AdditionalField>,
    /// Whether an additional column that is missing is no error.
    pub ignore_missing: bool,
    /// Column that decides the topic.
    pub route_column: String,
    /// Expression for its value.
    pub topic_regex: Regex,
    /// Topic made of it.
    pub topic_replacement: String,
    /// Whether an empty payload makes a tombstone.
    pub tombstone_on_empty_payload: bool,
    /// How JSON is expanded, if it is.
    pub expansion: Option<Expansion>,
    /// Tracing.
    pub tracing: TracingOptions,
}

/// An option that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidOption {
    /// Name without the transform's prefix.
    pub option: String,
    /// The value that was given.
    pub value: Option<String>,
    /// What is wrong and what to do.
    pub message: String,
}

/// An option that is taken but has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionWarning {
    /// Name without the transform's prefix.
    pub option: String,
    /// Why it has none.
    pub message: String,
}

impl RouterOptions {
    /// Reads the options of a router; names without `transforms.<alias>.`.
    ///
    /// # Errors
    /// Every option that cannot be taken, not only the first.
    pub fn parse(
        properties: &BTreeMap<String, String>,
    ) -> Result<(Self, Vec<OptionWarning>), Vec<InvalidOption>> {
        let mut reader = Reader { properties, problems: Vec::new() };
        let options = reader.read();
        if reader.problems.is_empty() {
            options.map(|options| (options, warnings(properties))).ok_or_else(Vec::new)
        } else {
            Err(reader.problems)
        }
    }

    /// Whether the payload is wrapped in an envelope with other columns.
    #[must_use]
    pub fn has_envelope(&self) -> bool {
        self.additional.iter().any(|field| field.placement == Some(Placement::Envelope))
    }
}

struct Reader<'p> {
    properties: &'p BTreeMap<String, String>,
    problems: Vec<InvalidOption>,
}

impl Reader<'_> {
    fn read(&mut self) -> Option<RouterOptions> {
        let expand = self.boolean(EXPAND_JSON_PAYLOAD, false);
        let expansion = Expansion {
            nulls: self.choice(
                JSON_NULL_BEHAVIOR,
                &[
                    ("ignore", NullBehavior::Ignore),
                    ("optional_bytes", NullBehavior::OptionalBytes),
                ],
            ),
            empty_arrays: self.choice(
                JSON_EMPTY_ARRAY_BEHAVIOR,
                &[
                    ("ignore", EmptyArrayBehavior::Ignore),
                    ("optional_string", EmptyArrayBehavior::OptionalString),
                ],
            ),
            names: self.choice(
                FIELD_NAME_ADJUSTMENT,
                &[
                    ("none", NameAdjustment::None),
                    ("avro", NameAdjustment::Avro),
                    ("avro_unicode", NameAdjustment::AvroUnicode),
                ],
            ),
        };
        let regex = self.regex();
        Some(RouterOptions {
            invalid_operation: self.choice(
                OP_INVALID_BEHAVIOR,
                &[
                    ("warn", InvalidOperation::Warn),
                    ("error", InvalidOperation::Error),
                    ("fatal", InvalidOperation::Fatal),
                ],
            ),
            id_column: self.text(FIELD_EVENT_ID, "id"),
            key_column: self.text(FIELD_EVENT_KEY, "aggregateid"),
            timestamp_column: self.properties.get(FIELD_EVENT_TIMESTAMP).cloned(),
            payload_column: self.text(FIELD_EVENT_PAYLOAD, "payload"),
            version_column: self.properties.get(FIELD_SCHEMA_VERSION).cloned(),
            additional: self.additional(),
            ignore_missing: self
                .choice(FIELD_ADDITIONAL_MISSING, &[("error", false), ("ignore", true)]),
            route_column: self.text(ROUTE_BY_FIELD, "aggregatetype"),
            topic_replacement: self.text(ROUTE_TOPIC_REPLACEMENT, "outbox.event.${routedByValue}"),
            tombstone_on_empty_payload: self.boolean(ROUTE_TOMBSTONE, false),
            expansion: expand.then_some(expansion),
            tracing: TracingOptions {
                column: self.text(TRACING_FIELD, "tracingspancontext"),
                operation: self.text(TRACING_OPERATION, "debezium-read"),
                // Debezium's documentation says false; inside the router it is true.
                column_only: self.boolean(TRACING_FIELD_ONLY, true),
            },
            topic_regex: regex?,
        })
    }

    fn text(&self, option: &str, default: &str) -> String {
        self.properties.get(option).cloned().unwrap_or_else(|| default.to_owned())
    }

    fn refuse(&mut self, option: &str, message: String) {
        let value = self.properties.get(option).cloned();
        self.problems.push(InvalidOption { option: option.to_owned(), value, message });
    }

    fn boolean(&mut self, option: &str, default: bool) -> bool {
        let Some(value) = self.properties.get(option) else { return default };
        match value.trim().to_ascii_lowercase().as_str() {
            "true" => true,
            "false" => false,
            _ => {
                self.refuse(option, "Expected value to be either true or false".to_owned());
                default
            }
        }
    }

    /// One of several words; the first is the default.
    fn choice<T: Copy>(&mut self, option: &str, choices: &[(&str, T)]) -> T {
        let given = self.properties.get(option).map(|value| value.trim().to_ascii_lowercase());
        let found = match &given {
            None => choices.first(),
            Some(given) => choices.iter().find(|(word, _)| word == given),
        };
        if found.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            self.refuse(
                option,
                format!(
                    "The '{option}' value is invalid: Value must be one of {}",
                    words.join(", ")
                ),
            );
        }
        // The lists above are never empty.
        found.unwrap_or(&choices[0]).1
    }

    fn regex(&mut self) -> Option<Regex> {
        match Regex::new(&self.text(ROUTE_TOPIC_REGEX, "(?<routedByValue>.*)")) {
            Ok(regex) => Some(regex),
            Err(error) => {
                self.refuse(
                    ROUTE_TOPIC_REGEX,
                    format!(
                        "The '{ROUTE_TOPIC_REGEX}' value is invalid: A valid regular expressions is expected, but \
                         {error}"
                    ),
                );
                None
            }
        }
    }

    fn additional(&mut self) -> Vec<AdditionalField> {
        let Some(list) = self.properties.get(FIELDS_ADDITIONAL_PLACEMENT).cloned() else {
            return Vec::new();
        };
        let mut fields = Vec::new();
        let mut malformed = false;
        for entry in java_split(&list, ',') {
            match java_split(entry, ':').as_slice() {
                [column, placement] => fields.push(additional_field(column, placement, column)),
                [column, placement, alias] => {
                    fields.push(additional_field(column, placement, alias))
                }
                _ => malformed = true,
            }
        }
        if malformed {
            self.refuse(
                FIELDS_ADDITIONAL_PLACEMENT,
                format!(
                    "The '{FIELDS_ADDITIONAL_PLACEMENT}' value is invalid: A comma-separated list of valid String \
                     pairs or trios is expected but got: [{}]",
                    java_split(&list, ',').join(", ")
                ),
            );
        }
        fields
    }
}

fn additional_field(column: &str, placement: &str, alias: &str) -> AdditionalField {
    let placement = match placement.trim().to_ascii_lowercase().as_str() {
        "header" => Some(Placement::Header),
        "envelope" => Some(Placement::Envelope),
        "partition" => Some(Placement::Partition),
        _ => None,
    };
    let (column, alias) = (column.trim().to_owned(), alias.trim().to_owned());
    AdditionalField { column, placement, alias }
}

/// Java's `String.split`: empty parts at the end are dropped, but a text without separator is one part.
fn java_split(text: &str, separator: char) -> Vec<&str> {
    let mut parts: Vec<_> = text.split(separator).collect();
    while parts.len() > 1 && parts.last().is_some_and(|part| part.is_empty()) {
        parts.pop();
    }
    if text.contains(separator) && parts.iter().all(|part| part.is_empty()) {
        parts.clear();
    }
    parts
}

/// Options that are not an error but do nothing.
fn warnings(properties: &BTreeMap<String, String>) -> Vec<OptionWarning> {
    /// Connect's own options of any transform.
    const CONNECT: [&str; 3] = ["type", "predicate", "negate"];
    const KNOWN: [&str; 20] = [
        OP_INVALID_BEHAVIOR,
        FIELD_EVENT_ID,
        FIELD_EVENT_KEY,
        FIELD_EVENT_TYPE,
        FIELD_EVENT_TIMESTAMP,
        FIELD_EVENT_PAYLOAD,
        FIELD_SCHEMA_VERSION,
        FIELDS_ADDITIONAL_PLACEMENT,
        FIELD_ADDITIONAL_MISSING,
        ROUTE_BY_FIELD,
        ROUTE_TOPIC_REGEX,
        ROUTE_TOPIC_REPLACEMENT,
        ROUTE_TOMBSTONE,
        EXPAND_JSON_PAYLOAD,
        JSON_NULL_BEHAVIOR,
        JSON_EMPTY_ARRAY_BEHAVIOR,
        FIELD_NAME_ADJUSTMENT,
        TRACING_FIELD,
        TRACING_OPERATION,
        TRACING_FIELD_ONLY,
    ];
    let is_known = |option: &str| CONNECT.contains(&option) || KNOWN.contains(&option);
    let unknown = properties.keys().filter(|option| !is_known(option));
    unknown
        .map(|option| {
            let message = match renamed(option) {
                Some(new) => {
                    format!("{option} has no effect; since Debezium renamed it, it is {new}")
                }
                None => format!("{option} is no option of the event router and has no effect"),
            };
            OptionWarning { option: option.clone(), message }
        })
        .collect()
}

/// The present name of an option of earlier versions.
fn renamed(option: &str) -> Option<&'static str> {
    Some(match option {
        "table.fields.additional.error.on.missing" => {
            "table.field.additional.missing (error or ignore)"
        }
        "table.field.payload" => FIELD_EVENT_PAYLOAD,
        "table.field.payload.id" => FIELD_EVENT_KEY,
        "table.field.schema.version" => FIELD_SCHEMA_VERSION,
        "debezium.op.invalid.behavior" => OP_INVALID_BEHAVIOR,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(
        pairs: &[(&str, &str)],
    ) -> Result<(RouterOptions, Vec<OptionWarning>), Vec<InvalidOption>> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        RouterOptions::parse(&pairs.collect())
    }

    #[test]
    fn defaults_are_debeziums() {
        let (options, warnings) = parse(&[("type", "…")]).expect("no option is needed");
        assert_eq!(options.id_column, "id");
        assert_eq!(options.key_column, "aggregateid");
        assert_eq!(options.topic_replacement, "outbox.event.${routedByValue}");
        assert_eq!(options.invalid_operation, InvalidOperation::Warn);
        assert!(options.expansion.is_none() && !options.ignore_missing && warnings.is_empty());
    }

    #[test]
    fn every_bad_option_is_named() {
        let problems = parse(&[
            (OP_INVALID_BEHAVIOR, "never"),
            (EXPAND_JSON_PAYLOAD, "yes"),
            (ROUTE_TOPIC_REGEX, " [[a-z]"),
            (FIELDS_ADDITIONAL_PLACEMENT, "type"),
        ])
        .expect_err("all are wrong");
        let mut names: Vec<_> = problems.iter().map(|problem| problem.option.as_str()).collect();
        names.sort_unstable();
        let expected = [
            ROUTE_TOPIC_REGEX,
            EXPAND_JSON_PAYLOAD,
            FIELDS_ADDITIONAL_PLACEMENT,
            OP_INVALID_BEHAVIOR,
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn placements_are_split_as_java_splits() {
        let placed = |list: &str| {
            parse(&[(FIELDS_ADDITIONAL_PLACEMENT, list)]).map(|(options, _)| options.additional)
        };
        let field = |column: &str, placement, alias: &str| AdditionalField {
            column: column.into(),
            placement,
            alias: alias.into(),
        };
        assert_eq!(
            placed("type:header,"),
            Ok(vec![field("type", Some(Placement::Header), "type")])
        );
        assert_eq!(
            placed(" a : ENVELOPE : x "),
            Ok(vec![field("a", Some(Placement::Envelope), "x")])
        );
        assert_eq!(placed("a:body"), Ok(vec![field("a", None, "a")]));
        assert_eq!(placed(","), Ok(Vec::new()));
        assert!(
            placed("").is_err()
                && placed("a:b:c:d").is_err()
                && placed("a:header,,b:header").is_err()
        );
    }

    #[test]
    fn options_without_effect_are_warned_of_with_their_new_name() {
        let (_, warnings) =
            parse(&[("table.fields.additional.error.on.missing", "false"), ("nope", "1")])
                .expect("unknown options are no error");
        assert_eq!(warnings.len(), 2);
        assert!(warnings[1].message.contains(FIELD_ADDITIONAL_MISSING), "{warnings:?}");
    }
}
