//! Logs: to standard output, as text or as one JSON object per line.

use std::str::FromStr;

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// Starts logging for the whole process. To be called once, by `main`.
pub fn start(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::from_str(&config.log_filter)?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter);
    let started = match config.log_format {
        LogFormat::Text => subscriber.with_ansi(false).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}
