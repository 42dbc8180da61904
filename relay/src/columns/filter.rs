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

    /// How a column's values are changed; only text is.
    pub(super) fn change(&self, column: &str, kind: &Kind) -> Option<ColumnChange> {
        if !kind.is_character() {
            return None;
        }
        let find = |rules: &[(usize, Vec<Regex>)]| {
            rules
                .iter()
                .find(|(_, columns)| matches_any(columns, column))
                .map(|(length, _)| *length)
        };
        find(&self.masks)
            .map(ColumnChange::Mask)
            .or_else(|| find(&self.truncations).map(ColumnChange::Truncate))
    }
}

impl ColumnChange {
    /// Notes the change in the column's schema, as Debezium does.
    pub(super) fn mark(&self, schema: &mut Schema) {
        let (name, value) = match self {
            Self::Mask(_) => ("masked", "true".to_owned()),
            Self::Truncate(length) => ("truncateLength", length.to_string()),
        };
        schema.parameters.push((name.to_owned(), value));
    }

    /// The value as it is passed on.
    pub(super) fn apply<'r>(&self, value: Value<'r>) -> Value<'r> {
        match (self, value) {
            (Self::Mask(length), _) => Value::String(Cow::Owned("*".repeat(*length))),
            (Self::Truncate(length), Value::String(text)) => {
                let end = text.char_indices().nth(*length).map_or(text.len(), |(at, _)| at);
                Value::String(match text {
                    Cow::Borrowed(text) => Cow::Borrowed(text.get(..end).unwrap_or(text)),
                    Cow::Owned(mut text) => {
                        text.truncate(end);
                        Cow::Owned(text)
                    }
                })
            }
            (Self::Truncate(_), value) => value,
        }
    }
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
