//! What the relay does with each option that Debezium's PostgreSQL connector and Kafka Connect have: one table, which
//! decides here and from which the documentation is made.

use std::sync::LazyLock;

use regex::Regex;

use super::options::Options;
use crate::secret::is_secret;

/// The table; its head says how it is read.
const TABLE: &str = include_str!("option_table.tsv");

/// What the relay does with an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Treatment {
    /// As Debezium does.
    Honoured,
    /// Accepted; the log says that it changes nothing, and why.
    NoEffect,
    /// Some values mean what the relay does; others are refused.
    Only(Vec<&'static str>),
    /// Refused, because accepting it would promise something that does not happen.
    Refused,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionRow {
    /// `common`, `connector`, `more` or `old`.
    pub part: &'static str,
    /// The name, or the form of the names: with groups as Debezium writes them, or `*` for any ending.
    pub name: &'static str,
    /// Debezium's default.
    pub default: Option<&'static str>,
    /// What happens with it.
    pub treatment: Treatment,
    /// What it does, why it does nothing, or what to do instead; for an old name the current one.
    pub text: &'static str,
    /// The test that shows it: `module::name`, or `vector:name` of a case of the conformance suite.
    pub test: Option<&'static str>,
}

static ROWS: LazyLock<Vec<(OptionRow, Form)>> = LazyLock::new(|| {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    let row = |row: OptionRow| {
        let form = Form::of(row.name);
        (row, form)
    };
    lines.filter_map(|line| read(line).map(row)).collect()
});

/// The whole table, in its order.
pub fn rows() -> impl Iterator<Item = &'static OptionRow> {
    ROWS.iter().map(|(row, _)| row)
}

/// The row of an option that is given.
#[must_use]
pub fn find(option: &str) -> Option<&'static OptionRow> {
    ROWS.iter().find(|(_, form)| form.matches(option)).map(|(row, _)| row)
}

/// Accepts or refuses what nobody has read: the harmless with a remark.
pub(super) fn check_the_rest(options: &mut Options<'_>) {
    for option in options.names() {
        let Some(row) = find(&option) else {
            // A mask that is not applied would publish what somebody wanted hidden.
            if option.starts_with("column.") {
                let message =
                    "the relay does not know it, and a column would be published as it is";
                options.refuse(&option, None, message.to_owned());
            }
            continue;
        };
        if options.is_taken(&option) {
            continue;
        }
        let value = options.text(&option).unwrap_or_default();
        // Who gives the default asks for nothing.
        let is_default = row.default.is_some_and(|default| default.eq_ignore_ascii_case(&value));
        if value.is_empty() || is_default {
            continue;
        }
        match &row.treatment {
            Treatment::Honoured => {}
            Treatment::NoEffect => {
                options.remark(format!("option `{option}` has no effect here: {}", row.text));
            }
            Treatment::Only(values) => check_values(options, &option, value, values, row.text),
            Treatment::Refused => {
                let value = (!is_secret(&option)).then_some(value);
                let message = format!("the relay does not support it: {}", row.text);
                options.refuse(&option, value, message);
            }
        }
    }
}

fn check_values(
    options: &mut Options<'_>,
    option: &str,
    value: String,
    accepted: &[&str],
    text: &str,
) {
    let is_accepted =
        |word: &str| accepted.iter().any(|accepted| accepted.eq_ignore_ascii_case(word.trim()));
    if !value.split(',').all(is_accepted) {
        let message = format!("the relay supports {}: {text}", accepted.join(", "));
        options.refuse(option, Some(value), message);
    }
}

fn read(line: &'static str) -> Option<OptionRow> {
    let mut columns = line.split('\t');
    let mut column = || columns.next();
    let (part, name, default) = (column()?, column()?, column()?);
    let treatment = match column()? {
        "honoured" => Treatment::Honoured,
        "no effect" => Treatment::NoEffect,
        "refused" => Treatment::Refused,
        only => Treatment::Only(only.strip_prefix("only=")?.split(',').collect()),
    };
    let (text, test) = (column()?, column()?);
    Some(OptionRow {
        part,
        name,
        default: default.strip_prefix('='),
        treatment,
        text,
        test: (test != "-").then_some(test),
    })
}

/// How the names of a row are told.
#[derive(Debug)]
enum Form {
    Name(&'static str),
    Prefix(&'static str),
    Pattern(Regex),
    /// A pattern that cannot be read; a test shows that there is none.
    Nothing,
}

impl Form {
    /// Debezium's help writes `(d+)` for a number and other groups as expressions.
    fn of(name: &'static str) -> Self {
        if let Some(prefix) = name.strip_suffix('*') {
            return Self::Prefix(prefix);
        }
        if !name.contains('(') {
            return Self::Name(name);
        }
        let mut pattern = String::from("^");
        for piece in name.split_inclusive(['(', ')']) {
            match piece.strip_suffix(')') {
                Some("d+") => pattern.push_str("\\d+)"),
                Some(_) => pattern.push_str(piece),
                None => {
                    let literal = piece.strip_suffix('(').unwrap_or(piece);
                    pattern.push_str(&regex::escape(literal));
                    pattern.push_str(if piece.len() > literal.len() { "(" } else { "" });
                }
            }
        }
        pattern.push('$');
        Regex::new(&pattern).map_or(Self::Nothing, Self::Pattern)
    }

    fn matches(&self, option: &str) -> bool {
        match self {
            Self::Name(name) => *name == option,
            Self::Prefix(prefix) => option.starts_with(prefix),
            Self::Pattern(pattern) => pattern.is_match(option),
            Self::Nothing => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::config::WorkerConfig;
    use crate::connector_config::ConnectorConfig;

    /// A name of the row's form.
    fn example(row: &OptionRow) -> String {
        row.name
            .replace("(d+)", "5")
            .replace("([^.]+)", "SHA-256")
            .replace("(.+)", "salt")
            .replace('*', "x")
    }

    /// What becomes of the example's configuration with one option more.
    fn with(option: &str, value: &str) -> Result<Vec<String>, Vec<String>> {
        let text = include_str!("../../../register-postgres.json");
        let file: serde_json::Value = serde_json::from_str(text).unwrap();
        let mut properties: BTreeMap<String, String> =
            serde_json::from_value(file["config"].clone()).unwrap();
        properties.insert("name".to_owned(), "c".to_owned());
        properties.insert(option.to_owned(), value.to_owned());
        match ConnectorConfig::parse(&properties, &WorkerConfig::default()) {
            Ok(connector) => Ok(connector.remarks),
            Err(errors) => Err(errors.into_iter().map(|error| error.option).collect()),
        }
    }

    #[test]
    fn every_option_does_what_its_row_says() {
        for row in rows() {
            let option = example(row);
            let remarked = |remarks: &[String]| {
                remarks.iter().any(|remark| remark.contains(&format!("`{option}`")))
            };
            match &row.treatment {
                Treatment::Refused => assert_eq!(with(&option, "x"), Err(vec![option.clone()])),
                Treatment::NoEffect => {
                    assert!(remarked(&with(&option, "77").unwrap()), "{option}");
                }
                Treatment::Only(values) => {
                    for value in values {
                        assert!(!remarked(&with(&option, value).unwrap()), "{option}={value}");
                    }
                    assert_eq!(with(&option, "else"), Err(vec![option.clone()]));
                }
                // Known, whether its value is right or not.
                Treatment::Honoured => match with(&option, row.default.unwrap_or("1")) {
                    Ok(remarks) => {
                        let unknown = format!("`{option}` is not known");
                        let is_unknown = remarks.iter().any(|remark| remark.contains(&unknown));
                        assert!(!is_unknown, "{option}: {remarks:?}");
                    }
                    Err(refused) => assert!(!refused.is_empty()),
                },
            }
        }
    }

    #[test]
    fn a_default_is_accepted_without_a_word() {
        for row in rows() {
            let (Some(default), option) = (row.default, example(row)) else { continue };
            // pgoutput is in every server, decoderbufs is not.
            let differs = row.name == "plugin.name";
            if let Ok(remarks) = with(&option, default) {
                let told = remarks.iter().any(|remark| remark.contains(&format!("`{option}`")));
                assert!(!told, "{option}: {remarks:?}");
            } else {
                assert!(differs, "{option}={default} is refused");
            }
        }
    }

    #[test]
    fn options_with_numbers_and_endings_are_found() {
        let name = |option: &str| find(option).map(|row| row.name);
        assert_eq!(name("column.mask.with.12.chars"), Some("column.mask.with.(d+).chars"));
        assert_eq!(name("column.mask.with.x.chars"), None);
        assert_eq!(
            name("column.mask.hash.SHA-256.with.salt.s"),
            Some("column.mask.hash.([^.]+).with.salt.(.+)")
        );
        assert_eq!(name("topic.creation.default.partitions"), Some("topic.creation.*"));
        assert_eq!(name("topic.creation.groups"), Some("topic.creation.groups"));
        assert!(ROWS.iter().all(|(_, form)| !matches!(form, Form::Nothing)));
    }

    #[test]
    fn the_table_is_whole_and_its_tests_exist() {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(rows().count(), lines);
        let definitions = include_str!("../connect/option_definitions.tsv");
        for line in definitions.lines().filter(|line| !line.starts_with(['#', 'r'])) {
            let columns: Vec<&str> = line.split('\t').collect();
            let row = rows().find(|row| row.name == columns[1]).ok_or(columns[1]).unwrap();
            assert_eq!((row.part, row.default), (columns[0], columns[5].strip_prefix('=')));
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut sources = String::new();
        for part in ["src", "tests"] {
            gather(&folder.join(part), &mut sources);
        }
        for row in rows() {
            let Some(test) = row.test else { continue };
            let sought = match test.split_once("::") {
                Some((_, function)) => format!("fn {function}("),
                None => format!("\"name\": \"{}\"", test.trim_start_matches("vector:")),
            };
            assert!(sources.contains(&sought), "{} of {} is not there", test, row.name);
        }
    }

    fn gather(folder: &Path, sources: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                gather(&path, sources);
            } else if path.extension().is_some_and(|end| end == "rs")
                || path.parent().is_some_and(|parent| parent.ends_with("vectors"))
            {
                sources.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
}
