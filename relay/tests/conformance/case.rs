//! A recorded case, as the vector files have it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

/// A case.
#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) connector_config: BTreeMap<String, String>,
    pub(crate) setup: Vec<String>,
    pub(crate) sql: Vec<String>,
    #[serde(default)]
    pub(crate) live_sql: Vec<String>,
    pub(crate) expected: Expected,
    #[serde(default)]
    pub(crate) compare: Option<String>,
    /// What was on Debezium's class path.
    #[serde(default)]
    pub(crate) requires: Option<String>,
    #[serde(default)]
    pub(crate) alternatives: Vec<Vec<ExpectedRecord>>,
}

/// What Debezium made of it.
#[derive(Debug, Deserialize)]
pub(crate) struct Expected {
    pub(crate) records: Vec<ExpectedRecord>,
    pub(crate) error: Option<ExpectedError>,
    pub(crate) logs: Vec<ExpectedLog>,
}

/// A record; byte strings in one of the forms that the README of the vectors describes.
#[derive(Debug, Deserialize)]
pub(crate) struct ExpectedRecord {
    pub(crate) topic: String,
    pub(crate) partition: Option<i32>,
    pub(crate) key: Value,
    pub(crate) value: Value,
    pub(crate) headers: Vec<(String, Value)>,
    pub(crate) timestamp: Value,
    /// One or more such records, at any time.
    #[serde(default)]
    pub(crate) repeats: bool,
}

/// Where the task failed.
#[derive(Debug, Deserialize)]
pub(crate) struct ExpectedError {
    pub(crate) stage: String,
}

/// A line of the log.
#[derive(Debug, Deserialize)]
pub(crate) struct ExpectedLog {
    pub(crate) level: String,
}

impl Case {
    /// All cases of the files in a folder and those below it, and how many the files hold. Other JSON files, such as
    /// transcripts of the REST API, are told and passed over: a file of cases is an array.
    pub(crate) fn read_all(folder: &Path) -> Result<(Vec<Self>, usize)> {
        let (mut cases, mut total) = (Vec::new(), 0);
        for file in files(folder)? {
            let shown = file.display();
            let text =
                std::fs::read_to_string(&file).with_context(|| format!("cannot read {shown}"))?;
            let json: Value =
                serde_json::from_str(&text).with_context(|| format!("{shown} is no JSON"))?;
            let Value::Array(array) = json else {
                println!("{shown} holds no cases");
                continue;
            };
            total += array.len();
            for case in array {
                let name = case["name"].to_string();
                let case = serde_json::from_value(case);
                cases.push(case.with_context(|| format!("{shown}: {name} is no case"))?);
            }
        }
        Ok((cases, total))
    }
}

/// The JSON files of a folder and those below it, in the order of their names.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    let mut paths: Vec<PathBuf> = entries.iter().map(std::fs::DirEntry::path).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            found.push(path);
        }
    }
    Ok(found)
}
