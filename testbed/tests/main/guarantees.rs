//! `docs/guarantees.md` promises nothing without its limits and a test that exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/guarantees.md";

/// A promise is short, or it is not one.
const SENTENCES_MAX: usize = 2;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn every_promise_has_its_limits_and_names_tests_that_exist() {
    let page = fs::read_to_string(root().join(PAGE)).unwrap();
    let tests = tests();
    let promises: Vec<&str> = page.split("\n## ").skip(1).collect();
    assert!(promises.len() > 5, "the page is read whole");
    let problems: Vec<String> = promises.iter().flat_map(|text| problems(text, &tests)).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn a_promise_without_limits_or_with_a_test_that_is_not_there_is_found() {
    let tests = BTreeSet::from(["chaos::it_holds".to_owned()]);
    let good =
        "It holds\n\nAlways. And ever.\n\n**Limits.** None.\n\nShown by `chaos::it_holds`.\n";
    assert_eq!(problems(good, &tests), Vec::<String>::new());
    let found = |text: String| problems(&text, &tests).len();
    assert_eq!(found(good.replace("**Limits.** None.", "")), 1);
    assert_eq!(found(good.replace("it_holds`", "it_does_not`")), 1);
    assert_eq!(found(good.replace("`", "")), 1);
    assert_eq!(found(good.replace("Shown by", "See")), 1);
    assert_eq!(found(good.replace("And ever.", "And ever. And again.")), 1);
}

/// What is wrong with a promise: its title, its sentences, its limits, its tests.
fn problems(promise: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let (title, rest) = promise.split_once('\n').unwrap_or((promise, ""));
    let mut found = Vec::new();
    let mut problem = |what: String| found.push(format!("{PAGE}, \"{title}\": {what}"));
    let paragraphs: Vec<&str> = rest.split("\n\n").map(str::trim).collect();
    let sentences = paragraphs
        .iter()
        .find(|text| !text.is_empty())
        .map_or(0, |text| format!("{} ", text.replace('\n', " ")).matches(". ").count());
    if sentences > SENTENCES_MAX {
        problem(format!("{sentences} sentences"));
    }
    if !paragraphs.iter().any(|text| text.starts_with("**Limits.**")) {
        problem("no limits".to_owned());
    }
    let Some(shown) = paragraphs.iter().find(|text| text.starts_with("Shown by")) else {
        problem("nothing shows it".to_owned());
        return found;
    };
    let named: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
    if named.is_empty() {
        problem("no test shows it".to_owned());
    }
    for name in named.into_iter().filter(|name| !tests.contains(*name)) {
        problem(format!("there is no test {name}"));
    }
    found
}

/// `file::function` of every test of the workspace.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in ["order-service", "relay", "shipment-service", "testbed"] {
        collect(&root().join(folder), &mut found);
    }
    found
}

fn collect(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            // Tests in a file of their own go by the module that they are of.
            let of_module = path.file_name().is_some_and(|name| name == "tests.rs");
            let named = if of_module { path.parent().unwrap() } else { &path };
            let file = named.file_stem().unwrap().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).unwrap();
            found.extend(names_of_tests(&text).map(|name| format!("{file}::{name}")));
        }
    }
}

/// The function behind each attribute that makes a test.
fn names_of_tests(text: &str) -> impl Iterator<Item = &str> {
    let attributed = text.split("#[test]").flat_map(|part| part.split("#[tokio::test")).skip(1);
    attributed.filter_map(|part| {
        let (_, name) = part.split_once("fn ")?;
        name.split(['(', '<']).next()
    })
}
