//! `docs/guarantees.md` promises nothing without its limits and a test that exists.

use std::collections::BTreeMap;
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
fn a_promise_without_limits_or_with_a_test_that_does_not_run_is_found() {
    let written = "#[test]\nfn it_holds() {}\n\n#[tokio::test]\n#[ignore = \"slow\"]\nasync fn it_would() {}\n";
    let tests: Tests = tests_in(written)
        .map(|(name, is_ignored)| (format!("chaos::{name}"), is_ignored))
        .collect();
    let good =
        "It holds\n\nAlways. And ever.\n\n**Limits.** None.\n\nShown by `chaos::it_holds`.\n";
    assert_eq!(problems(good, &tests), Vec::<String>::new());
    let found = |text: String| problems(&text, &tests).len();
    assert_eq!(found(good.replace("**Limits.** None.", "")), 1);
    assert_eq!(found(good.replace("it_holds`", "it_does_not`")), 1);
    let would = good.replace("it_holds`", "it_would`");
    assert_eq!(found(would.clone()), 1, "it is ignored");
    assert_eq!(found(would + "\nThe latter is the long\nform.\n"), 0);
    assert_eq!(found(good.replace("`", "")), 1);
    assert_eq!(found(good.replace("Shown by", "See")), 1);
    assert_eq!(found(good.replace("And ever.", "And ever. And again.")), 1);
}

#[test]
fn a_test_is_ignored_whatever_stands_between_its_attributes() {
    let written = "#[ignore]\n/// Not a fn yet.\n#[allow(\n    dead_code\n)]\n#[test]\nfn a() {}\nfn b() {}\n\
                   #[test]\nfn c() {}\n";
    assert_eq!(tests_in(written).collect::<Vec<_>>(), [("a", true), ("c", false)]);
}

/// What is wrong with a promise: its title, its sentences, its limits, its tests.
fn problems(promise: &str, tests: &Tests) -> Vec<String> {
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
    let is_long_form = rest.replace('\n', " ").contains("long form");
    for name in named {
        match tests.get(name) {
            None => problem(format!("there is no test {name}")),
            Some(true) if !is_long_form => {
                problem(format!("{name} is ignored, and the text does not call it the long form"));
            }
            Some(_) => {}
        }
    }
    found
}

/// `file::function` of tests, and whether `cargo test` leaves it out.
type Tests = BTreeMap<String, bool>;

/// Every test of the workspace.
fn tests() -> Tests {
    let mut found = Tests::new();
    for folder in ["order-service", "relay", "shipment-service", "testbed"] {
        collect(&root().join(folder), &mut found);
    }
    found
}

fn collect(folder: &Path, found: &mut Tests) {
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
            for (name, is_ignored) in tests_in(&text) {
                // Of two with one name, the one that runs shows it.
                let known = found.entry(format!("{file}::{name}")).or_insert(is_ignored);
                *known &= is_ignored;
            }
        }
    }
}

/// The function behind each attribute that makes a test, and whether another one has it ignored.
fn tests_in(text: &str) -> impl Iterator<Item = (&str, bool)> {
    let (mut is_test, mut is_ignored) = (false, false);
    text.lines().map(str::trim_start).filter_map(move |line| {
        if line.starts_with("//") {
            return None;
        }
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        is_ignored |= line.starts_with("#[ignore");
        let (_, name) = line.split_once("fn ").filter(|_| !line.starts_with("#["))?;
        let attributed = (std::mem::take(&mut is_test), std::mem::take(&mut is_ignored));
        attributed.0.then(|| (name.split(['(', '<']).next().unwrap_or(name), attributed.1))
    })
}
