//! A recorded case, as the vector files have it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

/// A case.
#[derive(Debug, Deserialize)]
pub struct Case {
    pub name: String,
    pub area: String,
    pub connector_config: BTreeMap<String, String>,
    pub setup: Vec<String>,
    pub sql: Vec<String>,
    #[serde(default)]
    pub live_sql: Vec<String>,
    pub expected: Expected,
    #[serde(default)]
    pub compare: Option<String>,
    #[serde(default)]
    pub alternatives: Vec<Vec<ExpectedRecord>>,
    #[serde(default)]
    pub requires: Option<String>,
}

/// What Debezium made of it.
#[derive(Debug, Deserialize)]
pub struct Expected {
    pub records: Vec<ExpectedRecord>,
    pub error: Option<ExpectedError>,
    pub logs: Vec<ExpectedLog>,
}

/// A record; byte strings in one of the forms that the README of the vectors describes.
#[derive(Debug, Deserialize)]
pub struct ExpectedRecord {
    pub topic: String,
    pub partition: Option<i32>,
    pub key: Value,
    pub value: Value,
    pub headers: Vec<(String, Value)>,
    pub timestamp: Value,
    #[serde(default)]
    pub repeats: bool,
}

/// Where the task failed.
#[derive(Debug, Deserialize)]
pub struct ExpectedError {
    pub stage: String,
}

/// A line of the log.
#[derive(Debug, Deserialize)]
pub struct ExpectedLog {
    pub level: String,
}

impl Case {
    /// All cases of a folder, in the order of the file names.
    pub fn read_all(folder: &Path) -> Result<Vec<Self>> {
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
