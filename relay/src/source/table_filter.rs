//! Which tables are captured: Debezium's include and exclude lists.

use regex::{Regex, RegexBuilder};

use crate::connector_config::Options;

/// Schemas of PostgreSQL itself, which are never captured.
const SYSTEM_SCHEMAS: [&str; 2] = ["pg_catalog", "information_schema"];

/// The include and exclude lists of a connector.
#[derive(Debug, Clone, Default)]
pub struct TableFilter {
    schemas: Lists,
    tables: Lists,
}

/// An include list, an exclude list; Debezium allows one of the two.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lists {
    include: Option<Patterns>,
    exclude: Option<Patterns>,
}

/// A comma-separated list of regular expressions, each of which must match the whole name, whatever its case.
#[derive(Debug, Clone)]
struct Patterns {
    text: String,
    expressions: Vec<Regex>,
}

impl TableFilter {
    pub(crate) fn parse(options: &mut Options<'_>) -> Self {
        let schemas = Lists::parse(
            options,
            &["schema.include.list", "schema.whitelist"],
            &["schema.exclude.list", "schema.blacklist"],
        );
        let tables = Lists::parse(
            options,
            &["table.include.list", "table.whitelist"],
            &["table.exclude.list", "table.blacklist"],
        );
        Self { schemas, tables }
    }

    /// Whether a table is captured.
    #[must_use]
    pub fn captures(&self, schema: &str, table: &str) -> bool {
        !SYSTEM_SCHEMAS.contains(&schema)
            && self.schemas.pass(schema)
            && self.tables.pass(&format!("{schema}.{table}"))
    }

    /// The lists in words, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        let list = |name: &str, patterns: &Option<Patterns>| {
            patterns.as_ref().map(|patterns| format!("{name}={}", patterns.text))
        };
        let lists = [
            list("schema.include.list", &self.schemas.include),
            list("schema.exclude.list", &self.schemas.exclude),
            list("table.include.list", &self.tables.include),
            list("table.exclude.list", &self.tables.exclude),
        ];
        let lists: Vec<String> = lists.into_iter().flatten().collect();
        if lists.is_empty() { "any name".to_owned() } else { lists.join(", ") }
    }
}

impl Lists {
    pub(crate) fn parse(
        options: &mut Options<'_>,
        include: &[&'static str],
        exclude: &[&'static str],
    ) -> Self {
        let lists = Self {
            include: Patterns::parse(options, include),
            exclude: Patterns::parse(options, exclude),
        };
        if let (Some(_), Some(exclude_list)) = (&lists.include, &lists.exclude) {
            let message = format!("give it or {}, not both", include[0]);
            options.refuse(exclude[0], Some(exclude_list.text.clone()), message);
        }
        lists
    }

    pub(crate) fn pass(&self, name: &str) -> bool {
        self.include.as_ref().is_none_or(|patterns| patterns.match_whole(name))
            && !self.exclude.as_ref().is_some_and(|patterns| patterns.match_whole(name))
    }
}

impl Patterns {
    fn parse(options: &mut Options<'_>, names: &[&'static str]) -> Option<Self> {
        let text = options.text_of(names).filter(|text| !text.is_empty())?;
        let mut expressions = Vec::new();
        for pattern in split(&text) {
            let anchored = format!("^(?:{pattern})$");
            match RegexBuilder::new(&anchored).case_insensitive(true).build() {
                Ok(expression) => expressions.push(expression),
                Err(error) => {
                    let message = format!("`{pattern}` is not a regular expression: {error}");
                    options.refuse(names[0], Some(text.clone()), message);
                }
            }
        }
        Some(Self { text, expressions })
    }

    fn match_whole(&self, name: &str) -> bool {
        self.expressions.iter().any(|expression| expression.is_match(name))
    }
}

/// Splits at commas; `\,` stands for a comma in a pattern, as in Debezium.
fn split(list: &str) -> Vec<String> {
    let (mut patterns, mut pattern) = (Vec::new(), String::new());
    let mut chars = list.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\\' if chars.peek() == Some(&',') => pattern.extend(chars.next()),
            ',' => patterns.push(std::mem::take(&mut pattern)),
            char => pattern.push(char),
        }
    }
    patterns.push(pattern);
    patterns.iter().map(|pattern| pattern.trim().to_owned()).filter(|one| !one.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn filter(options: &[(&str, &str)]) -> Result<TableFilter, Vec<String>> {
        let properties: BTreeMap<String, String> =
            options.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let mut options = Options::new(&properties);
        let filter = TableFilter::parse(&mut options);
        match options.finish() {
            Ok(_) => Ok(filter),
            Err(errors) => Err(errors.into_iter().map(|error| error.option).collect()),
        }
    }

    #[test]
    fn names_match_whole_and_whatever_their_case() {
        let filter = filter(&[("table.include.list", "inventory.outbox.*, other\\.t")]).unwrap();
        assert!(filter.captures("inventory", "outboxevent"));
        assert!(filter.captures("Inventory", "OutboxEvent"));
        assert!(filter.captures("other", "t"));
        assert!(!filter.captures("inventory", "orders"));
        assert!(!filter.captures("my_inventory", "outboxevent"));
    }

    #[test]
    fn a_table_must_pass_both_kinds_of_lists() {
        let filter = filter(&[
            ("schema.whitelist", "inventory"),
            ("table.exclude.list", "inventory.orderline"),
        ])
        .unwrap();
        assert!(filter.captures("inventory", "outboxevent"));
        assert!(!filter.captures("inventory", "orderline"));
        assert!(!filter.captures("public", "outboxevent"));
    }

    #[test]
    fn without_lists_everything_but_the_system_is_captured() {
        let filter = TableFilter::default();
        assert!(filter.captures("public", "t"));
        assert!(!filter.captures("pg_catalog", "pg_class"));
    }

    #[test]
    fn a_pattern_that_is_no_expression_and_two_opposite_lists_are_refused() {
        assert_eq!(filter(&[("table.include.list", "a(")]).unwrap_err(), ["table.include.list"]);
        let both = filter(&[("table.include.list", "a.b"), ("table.exclude.list", "a.c")]);
        assert_eq!(both.unwrap_err(), ["table.exclude.list"]);
    }

    #[test]
    fn an_escaped_comma_belongs_to_the_pattern() {
        assert_eq!(split(r"a\.b{1\,2}, c"), [r"a\.b{1,2}", "c"]);
    }
}
