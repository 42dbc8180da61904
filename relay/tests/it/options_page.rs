//! `docs/options.md` says what the code's option tables say: it is made of them, and each test that it names exists.
//!
//! `cargo options` writes the page anew. A row that names a recorded case is checked against the case: it must set the
//! option.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// What Kafka Connect and Debezium tell about their options.
const DEFINITIONS: &str = "relay/src/connect/option_definitions.tsv";
/// What the relay does with them.
const TABLE: &str = "relay/src/connector_config/option_table.tsv";
/// The same for what that table does not hold.
const MORE_TABLES: [&str; 4] = [
    "relay/tests/it/options_page/router.tsv",
    "relay/tests/it/options_page/chain.tsv",
    "relay/tests/it/options_page/converters.tsv",
    "relay/tests/it/options_page/worker.tsv",
];
const CASES: &str = "relay/tests/conformance/vectors";
const PAGE: &str = "docs/options.md";

/// Parts of the page: their key in the tables, title and first sentence.
const SECTIONS: [(&str, &str, &str); 8] = [
    ("router", "The Event Router", "Behind `transforms.<alias>.`, whatever the alias."),
    ("chain", "Transforms and predicates", "What may stand around the Event Router."),
    ("converter", "Converters", "For a connector, or for the worker; `*` is key, value or header."),
    ("connector", "The PostgreSQL connector", "In the order of Debezium's own list."),
    ("common", "Every connector", "What Kafka Connect has for all source connectors."),
    (
        "more",
        "Options that Kafka Connect does not list",
        "Taken all the same, by Debezium and here.",
    ),
    ("old", "Former names", "Each counts where the present name is not given."),
    (
        "worker",
        "The worker's environment",
        "`CONNECT_A_B` is the worker setting `a.b`, as in Debezium's image.",
    ),
];

/// Recorded cases in which the relay differs, and why; the conformance suite fails when another one does.
const DEVIATIONS: &str = "relay/tests/conformance/deviations.rs";

struct Row {
    part: String,
    name: String,
    default: Option<String>,
    treatment: String,
    words: String,
    /// `-` where there is none.
    test: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn lines(path: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join(path)).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

fn default(column: &str) -> Option<String> {
    column.strip_prefix('=').map(str::to_owned)
}

fn rows() -> Vec<Row> {
    let all = [TABLE].into_iter().chain(MORE_TABLES).flat_map(lines);
    let row = |columns: Vec<String>| {
        let [part, name, given, treatment, words, test] = columns.try_into().unwrap();
        Row { part, name, default: default(&given), treatment, words, test }
    };
    all.map(row).collect()
}

#[test]
fn the_page_is_what_the_tables_say() {
    let expected = page(&rows());
    let path = root().join(PAGE);
    if fs::read_to_string(&path).unwrap_or_default() != expected {
        fs::write(&path, &expected).unwrap();
        panic!("{PAGE} was stale; it has been written anew: look at it and commit it");
    }
}

fn page(rows: &[Row]) -> String {
    let mut page = String::from(
        "# Options\n\n\
         <!-- Written by `cargo options` from the tables in the code: change those, not this page. -->\n\n\
         What the relay does with each option of Debezium's PostgreSQL connector, its Outbox Event Router, the converters\n\
         and the worker. Names and defaults are those of Debezium 3.7.0.Final and Kafka Connect 4.3.1. Registering a\n\
         connector checks every option; what is refused is refused there, with the option's name.\n\n\
         The last column names the test that shows it: `vector: x` is case x of the recorded conformance suite\n\
         (`cargo conformance`), the others are tests of this repository by module and name.\n",
    );
    for (part, title, sentence) in SECTIONS {
        let _ = writeln!(
            page,
            "\n## {title}\n\n{sentence}\n\n| Option | Default | Here | Shown by |\n|---|---|---|---|"
        );
        for row in rows.iter().filter(|row| row.part == part) {
            let shown = row.test.replace("vector:", "vector: ");
            let shown = if shown == "-" { String::new() } else { code(&shown) };
            let default = row.default.as_deref().map(default_text).unwrap_or_default();
            let _ = writeln!(page, "| {} | {default} | {} | {shown} |", code(&row.name), here(row));
        }
    }
    page.push_str(&quirks());
    page
}

fn default_text(default: &str) -> String {
    if default.is_empty() { "empty".to_owned() } else { code(default) }
}

fn here(row: &Row) -> String {
    let words = row.words.replace('|', "\\|");
    match row.treatment.as_str() {
        "honoured" if row.part == "old" => format!("of {}", code(&row.words)),
        "honoured" => words,
        "no effect" => format!("*accepted, no effect:* {words}"),
        "refused" => format!("*refused:* {words}"),
        other => {
            let values = other.strip_prefix("only=").unwrap_or_else(|| panic!("treatment {other}"));
            let values: Vec<String> = values.split(',').map(code).collect();
            format!("*only {}:* {words}", values.join(", "))
        }
    }
}

/// Text as code in a cell of a table.
fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|"))
}

fn quirks() -> String {
    let cases = cases();
    let is_quirk = |case: &Value| case["quirk"] == true;
    let quirks = cases.values().filter(|case| is_quirk(case)).count();
    let deviations = deviations();
    let mut text = format!(
        "\n## Recorded cases in which the relay differs\n\nOf {} cases recorded from Debezium, {quirks} are marked as \
         quirks: the result looks like a defect of Debezium. They\nare reproduced, so that nobody's records change, \
         unless they are listed here. `cargo conformance` runs all cases and\nfails when another one differs.\n",
        cases.len()
    );
    if !deviations.is_empty() {
        text.push_str("\n| Case | Quirk | Why |\n|---|---|---|\n");
    }
    for (case, reason) in deviations {
        let quirk = if is_quirk(&cases[&case]) { "yes" } else { "no" };
        let _ = writeln!(text, "| {} | {quirk} | {reason} |", code(&case));
    }
    text
}

/// The list in the source of the conformance suite: pairs of a case and the constant that holds the reason.
fn deviations() -> Vec<(String, String)> {
    let source = fs::read_to_string(root().join(DEVIATIONS)).unwrap();
    let (list, constants) = source.split_once("];").unwrap();
    let reason = |constant: &str| {
        let after = constants.split(&format!("const {constant}: &str =")).nth(1).unwrap();
        after.split('"').nth(1).unwrap().to_owned()
    };
    let pairs = list.lines().filter_map(|line| line.trim().strip_prefix("(\""));
    let pair = |line: &str| {
        let (case, constant) = line.split_once("\", ").unwrap();
        (case.to_owned(), reason(constant.trim_end_matches("),")))
    };
    pairs.map(pair).collect()
}

/// The recorded cases by name.
fn cases() -> BTreeMap<String, Value> {
    let files = fs::read_dir(root().join(CASES)).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|e| e == "json"));
    let read = |path: PathBuf| -> Vec<Value> {
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    };
    let cases = files.flat_map(read);
    cases.map(|case| (case["name"].as_str().unwrap().to_owned(), case)).collect()
}

#[test]
fn every_test_that_the_page_names_exists() {
    let cases = cases();
    let tests = tests();
    let deviations: BTreeMap<String, String> = deviations().into_iter().collect();
    let mut problems = Vec::new();
    for row in rows() {
        if let Some(case) = row.test.strip_prefix("vector:") {
            match cases.get(case) {
                None => problems.push(format!("{}: there is no case {case}", row.name)),
                // A default is shown by a case that does not set the option; a case has no worker's environment.
                Some(found)
                    if row.part != "worker"
                        && !sets(found, &row.name)
                        && !case.contains("default") =>
                {
                    problems.push(format!("{}: the case {case} does not set it", row.name));
                }
                Some(_) if deviations.contains_key(case) => {
                    problems.push(format!("{}: the case {case} does not pass", row.name));
                }
                Some(_) => {}
            }
        } else if row.test != "-" && !tests.contains(&row.test) {
            problems.push(format!("{}: there is no test {}", row.name, row.test));
        }
    }
    let announced = fs::read_to_string(root().join(DEVIATIONS)).unwrap();
    let announced = announced.split("DEVIATIONS: [(&str, &str); ").nth(1).unwrap();
    let announced = announced.split(']').next().unwrap().parse();
    assert_eq!(Ok(deviations.len()), announced, "the list of deviations is read whole");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Whether a case sets an option; of a name with placeholders, what stands around them counts.
fn sets(case: &Value, option: &str) -> bool {
    let config = case["connector_config"].as_object().unwrap();
    let (start, end) = match option.split_once(['<', '(', '*']) {
        Some((start, rest)) => (start, rest.rsplit(['>', ')', '*']).next().unwrap_or_default()),
        None => ("", option),
    };
    config.keys().any(|key| key.starts_with(start) && key.ends_with(end))
}

/// `module::name` of every test, by the name of the file without its end, and of each folder above it.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in ["relay", "testbed"] {
        collect_tests(&root().join(folder), &mut Vec::new(), &mut found);
    }
    found
}

fn collect_tests(folder: &Path, above: &mut Vec<String>, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        above.push(path.file_stem().unwrap().to_string_lossy().into_owned());
        if path.is_dir() {
            collect_tests(&path, above, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for name in names_of_tests(&text) {
                found.extend(above.iter().map(|module| format!("{module}::{name}")));
            }
        }
        above.pop();
    }
}

/// The function behind each `#[test]` or `#[tokio::test]`.
fn names_of_tests(text: &str) -> Vec<&str> {
    let attributed = text.split("#[test]").flat_map(|part| part.split("#[tokio::test")).skip(1);
    let name = |rest: &'_ str| -> Option<usize> { rest.find("fn ").map(|at| at + "fn ".len()) };
    attributed
        .filter_map(|rest| {
            let rest = &rest[name(rest)?..];
            rest.split(|char: char| !char.is_alphanumeric() && char != '_').next()
        })
        .collect()
}

#[test]
fn no_option_is_left_out_and_defaults_are_debezium_s() {
    let rows = rows();
    let mut by_name: BTreeMap<(&str, &str), &Row> = BTreeMap::new();
    for row in &rows {
        assert!(SECTIONS.iter().any(|(part, ..)| *part == row.part), "part {}", row.part);
        let twice = by_name.insert((&row.part, &row.name), row);
        assert!(twice.is_none(), "{} is there twice", row.name);
    }
    for definition in lines(DEFINITIONS) {
        let [part, name, _, _, _, given] = definition.try_into().unwrap();
        let row = by_name.get(&(part.as_str(), name.as_str()));
        let row = row.unwrap_or_else(|| panic!("{name} of {part} has no row"));
        assert_eq!(row.default, default(&given), "{name}");
    }
}

#[test]
fn what_is_honoured_has_a_test() {
    let without: Vec<String> = rows()
        .into_iter()
        .filter(|row| row.test == "-")
        .map(|row| format!("{} {}", row.part, row.name))
        .collect();
    assert!(without.is_empty(), "no test is named for:\n{}", without.join("\n"));
}

#[test]
fn every_setting_of_the_worker_is_there() {
    let files = ["config.rs", "config/kafka.rs", "config/rest.rs"];
    let read = |file: &str| fs::read_to_string(root().join("relay/src").join(file)).unwrap();
    let source = files.map(read).join("");
    let source = source.as_str();
    let rows = rows();
    let known: BTreeSet<&str> =
        rows.iter().filter(|row| row.part == "worker").map(|row| row.name.as_str()).collect();
    let is_variable = |text: &&str| {
        text.len() > 4
            && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
            && !text.ends_with('_')
    };
    let variables: Vec<&str> = source.split('"').skip(1).step_by(2).filter(is_variable).collect();
    assert!(variables.contains(&"CONNECTORS"), "{variables:?}");
    for variable in variables {
        assert!(known.contains(variable), "{variable} is read by config.rs and has no row");
    }
    // Properties of the worker, except those that a short variable (listed before it in the source) stands for.
    let is_property = |text: &str| {
        text.contains('.')
            && !text.ends_with('.')
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'.')
    };
    for property in source.split('"').skip(1).step_by(2).filter(|text| is_property(text)) {
        let variable = format!("CONNECT_{}", property.to_uppercase().replace('.', "_"));
        let is_short = source.contains(&format!("\", \"{property}\"),"));
        assert!(is_short || known.contains(variable.as_str()), "{variable} has no row");
    }
}
