//! A recorded case, as the vector files have it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

/// A case.
#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) area: String,
    pub(crate) connector_config: BTreeMap<String, String>,
    pub(crate) setup: Vec<String>,
    pub(crate) sql: Vec<String>,
    #[serde(default)]
    pub(crate) live_sql: Vec<String>,
    pub(crate) expected: Expected,
    #[serde(default)]
    pub(crate) compare: Option<String>,
    #[serde(default)]
    pub(crate) alternatives: Vec<Vec<ExpectedRecord>>,
    #[serde(default)]
    pub(crate) requires: Option<String>,
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
    /// All cases of a folder, in the order of the file names.
    pub(crate) fn read_all(folder: &Path) -> Result<Vec<Self>> {
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .with_context(|| format!("cannot read {}", folder.display()))?
            .collect::<Result<Vec<_>, _>>()?;
        files.sort_by_key(std::fs::DirEntry::file_name);
        let mut cases = Vec::new();
        for file in files {
            let text = std::fs::read_to_string(file.path())?;
            let more: Vec<Self> = serde_json::from_str(&text)
                .with_context(|| format!("{} is no file of cases", file.path().display()))?;
            cases.extend(more);
        }
        Ok(cases)
    }
}
