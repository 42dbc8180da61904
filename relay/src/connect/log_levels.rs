//! Log output: how lines look, and levels that can be changed while the process runs (`/admin/loggers`).

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tracing_subscriber::EnvFilter;

use super::error::ConnectError;
use crate::config::{LogFormat, WorkerConfig};

/// The name under which Kafka Connect knows the level of everything that has none of its own.
pub(super) const ROOT: &str = "root";
/// What is logged unless `RUST_LOG` says otherwise.
const FILTER: &str = "info";
/// Loggers with a level of their own; more is a mistake or an attack.
const LOGGERS_MAX: usize = 1_000;
/// Log4j's levels, and what `tracing` calls them.
const LEVELS: [(&str, &str); 8] = [
    ("OFF", "off"),
    ("FATAL", "error"),
    ("ERROR", "error"),
    ("WARN", "warn"),
    ("INFO", "info"),
    ("DEBUG", "debug"),
    ("TRACE", "trace"),
    ("ALL", "trace"),
];

/// A logger's level as the REST API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Level {
    level: &'static str,
    /// Milliseconds since 1970; null: never changed.
    last_modified: Option<i64>,
}

type Reload = Arc<dyn Fn(EnvFilter) + Send + Sync>;

/// The levels of all loggers, and the way to put them into force.
#[derive(Clone)]
pub struct LogLevels {
    base: Arc<str>,
    levels: Arc<Mutex<BTreeMap<String, Level>>>,
    reload: Option<Reload>,
}

impl LogLevels {
    /// Begins to log as the configuration says; once per process.
    ///
    /// # Errors
    /// When `RUST_LOG` cannot be read, or something logs already.
    pub fn install(worker: &WorkerConfig) -> anyhow::Result<Self> {
        let base = worker.log_filter.as_deref().unwrap_or(FILTER);
        let filter =
            EnvFilter::try_new(base).map_err(|error| anyhow::anyhow!("RUST_LOG: {error}"))?;
        let lines = tracing_subscriber::fmt().with_ansi(std::io::stdout().is_terminal());
        let failed = |error| anyhow::anyhow!("logging cannot begin: {error}");
        let reload: Reload = match worker.log_format {
            LogFormat::Text => {
                let lines = lines.with_env_filter(filter).with_filter_reloading();
                let handle = lines.reload_handle();
                lines.try_init().map_err(failed)?;
                Arc::new(move |filter| drop(handle.reload(filter)))
            }
            LogFormat::Json => {
                let lines = lines.json().flatten_event(true);
                let lines = lines.with_env_filter(filter).with_filter_reloading();
                let handle = lines.reload_handle();
                lines.try_init().map_err(failed)?;
                Arc::new(move |filter| drop(handle.reload(filter)))
            }
        };
        Ok(Self { reload: Some(reload), ..Self::silent(base) })
    }

    /// Levels without output.
    fn silent(base: &str) -> Self {
        let level = base.split(',').rfind(|part| !part.contains(['=', '['])).unwrap_or(FILTER);
        let level = known(level).map_or("INFO", |(log4j, _)| log4j);
        let root = Level { level, last_modified: None };
        Self {
            base: base.into(),
            levels: Arc::new(Mutex::new(BTreeMap::from([(ROOT.to_owned(), root)]))),
            reload: None,
        }
    }

    pub(super) fn all(&self) -> BTreeMap<String, Level> {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn get(&self, logger: &str) -> Result<Level, ConnectError> {
        self.all()
            .remove(logger)
            .ok_or_else(|| ConnectError::not_found(format!("Logger {logger} not found.")))
    }

    /// Refuses a level that is none.
    pub(super) fn check(&self, level: &str) -> Result<(), ConnectError> {
        known(level).map(|_| ()).ok_or_else(|| unknown_level(level))
    }

    /// Sets the level of a logger and of those below it; tells which of them changed.
    pub(super) fn set(&self, logger: &str, level: &str) -> Result<Vec<String>, ConnectError> {
        let (level, _) = known(level).ok_or_else(|| unknown_level(level))?;
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        if levels.len() >= LOGGERS_MAX && !levels.contains_key(logger) {
            return Err(ConnectError::bad_request(format!(
                "{LOGGERS_MAX} loggers have a level already"
            )));
        }
        let now = chrono::Utc::now().timestamp_millis();
        let unset = Level { level: "", last_modified: None };
        levels.entry(logger.to_owned()).or_insert(unset);
        let mut changed = Vec::new();
        for (name, known) in levels.iter_mut() {
            if is_at_or_below(name, logger) && known.level != level {
                *known = Level { level, last_modified: Some(now) };
                changed.push(name.clone());
            }
        }
        if let Some(reload) = &self.reload {
            reload(filter(&self.base, &levels));
        }
        Ok(changed)
    }
}

fn unknown_level(level: &str) -> ConnectError {
    ConnectError::not_found(format!("invalid log level '{level}'."))
}

/// The level of log4j and of `tracing` for what a caller wrote, in any case.
fn known(level: &str) -> Option<(&'static str, &'static str)> {
    LEVELS.into_iter().find(|(log4j, _)| log4j.eq_ignore_ascii_case(level.trim()))
}

fn is_at_or_below(name: &str, logger: &str) -> bool {
    let below = |rest: &str| rest.is_empty() || rest.starts_with('.') || rest.starts_with("::");
    logger == ROOT || name.strip_prefix(logger).is_some_and(below)
}

fn filter(base: &str, levels: &BTreeMap<String, Level>) -> EnvFilter {
    let changed = levels.iter().filter(|(_, level)| level.last_modified.is_some());
    let directives = changed.filter_map(|(name, level)| {
        let (_, tracing) = known(level.level)?;
        let text = if name == ROOT { tracing.to_owned() } else { format!("{name}={tracing}") };
        // A Java logger's name may be none that `tracing` can have; nothing logs under it then.
        text.parse().ok()
    });
    directives.fold(EnvFilter::new(base), EnvFilter::add_directive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_levels_that_differ_are_changes_and_they_reach_what_is_below() {
        let levels = LogLevels::silent("info");
        assert_eq!(levels.set("relay.connect", "debug").unwrap(), ["relay.connect"]);
        assert_eq!(levels.set("relay.connect", "DEBUG").unwrap(), [""; 0]);
        assert_eq!(levels.set("relay", "WARN").unwrap(), ["relay", "relay.connect"]);
        assert_eq!(levels.get("relay.connect").unwrap().level, "WARN");
        assert_eq!(levels.get(ROOT).unwrap(), Level { level: "INFO", last_modified: None });
    }

    #[test]
    fn unknown_levels_and_loggers_are_refused() {
        let levels = LogLevels::silent("relay=debug,warn");
        assert_eq!(levels.get(ROOT).unwrap().level, "WARN");
        assert_eq!(levels.set("relay", "LOUD").unwrap_err().status, 404);
        assert_eq!(levels.get("nobody").unwrap_err().message, "Logger nobody not found.");
    }
}
