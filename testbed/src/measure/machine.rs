//! What the figures were measured on; without it they say nothing.

use std::fs;
use std::thread;

use serde::Serialize;

use super::process_figures::kibibytes;
use super::stage::Stage;
use crate::program::program_folder;

/// The machine, the servers and how our programs were compiled.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    pub cores: usize,
    pub memory_mb: u64,
    pub processor: String,
    /// Processes that ran or waited to run in the minute before (the first of Linux's load averages).
    pub load_before: f64,
    /// Cargo's profile, `release` or `debug`.
    pub profile: String,
    pub postgres: String,
    pub mysql: String,
    pub kafka: String,
}

pub(super) fn describe(stage: &Stage) -> Machine {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let processor = read("/proc/cpuinfo");
    let processor =
        processor.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let profile = program_folder().ok();
    let profile = profile.as_deref().and_then(|folder| folder.file_name()).unwrap_or_default();
    Machine {
        cores: thread::available_parallelism().map_or(1, usize::from),
        memory_mb: kibibytes(&read("/proc/meminfo"), "MemTotal").unwrap_or_default() * 1024
            / 1_000_000,
        processor: processor.unwrap_or("unknown processor").to_owned(),
        load_before: stage.load_before(),
        profile: profile.to_string_lossy().into_owned(),
        postgres: stage.servers.postgres.version().to_owned(),
        mysql: stage.servers.mysql.version().to_owned(),
        kafka: stage.servers.kafka.version(),
    }
}

/// The first of Linux's load averages.
pub(super) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or_default()
}
