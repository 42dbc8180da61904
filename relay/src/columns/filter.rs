//! `column.include.list`, `column.exclude.list`, `column.mask.with.N.chars`, `column.truncate.to.N.chars`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use event_router::data::{Schema, Value};
use event_router::java_regex::Regex;

use super::kind::Kind;
use crate::connector_config::OptionError;

/// Which columns are passed on, and changed how.
#[derive(Debug, Clone, Default)]
pub(super) struct ColumnFilter {
    include: Option<Vec<Regex>>,
    exclude: Vec<Regex>,
    masks: Vec<(usize, Vec<Regex>)>,
    truncations: Vec<(usize, Vec<Regex>)>,
}

/// How the values of a column are changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ColumnChange {
    /// Stars instead of text.
    Mask(usize),
    /// The first characters only.
    Truncate(usize),
}

const INCLUDE: &str = "column.include.list";
const EXCLUDE: &str = "column.exclude.list";

impl ColumnFilter {
    /// Reads the options.
    pub(super) fn parse(properties: &BTreeMap<String, String>) -> Result<Self, Vec<OptionError>> {
        let mut filter = Self::default();
        let mut problems = Vec::new();
        for (option, value) in properties {
            let length = |prefix: &str| {
                option.strip_prefix(prefix)?.strip_suffix(".chars")?.parse::<usize>().ok()
            };
            let (mask, truncation) = (length("column.mask.with."), length("column.truncate.to."));
            if mask.is_none() && truncation.is_none() && option != INCLUDE && option != EXCLUDE {
                continue;
            }
            match expressions(value) {
                Ok(columns) => {
                    if let Some(length) = mask {
                        filter.masks.push((length, columns));
                    } else if let Some(length) = truncation {
                        filter.truncations.push((length, columns));
                    } else if option == INCLUDE {
                        filter.include = Some(columns);
                    } else {
                        filter.exclude = columns;
                    }
                }
                Err(message) => problems.push(OptionError {
                    option: option.clone(),
                    value: Some(value.clone()),
                    message,
                }),
            }
        }
        if problems.is_empty() { Ok(filter) } else { Err(problems) }
    }

    /// Whether a column (`schema.table.column`) is passed on.
    pub(super) fn includes(&self, column: &str) -> bool {
        match &self.include {
            Some(included) => matches_any(included, column),
            None => !matches_any(&self.exclude, column),
        }
    }

    /// How a column's values are changed: by the first option that names it, of truncations and then masks.
    pub(super) fn change(&self, column: &str, oid: u32, modifier: i32) -> Option<ColumnChange> {
        let find = |rules: &[(usize, Vec<Regex>)]| {
            rules
                .iter()
                .find(|(_, columns)| matches_any(columns, column))
                .map(|(length, _)| *length)
        };
        match find(&self.truncations) {
            Some(to) => can_be_longer(oid, modifier, to).then_some(ColumnChange::Truncate(to)),
            None => find(&self.masks).map(ColumnChange::Mask),
        }
    }
}

impl ColumnChange {
    /// The column's schema with a note of the change, which Debezium makes whatever the type.
    pub(super) fn marked(&self, schema: &Schema) -> Schema {
        let (name, value) = match self {
            Self::Mask(_) => ("masked", "true".to_owned()),
            Self::Truncate(length) => ("truncateLength", length.to_string()),
        };
        let mut schema = schema.clone();
        schema.parameters.push((name.to_owned(), value));
        schema
    }

    /// The value as it is passed on: masks are for the character types, truncations for all text and bytes.
    pub(super) fn apply<'r>(&self, kind: &Kind, value: Value<'r>) -> Value<'r> {
        match (self, value) {
            (Self::Mask(length), _) if kind.is_character() => {
                Value::String(Cow::Owned("*".repeat(*length)))
            }
            (Self::Truncate(length), Value::String(text)) => {
                let end = end_of(&text, *length);
                Value::String(match text {
                    Cow::Borrowed(text) => Cow::Borrowed(text.get(..end).unwrap_or(text)),
                    Cow::Owned(mut text) => {
                        text.truncate(end);
                        Cow::Owned(text)
                    }
                })
            }
            (Self::Truncate(length), Value::Bytes(bytes)) if bytes.len() > *length => {
                Value::Bytes(Cow::Owned(bytes.iter().copied().take(*length).collect()))
            }
            (_, value) => value,
        }
    }
}

/// Where the first characters end, counted in Java's units of UTF-16; a pair of them is not cut.
fn end_of(text: &str, length: usize) -> usize {
    let mut units = 0;
    for (at, character) in text.char_indices() {
        units += character.len_utf16();
        if units > length {
            return at;
        }
    }
    text.len()
}

/// Whether values of a type can be longer, by the length that the JDBC driver tells of it.
fn can_be_longer(oid: u32, modifier: i32, than: usize) -> bool {
    /// Point and digits of a time.
    const FRACTION: usize = 7;
    let declared = || usize::try_from(modifier).ok();
    let length = match oid {
        16 | 18 => Some(1),
        21 => Some(5),
        23 | 26 => Some(10),
        20 => Some(19),
        700 => Some(8),
        701 => Some(17),
        1560 | 1562 => declared(),
        1042 | 1043 => declared().map(|length| length.saturating_sub(4)),
        1700 => declared().map(|packed| packed.saturating_sub(4) >> 16 & 0xffff),
        1082 => Some(13),
        1083 => Some(8 + FRACTION),
        1266 => Some(14 + FRACTION),
        1114 => Some(22 + FRACTION),
        1184 => Some(28 + FRACTION),
        1186 => Some(49),
        _ => None,
    };
    length.is_none_or(|length| length > than)
}

fn matches_any(expressions: &[Regex], column: &str) -> bool {
    // An expression that takes too long on a name is taken as no match.
    expressions.iter().any(|expression| expression.matches(column).unwrap_or(false))
}

/// Comma-separated expressions, matched against the whole name without regard to case.
fn expressions(list: &str) -> Result<Vec<Regex>, String> {
    list.split(',')
        .map(str::trim)
        .filter(|expression| !expression.is_empty())
        .map(|expression| {
            Regex::new(&format!("(?i){expression}"))
                .map_err(|error| format!("{expression} is not a regular expression: {error}"))
        })
        .collect()
}
